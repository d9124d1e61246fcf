"""Catalogues in Parquet, FITS and VOTable files, and Arrow or astropy tables in memory.

FITS and VOTable are read with astropy.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import SpecclipError
from .stream import CHUNK_ROWS, CatalogFile, described_field

if TYPE_CHECKING:
    from astropy.io.fits import BinTableHDU, HDUList
    from astropy.table import Table

def open_parquet(paths: Sequence[Path], named: Path) -> CatalogFile:
    """One Parquet file, or the files of a folder in order of their names."""
    if not paths:
        raise SpecclipError(
            f"Expected a catalogue at {named}; found a folder without a Parquet file.",
            "Name the file, or a folder that holds .parquet files.",
        )
    try:
        schema = _with_astropy_metadata(pq.read_schema(paths[0]))
        rows = 0
        for path in paths:
            found = pq.read_schema(path)
            if found.names != schema.names or found.types != schema.types:
                raise SpecclipError(
                    f"{path} has other columns than {paths[0].name}: {', '.join(found.names)}.",
                    "The folder may contain only the files of one catalogue.",
                )
            rows += pq.read_metadata(path).num_rows
    except pa.ArrowInvalid as error:
        raise SpecclipError(f"{named} is not readable as Parquet ({error}).", "Download or write it again.") from error
    return CatalogFile(schema, lambda wanted: _stream(paths, pa.schema([schema.field(name) for name in wanted])), rows)


def _stream(paths: Sequence[Path], schema: pa.Schema) -> Iterator[pa.Table]:
    for path in paths:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(CHUNK_ROWS, columns=schema.names):
                yield pa.Table.from_batches([batch]).cast(schema)


def _with_astropy_metadata(schema: pa.Schema) -> pa.Schema:
    """Copy units and descriptions that astropy keeps in the file's metadata into the fields."""
    text = (schema.metadata or {}).get(b"table_meta_yaml")
    if not text:
        return schema.remove_metadata()
    from astropy.table.meta import get_header_from_yaml

    known = {column["name"]: column for column in get_header_from_yaml(text.decode().splitlines()).get("datatype", [])}
    fields = []
    for field in schema:
        said = known.get(field.name, {})
        fields.append(
            field
            if field.metadata
            else described_field(
                field.name,
                field.type,
                said.get("unit"),
                said.get("description"),
                dict(said.get("meta") or {}).get("ucd"),
            )
        )
    return pa.schema(fields)


def table_in_memory(table: pa.Table) -> CatalogFile:
    """An Arrow table with the interface of a catalogue file."""
    bare = table.replace_schema_metadata(None)
    return CatalogFile(bare.schema, lambda wanted: iter([bare.select(wanted)]), bare.num_rows)


def astropy_to_arrow(table: Table) -> pa.Table:
    """An astropy table as Arrow; masks become nulls, integers never pass through floats."""
    from astropy.table import Table as Plain
    from astropy.time import Time

    fields, arrays = [], []
    for name in table.colnames:
        column = table[name]
        if isinstance(column, Time):
            column = Plain({name: column.isot})[name]
        info = column.info
        array = array_to_arrow(np.ma.asarray(getattr(column, "value", column)))
        if array is None:
            continue
        meta = dict(info.meta or {})
        fields.append(
            described_field(name, array.type, info.unit, info.description, meta.get("ucd") or meta.get("UCD"))
        )
        arrays.append(array)
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def array_to_arrow(values: np.ndarray) -> pa.Array | None:
    """A NumPy array, masked or not, big-endian or not, as Arrow; None if Arrow has no such type.

    Arrays of two dimensions become fixed-size lists; of more, None. Padding of text is
    removed; empty text becomes null.
    """
    mask = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
    data = np.asarray(values.data if isinstance(values, np.ma.MaskedArray) else values)
    if data.dtype.kind == "c" or data.ndim > 2:
        return None
    if not data.dtype.isnative:
        data = data.astype(data.dtype.newbyteorder("="))
    if data.ndim == 2:
        if data.dtype.kind not in "fiub" or data.shape[1] == 0:
            return None
        flat = np.ascontiguousarray(data).reshape(-1)
        inner = pa.array(flat, mask=None if mask is None or not mask.any() else mask.reshape(-1))
        return pa.FixedSizeListArray.from_arrays(inner, data.shape[1])
    if data.dtype.kind in "SUO":
        return _text(data, mask)
    return pa.array(data, mask=mask if mask is not None and mask.any() else None)


def _text(data: np.ndarray, mask: np.ndarray | None) -> pa.Array | None:
    import pyarrow.compute as pc

    present = [None if mask is not None and mask[i] else value for i, value in enumerate(data.tolist())]
    decoded = [value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in present]
    if any(value is not None and not isinstance(value, str) for value in decoded):
        return None
    trimmed = pc.utf8_trim(pa.array(decoded, pa.string()), characters=" \t\r\n\0")
    return pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)


def open_fits(path: Path) -> CatalogFile:
    """The first table of a FITS file, read in slices of a memory map (whole where it is gzipped)."""
    with _fits(path) as hdus:
        table = _first_table(hdus, path)
        header, rows = table.header, len(table.data) if table.data is not None else 0
        sample = _slice(table, 0, min(rows, 1), table.columns.names)
        fields = []
        for number, column in enumerate(table.columns, 1):
            array = sample.get(column.name)
            if array is None:
                fields.append(pa.field(column.name, pa.null()))
                continue
            said = header.get(f"TCOMM{number}") or header.get(f"TDESC{number}") or _comment(header, number)
            fields.append(described_field(column.name, array.type, column.unit, said, header.get(f"TUCD{number}")))
    schema = pa.schema(fields)
    return CatalogFile(
        schema, lambda wanted: _stream_fits(path, pa.schema([schema.field(name) for name in wanted])), rows
    )


def _comment(header: object, number: int) -> str:
    """The comment of TTYPEn, where writers put the description; astropy's default comments are ignored."""
    comment = str(header.comments[f"TTYPE{number}"])  # type: ignore[attr-defined]
    return "" if comment.lower().startswith(("label for", "name of field", "name for")) else comment


def _fits(path: Path) -> HDUList:
    from astropy.io import fits

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return fits.open(path, memmap=True)
    except (OSError, ValueError, TypeError) as error:
        raise SpecclipError(
            f"{path} is not readable as FITS ({error}).", "Download it again; it may be cut short."
        ) from error


def _first_table(hdus: HDUList, path: Path) -> BinTableHDU:
    from astropy.io import fits

    for hdu in hdus:
        if isinstance(hdu, fits.BinTableHDU | fits.TableHDU):
            return hdu
    raise SpecclipError(
        f"{path} should hold a table; it has {len(hdus)} FITS extension(s) and none of them is a table.",
        "Give the catalogue's file; spectra are read by `ingest lamost` or `ingest gaia-xp`.",
    )


def _stream_fits(path: Path, schema: pa.Schema) -> Iterator[pa.Table]:
    with _fits(path) as hdus:
        table = _first_table(hdus, path)
        rows = len(table.data)
        for start in range(0, rows, CHUNK_ROWS):
            stop = min(start + CHUNK_ROWS, rows)
            arrays = _slice(table, start, stop, schema.names)
            yield pa.Table.from_arrays([arrays[field.name] for field in schema], schema=schema)


def _slice(table: BinTableHDU, start: int, stop: int, wanted: Sequence[str]) -> dict[str, pa.Array]:
    """Columns that Arrow can hold, of some rows; TNULL of integers becomes null."""
    rows = table.data[start:stop]
    arrays = {}
    for column in table.columns:
        if column.name not in wanted or re.match(r"\d*[PQ]", str(column.format)):
            continue
        values = rows.field(column.name)
        if values.dtype.kind in "iu" and column.null not in (None, ""):
            values = np.ma.MaskedArray(values, np.asarray(values) == int(column.null) + int(column.bzero or 0))
        array = array_to_arrow(values)
        if array is not None:
            arrays[column.name] = array
    return arrays


def open_votable(path: Path) -> CatalogFile:
    """The first table of a VOTable. astropy loads it into memory; archives limit the size of VOTables."""
    from astropy.io.votable import parse_single_table

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            votable = parse_single_table(str(path), invalid="mask")
    except Exception as error:  # astropy raises errors of many kinds, expat's among them, for a broken file
        raise SpecclipError(
            f"{path} is not readable as a VOTable ({error}).", "Download it again; it may be cut short."
        ) from error
    fields, arrays = [], []
    for column in votable.fields:
        array = array_to_arrow(votable.array[column.ID])
        kind = pa.null() if array is None else array.type
        fields.append(
            described_field(column.name, kind, column.unit, " ".join((column.description or "").split()), column.ucd)
        )
        arrays.append(pa.nulls(len(votable.array)) if array is None else array)
    table = pa.Table.from_arrays(arrays, schema=pa.schema(fields))
    return CatalogFile(table.schema, lambda wanted: iter([table.select(wanted)]), table.num_rows)
