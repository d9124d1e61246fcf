"""`specclip-search crossmatch`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..options import AtlasOption, FormatOption, OutputOption, open_atlas
from ..reports import say

if TYPE_CHECKING:
    import pyarrow as pa

app = typer.Typer(add_completion=False, rich_markup_mode=None)
_SIDE = "a view or catalogue of SHOW TABLES, a SELECT with ra and dec, or a HATS folder."


@app.command()
def crossmatch(
    atlas: AtlasOption,
    left: Annotated[str, typer.Argument(metavar="LEFT", help=f"Left side: {_SIDE}")],
    right: Annotated[str, typer.Argument(metavar="RIGHT", help=f"Right side: {_SIDE}")],
    radius: Annotated[
        float, typer.Option("--radius", min=0.001, max=3600, metavar="ARCSEC", help="Largest separation.")
    ] = 1.0,
    left_epoch: Annotated[
        float | None, typer.Option("--left-epoch", metavar="YEAR", help="Epoch of the left positions.")
    ] = None,
    right_epoch: Annotated[
        float | None,
        typer.Option(
            "--right-epoch",
            metavar="YEAR",
            help="Epoch of the right positions; pmra, pmdec are used to convert both to one epoch.",
        ),
    ] = None,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Return all pairs within the radius, not only the nearest.")
    ] = False,
    scheduler: Annotated[
        str | None,
        typer.Option("--scheduler", metavar="ADDRESS", help="Match by LSDB on this Dask cluster: tcp://host:8786."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", "-j", min=1, metavar="N", help="Match by LSDB in N local processes.")
    ] = None,
    margin: Annotated[
        float,
        typer.Option(
            "--margin", min=0.1, max=3600, metavar="ARCSEC", help="LSDB: margin for radius and proper motions."
        ),
    ] = 10.0,
    format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Match two tables by position, with proper motion; `candidates` above 1 marks an ambiguous match.

    Runs in this process by default. With --scheduler or --workers, or if a side is a HATS folder, LSDB matches tile
    by tile, so that both sides may be larger than memory; --format hats then writes the matches as a HATS catalogue.

    Example: specclip-search crossmatch stars my_catalogue --radius 2 --output matches.vot --atlas my-atlas
    """
    from specclip_search.queries.sky.hats import is_catalogue
    from specclip_search.queries.sql.ask import connect

    from ...errors import QueryError
    from ...tables import require_writable, write_rows

    clustered = scheduler is not None or workers is not None or is_catalogue(left) or is_catalogue(right)
    to_hats = format is not None and format.lower() == "hats"
    if to_hats and not (clustered and output):
        raise QueryError(
            "Matches are written as HATS by LSDB, into a folder.", "Add --workers or --scheduler, and --output FOLDER."
        )
    if not to_hats:
        require_writable(format, output)
    with connect(open_atlas(atlas)) as connection:
        if clustered:
            from specclip_search.queries.sky.hats import as_catalogues, crossmatch_hats

            from ...stages.cluster import dask_client

            with (
                as_catalogues(connection, (left, right), max(margin, radius)) as (left_folder, right_folder),
                dask_client(scheduler, workers) as client,
            ):
                table = crossmatch_hats(
                    client,
                    left_folder,
                    right_folder,
                    radius,
                    left_epoch=left_epoch,
                    right_epoch=right_epoch,
                    nearest=not pairs,
                    output=output if to_hats else None,
                )
        else:
            from specclip_search.queries.sky.crossmatch import crossmatch as match

            table = match(
                connection, left, right, radius, left_epoch=left_epoch, right_epoch=right_epoch, nearest=not pairs
            )
    if table is None:
        say(f"matches written to {output}")
        return
    _tell(table, output)
    write_rows(table, format, output)


def _tell(table: pa.Table, output: Path | None) -> None:
    ambiguous = sum(count > 1 for count in table["candidates"].to_pylist())
    where = f" written to {output}" if output is not None else ""
    say(f"{table.num_rows:,} matches{where}; {ambiguous:,} with more than one candidate")
