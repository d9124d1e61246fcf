"""Cross-match survey-sized HATS catalogues with LSDB on Dask, tile by tile; same pairs as `crossmatch`."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from specclip_search.errors import MissingExtra, QueryError
from specclip_search.tables.hats import (
    INDEX_FIELD,
    MARGIN_REACH,
    MAX_ROWS,
    describe_catalogue,
    refuse_taken,
    with_fields,
    write_hats,
)

from ..views.rows import stream
from .crossmatch import CANDIDATES, SEPARATION

if TYPE_CHECKING:
    from dask.distributed import Client

    from ..views.connection import AtlasConnection

# columns of the HATS layout that do not belong to the catalogue itself
_HIVE = {"Norder", "Dir", "Npix", "_healpix_29"}


@contextmanager
def as_catalogues(
    connection: AtlasConnection, sides: tuple[str, str], margin_arcsec: float, max_rows: int = MAX_ROWS
) -> Iterator[list[Path]]:
    """HATS folders of two sides: given folders unchanged, views and SELECTs written to temporary folders.

    Temporary folders are in the atlas, which every worker of a cluster can read.
    """
    found = []
    with tempfile.TemporaryDirectory(prefix=".crossmatch-", dir=connection.views.atlas.path) as scratch:
        for name, side in zip(("left", "right"), sides, strict=True):
            if is_catalogue(side):
                found.append(Path(side))
                continue
            schema, batches = stream(connection, side)
            folder = Path(scratch) / name
            write_hats(batches, schema, folder, max_rows=max_rows, margin_arcsec=margin_arcsec)
            found.append(folder)
        yield found


def is_catalogue(side: str) -> bool:
    """Whether a side of a match is a HATS folder rather than a table of the atlas."""
    try:
        folder = Path(side)
        return any((folder / name).is_file() for name in ("collection.properties", "hats.properties", "properties"))
    except OSError:  # a SELECT longer than the maximum path length
        return False


def crossmatch_hats(
    client: Client,
    left: str | os.PathLike[str],
    right: str | os.PathLike[str],
    radius_arcsec: float = 1.0,
    *,
    left_epoch: float | None = None,
    right_epoch: float | None = None,
    nearest: bool = True,
    output: str | os.PathLike[str] | None = None,
) -> pa.Table | None:
    """Match two HATS catalogues by position, tile by tile on a Dask cluster.

    The pairs are those of `specclip_search.queries.sky.crossmatch.crossmatch`.

    Parameters
    ----------
    client
        From `specclip_search.stages.cluster.dask_client`.
    left, right
        HATS catalogues or collections, anything that `lsdb.open_catalog` opens. The right one needs
        a margin that covers the radius and, if epochs differ, the proper motions.
    radius_arcsec, left_epoch, right_epoch, nearest
        As of `crossmatch`.
    output
        Folder of a new HATS catalogue for the matches; if not given they are returned.

    Returns
    -------
    pa.Table or None
        Columns as in `crossmatch`, in order of the tiles; None if written to `output`.

    Raises
    ------
    MissingExtra
        If LSDB is not installed.
    QueryError
        If a catalogue cannot be opened, or the right margin is too narrow.
    """
    from .hats_algorithm import SkyMatch

    lsdb = _lsdb()

    if output is not None:
        refuse_taken(Path(output), "catalogue")

    sides = [_opened(lsdb, side) for side in (left, right)]
    moved, years = _motion(sides, left_epoch, right_epoch)
    margin = _margin(sides[1], right, radius_arcsec)
    algorithm = SkyMatch(radius_arcsec, margin, nearest, moved, years)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        matched = sides[0].crossmatch(
            sides[1],
            algorithm=algorithm,
            suffixes=("", "_right"),
            suffix_method="overlapping_columns",
            log_changes=False,
        )
        if output is not None:
            _written(matched, Path(output), sides)
            return None
        frame = matched.compute(progress_bar=False)
    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    return _with_fields(table, sides)


def _lsdb() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import lsdb
    except ImportError as error:
        raise MissingExtra("lsdb", "hats", "A cross-match of HATS catalogues") from error
    return lsdb


def _opened(lsdb: Any, side: str | os.PathLike[str]) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return lsdb.open_catalog(side)
    except (OSError, ValueError, KeyError) as error:
        raise QueryError(
            f"{side} cannot be opened as a HATS catalogue: {error}.",
            "Give the folder that holds collection.properties or hats.properties; "
            "`specclip-search export --format hats` makes one.",
        ) from error


def _margin(right: Any, name: str | os.PathLike[str], radius_arcsec: float) -> float:
    """Width of the right catalogue's margin, which must cover the radius."""
    if right.margin is not None:
        reach = float(right.margin.hc_structure.catalog_info.margin_threshold)
    else:
        extra = right.hc_structure.catalog_info.__pydantic_extra__ or {}
        reach = float(extra.get(MARGIN_REACH, 0))
    if reach < radius_arcsec:
        found = f"a margin of {reach:g} arcsec" if reach else "no margin"
        raise QueryError(
            f"{name} has {found}; a match within {radius_arcsec:g} arcsec would miss pairs across the edges of tiles.",
            "Export it again with a wider --margin, or open it as a collection that has one.",
        )
    return reach


def _motion(sides: list[Any], left_epoch: float | None, right_epoch: float | None) -> tuple[str | None, float]:
    """The side to propagate to the other epoch, and the number of years."""
    if left_epoch is None or right_epoch is None or left_epoch == right_epoch:
        return None, 0.0
    for side, name, years in ((0, "left", right_epoch - left_epoch), (1, "right", left_epoch - right_epoch)):
        if {"pmra", "pmdec"} <= set(sides[side].columns):
            return name, years
    raise QueryError(
        f"The epochs {left_epoch:g} and {right_epoch:g} differ, and neither side has columns pmra and pmdec (mas/yr).",
        "Add proper motions to one side, or leave out the epochs and take a larger radius.",
    )


def _written(matched: Any, output: Path, sides: list[Any]) -> None:
    """Write the matches atomically as a HATS catalogue, with units and descriptions."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as scratch:
        work = Path(scratch) / output.name
        matched.to_hats(work, catalog_name=output.name, progress_bar=False)
        describe_catalogue(work, _fields(sides) | {INDEX_FIELD.name: INDEX_FIELD})
        if output.is_dir():
            output.rmdir()
        os.replace(work, output)


def _with_fields(table: pa.Table, sides: list[Any]) -> pa.Table:
    """The table with the units and descriptions of `crossmatch`."""
    return pa.Table.from_arrays(table.columns, schema=with_fields(table.schema, _fields(sides)))


def _fields(sides: list[Any]) -> dict[str, pa.Field]:
    fields = {"separation_arcsec": SEPARATION, "candidates": CANDIDATES}
    for side in sides:
        mine = [field for field in _schema(side) if field.name not in _HIVE]
        fields |= {f"{field.name}_right" if field.name in fields else field.name: field for field in mine}
    return fields


def _schema(side: Any) -> pa.Schema:
    """Columns of a catalogue with the metadata of its files, which LSDB's own schema omits."""
    import pyarrow.parquet as pq

    try:
        with (side.hc_structure.catalog_path / "dataset" / "_common_metadata").open("rb") as handle:
            return pq.read_schema(handle)
    except OSError:
        return side.hc_structure.schema
