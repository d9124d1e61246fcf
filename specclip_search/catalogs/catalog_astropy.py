"""FITS and VOTable catalogues through astropy."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ..errors import SpecclipError
from .arrow import array_to_arrow
from .stream import CHUNK_ROWS, CatalogFile, described_field

if TYPE_CHECKING:
    from astropy.io.fits import BinTableHDU, HDUList


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
    """The comment of TTYPEn, where writers put the description; astropy's own stock phrases are no description."""
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
        f"{path} should hold a table; it has {len(hdus)} FITS extension(s) and none is one.",
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
    """The first table of a VOTable. astropy holds it in memory whole: archives cap the size of VOTables."""
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
