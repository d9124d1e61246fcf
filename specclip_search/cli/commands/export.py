"""`specclip-search export`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...errors import QueryError
from ..options import AtlasOption, open_atlas
from ..progress import progress_bar
from ..reports import say

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def export(
    atlas: AtlasOption,
    table: Annotated[str, typer.Argument(metavar="TABLE", help="A view or catalogue from SHOW TABLES, or a SELECT.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="PATH", help="File to write; a new folder for hats.")
    ] = None,
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
    bundle: Annotated[
        Path | None,
        typer.Option("--release-bundle", metavar="DIR", help="New folder to publish, instead of --output: see below."),
    ] = None,
    title: Annotated[str | None, typer.Option("--title", metavar="TEXT", help="Title in a release bundle.")] = None,
    license: Annotated[
        str | None, typer.Option("--license", metavar="SPDX", help="Licence in a release bundle, such as CC-BY-4.0.")
    ] = None,
) -> None:
    """Export a whole table for other programs, with units, descriptions and UCDs.

    parquet and hats are written in pieces, so that the table may be larger than memory. A hats folder can be opened
    with LSDB: lsdb.open_catalog("my-stars").

    --release-bundle writes the table as Parquet with Croissant and Frictionless descriptions, CITATION.cff and
    checksums, for Zenodo or Hugging Face.

    Example: specclip-search export stars --format hats --output my-stars --atlas my-atlas
    """
    from specclip_search.queries.sql.bundle import export_bundle
    from specclip_search.queries.sql.export import export_table

    target = output if bundle is None else bundle
    if target is None or (bundle is not None and (output is not None or format is not None or nested)):
        raise QueryError(
            "Expected one of --output and --release-bundle; found "
            f"{'neither' if target is None else 'both'}.",
            "Give --output FILE, or --release-bundle DIR alone: its table is Parquet.",
        )
    with progress_bar("export", "rows") as progress:
        if bundle is not None:
            report = export_bundle(
                open_atlas(atlas), table, bundle, title=title, license=license,
                progress=lambda done: progress(done, None),
            )  # fmt: skip
        else:
            report = export_table(
                open_atlas(atlas),
                table,
                target,
                format or ("hats" if nested else None),
                nested=nested,
                max_rows=rows,
                margin_arcsec=margin,
                progress=lambda done: progress(done, None),
            )
    say(f"{report} written to {target}")
