"""`specclip-search export`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..options import AtlasOption, open_atlas
from ..progress import progress_bar
from ..reports import say

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def export(
    atlas: AtlasOption,
    table: Annotated[str, typer.Argument(metavar="TABLE", help="A view or catalogue from SHOW TABLES, or a SELECT.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PATH", help="File to write; a new folder for hats.")
    ],
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            help="parquet, hats, votable, fits, csv or json; by default from the suffix of --output.",
        ),
    ] = None,
    nested: Annotated[
        bool,
        typer.Option("--hats", help="hats, with a view of spectra's arrays and vectors as nested columns for LSDB."),
    ] = False,
    rows: Annotated[
        int | None,
        typer.Option(
            "--rows", min=1, metavar="N", help="hats: maximum rows per HEALPix tile; 1,000,000, nested 50,000."
        ),
    ] = None,
    margin: Annotated[
        float,
        typer.Option(
            "--margin", min=0.1, max=3600, metavar="ARCSEC", help="hats: largest radius of a cross-match against it."
        ),
    ] = 10.0,
) -> None:
    """Export a whole table for other programs, with units, descriptions and UCDs.

    parquet and hats are written in pieces, so that the table may be larger than memory. A hats folder can be opened
    with LSDB: lsdb.open_catalog("my-stars").

    Example: specclip-search export stars --format hats --output my-stars --atlas my-atlas
    """
    from specclip_search.queries.sql.export import export_table

    with progress_bar("export", "rows") as progress:
        report = export_table(
            open_atlas(atlas),
            table,
            output,
            format or ("hats" if nested else None),
            nested=nested,
            max_rows=rows,
            margin_arcsec=margin,
            progress=lambda done: progress(done, None),
        )
    say(f"{report} written to {output}")
