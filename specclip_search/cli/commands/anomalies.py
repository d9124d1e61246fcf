"""`specclip-search anomalies`"""

from __future__ import annotations

from typing import Annotated

import typer

from ..options import AtlasOption, FormatOption, ModelOption, OutputOption, open_atlas
from ..progress import progress_bar

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def anomalies(
    atlas: AtlasOption,
    top: Annotated[int, typer.Option("--top", min=1, metavar="N", help="How many to list.")] = 100,
    neighbours: Annotated[
        int,
        typer.Option(
            "-k", "--neighbours", min=4, max=1000, metavar="K", help="Neighbours that a star is judged against."
        ),
    ] = 32,
    model: ModelOption = None,
    format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """List the strangest stars: translation errors judged against a star's own neighbours, with reasons.

    Needs `translate` and `index build` first. The scores of all pairs are kept as the table `anomalies` in SQL.

    Example: specclip-search anomalies --top 10 --atlas demo-atlas
    """
    from queries.anomalies import anomalies as rank

    from ...tables import write_rows

    with progress_bar("score", "pairs") as progress:
        frame = rank(open_atlas(atlas), top=top, model=model, k=neighbours, progress=progress)
    write_rows(frame, format, output)
