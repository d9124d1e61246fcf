"""`specclip-search emp`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..options import AtlasOption, FormatOption, ModelOption, OutputOption, open_atlas

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def emp(
    atlas: AtlasOption,
    below: Annotated[float, typer.Option("--below", metavar="DEX", help="[Fe/H] below which a star counts.")] = -3.0,
    known: Annotated[
        Path | None,
        typer.Option("--known", metavar="FILE", help="Known metal-poor stars: source_id, or ra and dec in degrees."),
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, metavar="N", help="How many to list.")] = 100,
    model: ModelOption = None,
    format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """List candidates for extremely metal-poor stars, with the evidence beside the probability.

    Example: specclip-search emp --below -2 --top 20 --atlas demo-atlas
    """
    from queries.emp import emp_candidates

    from ...tables import write_rows

    frame = emp_candidates(open_atlas(atlas), below=below, known=known, top=top, model=model)
    write_rows(frame, format, output)
