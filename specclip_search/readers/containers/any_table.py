"""Rows of any table that archives deliver, with lower-case names: CSV, ECSV, FITS, VOTable, Parquet.

For tables of thousands of rows; bulk files of XP spectra have a reader of their own in `xp_tables`.
"""

from __future__ import annotations

import csv
import re
import warnings
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from ...opening.regular import open_regular
from ...opening.text_tables import open_text, text_encoding
from ...opening.votables import safe_votable
from ..content import Content, decoding

ROWS_AT_ONCE = 256
_MISSING = {"", "null", "nan", "none", "--"}


def column_names(content: Content) -> list[str]:
    """Names of a table's columns as they stand in the file; empty where it is no table."""
    with decoding(content):
        if content.kind == "parquet":
            return list(_parquet(content).schema_arrow.names)
        if content.kind in ("text", "ecsv"):
            return _text_header(content)[0]
        if content.kind in ("fits", "votable"):
            return list(_astropy(content).colnames)
    return []


def iter_table(content: Content) -> Iterator[dict[str, Any]]:
    """Rows as dictionaries by lower-case names: int, float, text, numpy arrays, None where missing.

    Whole numbers stay integers in every format, so that 64-bit ids are exact.

    Raises
    ------
    SpectrumError
        `unreadable`, where the file is damaged.
    """
    with decoding(content):
        if content.kind == "parquet":
            yield from _parquet_rows(content)
        elif content.kind == "text":
            yield from _csv_rows(content)
        else:
            yield from _astropy_rows(_astropy(content))


def _parquet(content: Content) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetFile(open_regular(content.file))


def _parquet_rows(content: Content) -> Iterator[dict[str, Any]]:
    for batch in _parquet(content).iter_batches(ROWS_AT_ONCE):
        columns = {name.lower(): _arrow_values(batch.column(place)) for place, name in enumerate(batch.schema.names)}
        for row in range(batch.num_rows):
            yield {name: values[row] for name, values in columns.items()}


def _arrow_values(column: Any) -> Any:
    """A column as a sequence of Python values; lists of numbers as arrays, structures of lists as dictionaries."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_struct(kind):
        parts = {field.name.lower(): _arrow_values(column.field(place)) for place, field in enumerate(kind)}
        return [{name: values[row] for name, values in parts.items()} for row in range(len(column))]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _arrow_lists(column)
    return column.to_pylist()


def _arrow_lists(column: Any) -> list[Any]:
    import pyarrow as pa

    kind = column.type.value_type
    if pa.types.is_fixed_size_list(column.type):
        column = column.cast(pa.list_(kind))
    offsets = np.asarray(column.offsets)
    inner = column.values
    missing = np.asarray(column.is_null())
    if pa.types.is_struct(kind):  # a list of structures, as nested-pandas and datasets write spectra
        names = [field.name.lower() for field in kind]
        parts = [np.asarray(inner.field(place).to_numpy(zero_copy_only=False)) for place in range(len(names))]
        return [
            None if gone else {name: part[start:end] for name, part in zip(names, parts, strict=True)}
            for (start, end), gone in zip(pairwise(offsets), missing, strict=True)
        ]
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        return list(column.to_pylist())
    values = inner.to_numpy(zero_copy_only=False)
    return [None if gone else values[start:end] for (start, end), gone in zip(pairwise(offsets), missing, strict=True)]


def _text_header(content: Content) -> tuple[list[str], str]:
    """Names of the first line that is no comment, and what separates them."""
    with open_text(content.file, text_encoding(content.head)) as stream:
        for line in stream:
            if line.startswith("#") or not line.strip():
                continue
            separator = next((mark for mark in (",", "\t", ";", "|") if mark in line), " ")
            names = next(csv.reader([line.strip()], delimiter=separator, skipinitialspace=True))
            return [name.strip().strip('"') for name in names if name.strip()], separator
    return [], ","


def _csv_rows(content: Content) -> Iterator[dict[str, Any]]:
    names, separator = _text_header(content)
    with open_text(content.file, text_encoding(content.head)) as stream:
        lines = (line for line in stream if line.strip() and not line.startswith("#"))
        next(lines, None)
        lowered = [name.lower() for name in names]
        for fields in csv.reader(lines, delimiter=separator, skipinitialspace=separator == " "):
            if len(fields) != len(lowered):
                raise ValueError(f"a row has {len(fields)} fields; the heading names {len(lowered)}")
            yield {name: _value(field) for name, field in zip(lowered, fields, strict=True)}


def _value(text: str) -> Any:
    text = text.strip()
    if text.lower() in _MISSING:
        return None
    if text[0] in "[(":
        inner = text.strip("[]() ")
        return (
            np.array([float("nan") if part.strip().lower() in _MISSING else float(part) for part in inner.split(",")])
            if inner
            else None
        )
    if re.fullmatch(r"[+-]?\d{1,19}", text):
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text


def _astropy(content: Content) -> Any:
    from astropy.table import Table

    if content.kind == "ecsv":
        return read_ecsv(content)
    with warnings.catch_warnings(action="ignore"):
        if content.kind == "votable":
            return Table.read(safe_votable(content.file)[1], format="votable", table_id=0)
        with content.open_fits() as stream:
            return Table.read(stream, format="fits")


def read_ecsv(content: Content) -> Any:
    """An ECSV file, whatever separates its columns, as an astropy table."""
    from astropy.table import Table

    with decoding(content), warnings.catch_warnings(action="ignore"), content.open() as stream:
        return Table.read(stream.read().decode("utf-8"), format="ascii.ecsv")


def _astropy_rows(table: Any) -> Iterator[dict[str, Any]]:
    columns = {name.lower(): table[name] for name in table.colnames}
    for row in range(len(table)):
        yield {name: _cell(column[row]) for name, column in columns.items()}


def _cell(value: Any) -> Any:
    if value is None or value is np.ma.masked:
        return None
    value = getattr(value, "value", value)  # a quantity: the file's own unit is kept by name elsewhere
    if isinstance(value, np.ndarray) and value.ndim:
        if value.dtype.kind not in "fiub":
            return value.tolist()
        return np.ma.filled(np.ma.asarray(value).astype(np.float64), np.nan)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        return _value(value) if value[:1] in "[(" or value.strip().lower() in _MISSING else value.strip()
    return value.item() if isinstance(value, np.generic | np.ndarray) else value
