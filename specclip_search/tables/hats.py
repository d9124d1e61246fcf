"""Output in HATS format: Parquet files by HEALPix tile, as LSDB reads and cross-matches them.

HATS (Hierarchical Adaptive Tiling Scheme, IVOA Note) limits the number of rows per file: crowded
fields get small tiles, empty fields large tiles. A margin catalogue next to the main one repeats
the rows near the tiles' edges, so that a cross-match of one tile misses no neighbour.
`describe_catalogue` adds units and descriptions to a HATS catalogue that was written without them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..atlas.files import beside, remove_abandoned, sync_folder, write_text
from ..atlas.schemas import described
from ..errors import QueryError
from ..version import __version__
from .sky_tiles import INDEX_ORDER, Tiles, margin_order, margin_rows, share_out, sky_cells, with_gaps

INDEX = "_healpix_29"


def margin_name(name: str, arcsec: float) -> str:
    """Folder of a catalogue's margin."""
    return f"{name}_{arcsec:g}arcs".replace(".", "p")


def write_metadata(
    folder: Path, schema: pa.Schema, tiles: Tiles, rows: int, most: int, said: dict[str, str]
) -> None:
    """Write the common metadata of a catalogue: columns, list of tiles, and properties."""
    pq.write_metadata(schema, folder / "dataset" / "_common_metadata")
    size = sum(path.stat().st_size for path in (folder / "dataset").rglob("*.parquet"))
    by = np.lexsort((tiles.pixel, tiles.order))
    lines = [f"{order},{pixel}" for order, pixel in zip(tiles.order[by], tiles.pixel[by], strict=True)]
    write_text(folder / "partition_info.csv", "\n".join(["Norder,Npix", *lines]) + "\n")
    _write_properties(
        [folder / "hats.properties", folder / "properties"],
        {
            "obs_collection": folder.name,
            **said,
            "hats_nrows": str(rows),
            "hats_col_healpix": INDEX,
            "hats_col_healpix_order": str(INDEX_ORDER),
            "hats_npix_suffix": ".parquet",
            "hats_max_rows": str(most),
            "hats_order": str(int(tiles.order.max())),
            "moc_sky_fraction": f"{float(np.sum(4.0 ** -tiles.order) / 12):.6g}",
            "hats_estsize": str(max(1, size // 1024)),
            "hats_builder": f"specclip-search {__version__}",
            "hats_version": "v0.1",
            "obs_frame": "ICRS",
        },
    )


def write_collection(work: Path, name: str, arcsec: float) -> None:
    """Write the properties of catalogue and margin together."""
    said = {"obs_collection": name, "hats_primary_table_url": name}
    margin = margin_name(name, arcsec)
    if (work / margin).is_dir():
        said |= {"all_margins": margin, "default_margin": margin}
    _write_properties(
        [work / "collection.properties"], said | {"hats_builder": f"specclip-search {__version__}"}
    )


def _write_properties(paths: list[Path], said: dict[str, str]) -> None:
    """Write Java properties: one `key = value` per line."""
    text = "#HATS\n" + "".join(f"{key} = {value}\n" for key, value in said.items())
    for path in paths:
        write_text(path, text)


# finest tiles: 3.4 arcmin across
FINEST_TILE = 10
MAX_ROWS = 1_000_000
MARGIN_ARCSEC = 10.0
# gives the margin's radius even if it contains no row and therefore does not exist
MARGIN_REACH = "specclip_margin_arcsec"
GROUP_ROWS = 65_536
INDEX_FIELD = described(INDEX, pa.int64(), "HEALPix cell of the position, order 29, nested", ucd="pos.healpix")
_RESERVED = {"Norder", "Dir", "Npix"}


@dataclass(frozen=True, slots=True)
class HatsReport:
    """Counts of a HATS export: read = kept + without_position.

    Attributes
    ----------
    folder
        The collection; `lsdb.open_catalog` takes it.
    read, kept, without_position
        Rows read, written, and rejected because ra or dec is missing or not finite.
    tiles
        Files of the main catalogue.
    margin_rows
        Rows repeated in the margin catalogue.
    """

    folder: Path
    read: int
    kept: int
    without_position: int
    tiles: int
    margin_rows: int

    def __str__(self) -> str:
        lost = f", {self.without_position:,} without position rejected" if self.without_position else ""
        return f"{self.kept:,} rows in {self.tiles:,} HEALPix tiles{lost}; {self.margin_rows:,} rows in the margin"


def write_hats(
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    folder: str | os.PathLike[str],
    *,
    name: str | None = None,
    ra: str = "ra",
    dec: str = "dec",
    max_rows: int = MAX_ROWS,
    margin_arcsec: float = MARGIN_ARCSEC,
    group_rows: int = GROUP_ROWS,
    progress: Callable[[int], None] | None = None,
) -> HatsReport:
    """Write a HATS collection atomically: the catalogue and its margin.

    Memory use is bounded: rows are written to a temporary file, sorted by DuckDB, which spills to
    disk, and then split into tiles.

    Parameters
    ----------
    batches
        Rows, with the columns of `schema`.
    schema
        Columns; their metadata (unit, description, ucd) are written to every file.
    folder
        Folder to create; it must not exist or must be empty.
    name
        The catalogue's name; the folder's by default.
    ra, dec
        Columns of the position, degrees, ICRS.
    max_rows
        Maximum rows per tile (a tile of order 10 may hold more).
    margin_arcsec
        Width of the margin: the largest radius of a cross-match against this catalogue.
    group_rows
        Rows of a row group, and in memory at a time.
    progress
        Called with the rows read so far.

    Raises
    ------
    QueryError
        If the folder is not empty, the position's columns are missing, or there is no row with a position.
    """
    target = Path(folder)
    _check(target, schema, ra, dec)
    name = _plain_name(name or target.name)
    remove_abandoned(target)
    work = beside(target)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        plain = pa.schema([field for field in schema if field.name != INDEX])
        staged = _Staged(work / "staged.parquet", pa.schema([INDEX_FIELD, *plain]), ra, dec, group_rows)
        staged.fill(batches, progress)
        if not staged.kept:
            raise QueryError(
                f"No row has a finite {ra} and {dec}; HATS distributes rows by position.", "Give rows with positions."
            )
        tiles = share_out(staged.counts, FINEST_TILE, max_rows)
        position = {"hats_col_ra": ra, "hats_col_dec": dec}
        said = {"dataproduct_type": "object", **position, MARGIN_REACH: f"{margin_arcsec:g}"}
        _write_catalogue(work / name, staged.schema, tiles, staged.sorted(), said)
        repeated = _write_margin(work, name, staged, tiles, margin_arcsec, position)
        staged.path.unlink()
        write_collection(work, name, margin_arcsec)
        if target.exists():
            target.rmdir()
        os.replace(work, target)
        sync_folder(target.parent)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return HatsReport(target, staged.read, staged.kept, staged.read - staged.kept, len(tiles), repeated)


def refuse_taken(target: Path, what: str) -> None:
    """Raise an error if the target of a HATS `what` exists and is not an empty folder.

    Raises
    ------
    QueryError
        If it exists.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise QueryError(f"{target} already exists; a HATS {what} needs a new folder.", "Give a new folder name.")


def _check(target: Path, schema: pa.Schema, ra: str, dec: str) -> None:
    refuse_taken(target, "collection")
    missing = [column for column in (ra, dec) if column not in schema.names]
    if missing:
        raise QueryError(
            f"The rows have no column {' and '.join(missing)}; found {', '.join(schema.names)}.",
            "Give a SELECT with the position columns ra and dec, in degrees.",
        )
    taken = _RESERVED & set(schema.names)
    if taken:
        raise QueryError(f"The column names {', '.join(sorted(taken))} are reserved by HATS.", "Rename these columns.")


def _plain_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name) or "rows"


class _Staged:
    """Write all rows with their cell to one file, in input order."""

    def __init__(self, path: Path, schema: pa.Schema, ra: str, dec: str, group_rows: int) -> None:
        self.path, self.schema, self._ra, self._dec, self._group = path, schema, ra, dec, group_rows
        self.counts = np.zeros(12 * 4**FINEST_TILE, np.int32)
        self.read = self.kept = 0

    def fill(self, batches: Iterable[pa.RecordBatch], progress: Callable[[int], None] | None) -> None:
        with pq.ParquetWriter(self.path, self.schema, compression="zstd", compression_level=1) as writer:
            for batch in batches:
                self.read += batch.num_rows
                ra, dec = (_degrees(batch, column) for column in (self._ra, self._dec))
                rows = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90))
                if len(rows):
                    cells = sky_cells(ra[rows], dec[rows])
                    np.add.at(self.counts, cells >> (2 * (INDEX_ORDER - FINEST_TILE)), 1)
                    kept = batch.take(pa.array(rows))
                    columns = [pa.array(cells), *(kept.column(field.name) for field in list(self.schema)[1:])]
                    # the margin is computed from this file later: small row groups keep that cheap
                    writer.write_table(pa.Table.from_arrays(columns, schema=self.schema), row_group_size=self._group)
                    self.kept += len(rows)
                if progress is not None:
                    progress(self.read)

    def batches(self) -> Iterator[pa.RecordBatch]:
        yield from pq.ParquetFile(self.path).iter_batches(self._group)

    def sorted(self) -> Iterator[pa.RecordBatch]:
        """Rows sorted by cell; rows of equal cells stay in input order."""
        import duckdb

        path = str(self.path).replace("'", "''")
        with duckdb.connect(config={"temp_directory": str(self.path.parent / "spill")}) as connection:
            rows = connection.sql(f"SELECT * FROM read_parquet('{path}') ORDER BY {INDEX}, file_row_number")
            for batch in rows.to_arrow_reader(self._group):
                yield pa.RecordBatch.from_arrays(
                    [column.cast(field.type) for column, field in zip(batch.columns, self.schema, strict=True)],
                    schema=self.schema,
                )


def _degrees(batch: pa.RecordBatch, column: str) -> np.ndarray:
    return batch.column(column).cast(pa.float64()).to_numpy(zero_copy_only=False)


def _write_catalogue(
    folder: Path, schema: pa.Schema, tiles: Tiles, batches: Iterable[pa.RecordBatch], said: dict[str, str]
) -> int:
    """Write one catalogue from rows sorted by cell; return the number of rows."""
    rows, most, writer, open_tile = 0, 0, None, -1
    here = 0
    try:
        for batch in batches:
            tile = tiles.of(batch.column(INDEX).to_numpy())
            edges = [0, *(np.flatnonzero(np.diff(tile)) + 1).tolist(), batch.num_rows]
            for start, stop in pairwise(edges):
                if tile[start] != open_tile:
                    if writer is not None:
                        writer.close()
                    open_tile, here = int(tile[start]), 0
                    writer = _tile_writer(folder, schema, int(tiles.order[open_tile]), int(tiles.pixel[open_tile]))
                assert writer is not None
                writer.write_batch(batch.slice(start, stop - start), row_group_size=GROUP_ROWS)
                rows, here = rows + stop - start, here + stop - start
                most = max(most, here)
    finally:
        if writer is not None:
            writer.close()
    write_metadata(folder, schema, tiles, rows, most, said)
    return rows


def _tile_writer(folder: Path, schema: pa.Schema, order: int, pixel: int) -> pq.ParquetWriter:
    path = folder / "dataset" / f"Norder={order}" / f"Dir={pixel // 10_000 * 10_000}" / f"Npix={pixel}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    return pq.ParquetWriter(path, schema, compression="zstd")


def _write_margin(
    work: Path, name: str, staged: _Staged, tiles: Tiles, arcsec: float, position: dict[str, str]
) -> int:
    """Write the rows near the edges of each tile under that tile, including tiles without rows of their own."""
    order = margin_order(arcsec)
    cover = with_gaps(tiles)
    if order < int(cover.order.max()):
        raise QueryError(
            f"A margin of {arcsec:g} arcsec is wider than the smallest tile (order {int(cover.order.max())}).",
            "Use a smaller margin or more rows per tile.",
        )
    found = []
    for batch in staged.batches():
        row, tile = margin_rows(cover, batch.column(INDEX).to_numpy() >> (2 * (INDEX_ORDER - order)), order)
        if len(row):
            found.append((tile, batch.take(pa.array(row))))
    if not found:
        return 0
    tile = np.concatenate([t for t, _ in found])
    table = pa.Table.from_batches([batch for _, batch in found])
    by = np.lexsort((table[INDEX].to_numpy(), tile))
    filled = np.unique(tile)
    said = {"dataproduct_type": "margin", "hats_primary_table_url": name, "hats_margin_threshold": f"{arcsec:g}"}
    folder = work / margin_name(name, arcsec)
    tile, table = tile[by], table.take(pa.array(by)).combine_chunks()
    counts = []
    for number in filled:
        start, stop = np.searchsorted(tile, [number, number + 1])
        with _tile_writer(folder, staged.schema, int(cover.order[number]), int(cover.pixel[number])) as writer:
            writer.write_table(table.slice(start, stop - start), row_group_size=GROUP_ROWS)
        counts.append(int(stop - start))
    part = Tiles(cover.order[filled], cover.pixel[filled])
    write_metadata(folder, staged.schema, part, len(tile), max(counts), said | position)
    return len(tile)


def with_fields(schema: pa.Schema, fields: Mapping[str, pa.Field]) -> pa.Schema:
    """The schema with the metadata of the fields of the same names; types are unchanged."""
    return pa.schema(
        [pa.field(f.name, f.type, metadata=fields[f.name].metadata) if f.name in fields else f for f in schema]
    )


def describe_catalogue(folder: Path, fields: Mapping[str, pa.Field]) -> None:
    """Rewrite every tile and the common metadata of a catalogue or collection with the metadata of `fields`.

    The collected tile footers that some programs write (`_metadata`) are removed, because they would be
    out of date. Use only for a catalogue that is not being read yet.
    """
    for dataset in sorted(path.parent for path in folder.rglob("dataset/_common_metadata")):
        _describe(dataset, fields)


def _describe(dataset: Path, fields: Mapping[str, pa.Field]) -> None:
    for path in sorted(dataset.rglob("*.parquet")):
        file = pq.ParquetFile(path)
        kind = file.metadata.row_group(0).column(0).compression if file.num_row_groups else "ZSTD"
        table = file.read().replace_schema_metadata(None)
        described = pa.Table.from_arrays(table.columns, schema=with_fields(table.schema, fields))
        beside = path.with_suffix(".described")
        pq.write_table(described, beside, compression="NONE" if kind == "UNCOMPRESSED" else kind.lower())
        os.replace(beside, path)
    common = dataset / "_common_metadata"
    with common.open("rb") as handle:
        shared = pq.read_schema(handle).remove_metadata()
    pq.write_metadata(with_fields(shared, fields), common)
    (dataset / "_metadata").unlink(missing_ok=True)
