"""`specclip-search map`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..options import AtlasOption, ModelOption, SeedOption, open_atlas
from ..progress import progress_bar
from ..reports import say

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command("map")
def make(
    atlas: AtlasOption,
    color: Annotated[
        str | None,
        typer.Option("--color", metavar="COLUMN", help="Column of the view `stars` to colour by; by default density."),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Plot to write: .png, .svg or .pdf.")
    ] = Path("map.png"),
    parquet: Annotated[
        Path | None, typer.Option("--parquet", metavar="FILE", help="Positions and labels, for embedding-atlas.")
    ] = None,
    within: Annotated[
        str | None, typer.Option("--within", metavar="MODALITY", help="lamost_lrs or gaia_xp; by default both.")
    ] = None,
    sample: Annotated[
        int,
        typer.Option(
            "--sample",
            min=50,
            metavar="N",
            help="Number of spectra laid out by UMAP; the others are placed relative to them.",
        ),
    ] = 50_000,
    model: ModelOption = None,
    seed: SeedOption = 0,
) -> None:
    """Plot a map of all spectra, and store it as the table `map` in SQL.

    The layout is stored, so that recolouring takes seconds. Open the Parquet file with
    `embedding-atlas map.parquet --x x --y y --text key`.

    Example: specclip-search map --color feh --output map.png --parquet map.parquet --atlas demo-atlas
    """
    from specclip_search.queries.maps.map import check_color, label_columns, make_map, map_table, write_map
    from specclip_search.queries.maps.picture import draw_map

    from ...tables.pictures import picture_format

    picture_format(output)
    there = open_atlas(atlas)
    check_color(there, color)
    with progress_bar("map", "spectra") as progress:
        stage = make_map(there, within=within, sample=sample, seed=seed, model=model, progress=progress)
    extra = stage.parts()[0].extra
    wanted = [] if color is None else [color]
    table = map_table(there, wanted if parquet is None else [*label_columns(there), *wanted])
    if parquet is not None:
        write_map(table, parquet)
    title = f"{table.num_rows:,} spectra of {' and '.join(extra['modalities'])}, model '{extra['model']}'"
    draw_map(table, color, output, title)
    say(f"{title}: {output}" + (f" and {parquet}" if parquet is not None else ""))
