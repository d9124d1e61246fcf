"""`specclip-search report`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..options import AtlasOption, ModelOption, open_atlas
from ..progress import progress_bar
from ..reports import say

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def report(
    atlas: AtlasOption,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="HTML file to write.")] = Path(
        "report.html"
    ),
    anomalies: Annotated[
        int, typer.Option("--anomalies", metavar="N", help="Number of highest-scoring anomalies.")
    ] = 20,
    emp: Annotated[int, typer.Option("--emp", metavar="N", help="Number of metal-poor candidates.")] = 20,
    below: Annotated[float, typer.Option("--below", metavar="DEX", help="[Fe/H] below which a star counts.")] = -3.0,
    maps: Annotated[bool, typer.Option("--maps/--no-maps", help="Include maps of all spectra (extra: map).")] = True,
    title: Annotated[str, typer.Option("--title", help="Title of the page.")] = "",
    model: ModelOption = None,
) -> None:
    """Write the results of the searches as one HTML page that needs no network.

    Example: specclip-search report --anomalies 10 --emp 10 --output report.html --atlas demo-atlas
    """
    from specclip_search.queries.report.report import write_report

    with progress_bar("report", "steps") as progress:
        done = write_report(
            open_atlas(atlas),
            output,
            anomalies=anomalies,
            emp=emp,
            below=below,
            maps=maps,
            model=model,
            title=title,
            progress=progress,
        )
    say(
        f"{done.path}: {done.anomalies} anomalies, {done.emp} metal-poor candidates, {done.maps} maps, "
        f"{done.size / 1e6:.1f} MB",
        *done.notes,
    )
