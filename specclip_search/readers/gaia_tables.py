"""Rows of the Gaia archive's XP tables, read in batches from any supported file format."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import takewhile
from typing import Any

import numpy as np

from .content import Content, as_text_stream, decoding

Rows = list[dict[str, Any]]
BATCH_ROWS = 512
BLOCK_BYTES = 8 << 20
_COORDINATES = ["ra", "dec"]
SAMPLED = ["source_id", "flux", "flux_error", *_COORDINATES]
CONTINUOUS = [
    "source_id", *_COORDINATES,
    *(f"{band}_{name}" for band in ("bp", "rp") for name in (
        "coefficients", "coefficient_errors", "coefficient_correlations", "coefficient_covariances",
        "standard_deviation", "n_parameters")),
]
WANTED = frozenset([*SAMPLED, *CONTINUOUS])


def column_names(content: Content) -> list[str]:
    """The names of a table's columns; empty if the file is not a table."""
    with decoding(content):
        if content.kind in ("ecsv", "text"):
            return _csv_header(content)
        if content.kind == "parquet":
            return list(_parquet(content).schema_arrow.names)
        if content.kind == "avro":
            return CONTINUOUS if b"bpSpec" in content.head else []
        return list(astropy_table(content).colnames)


def iter_rows(content: Content) -> Iterator[Rows]:
    """Batches of rows as dictionaries: numbers, arrays, None if missing; ids as Python integers.

    Raises
    ------
    SpectrumError
        `unreadable`, if the file ends early or its values cannot be read.
    """
    with decoding(content):
        if content.kind in ("ecsv", "text"):
            yield from _csv_rows(content)
        elif content.kind == "parquet":
            for batch in _parquet(content).iter_batches(BATCH_ROWS, columns=_present(column_names(content))):
                yield _arrow_rows(batch)
        elif content.kind == "avro":
            yield from _avro_rows(content)
        else:
            yield from _table_rows(astropy_table(content))


def _present(names: list[str]) -> list[str]:
    return [name for name in names if name in WANTED]


def _array(value: Any) -> Any:
    return np.asarray(value, dtype=np.float64) if isinstance(value, list) else value


# -- CSV and ECSV: the archive's bulk files; streamed ----------------------------------------


def _csv_header(content: Content) -> list[str]:
    with as_text_stream(content) as stream:
        for line in stream:
            if not line.startswith("#"):
                return [name.strip().strip('"') for name in line.rstrip("\r\n").split(",")]
            if len(line) > 1_000_000:
                break
    return []


def _csv_rows(content: Content) -> Iterator[Rows]:
    """Rows of a CSV or ECSV file, streamed through Arrow with every field as text."""
    import pyarrow as pa
    import pyarrow.csv as pv

    wanted = _present(column_names(content))
    with content.open() as stream:
        read = pv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES, skip_rows=_comment_lines(content))
        convert = pv.ConvertOptions(include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string()))
        for batch in pv.open_csv(pa.PythonFile(stream, "r"), read, convert_options=convert):
            for start in range(0, batch.num_rows, BATCH_ROWS):
                yield _text_rows(batch.slice(start, BATCH_ROWS))


def _comment_lines(content: Content) -> int:
    with as_text_stream(content) as stream:
        return sum(1 for _ in takewhile(lambda line: line.startswith("#"), stream))


def _text_rows(batch: Any) -> Rows:
    columns: dict[str, list[Any]] = {}
    for name in batch.schema.names:
        column = batch.column(name)
        if name == "source_id":
            columns[name] = column.to_pylist()
        elif name in _COORDINATES or name.endswith(("_n_parameters", "_standard_deviation")):
            columns[name] = [_csv_value(text, name) for text in column.to_pylist()]
        else:
            columns[name] = parse_lists(column)
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def parse_lists(column: Any) -> list[np.ndarray | None]:
    """Texts like ``[1.5,2]`` or ``(1.5, 2)`` to arrays; None if a text is empty, null or not numeric."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = pc.utf8_trim(column, " ()[]\"\t")
    missing = pc.is_in(pc.utf8_lower(texts), value_set=pa.array(["", "null", "nan"])).to_numpy(zero_copy_only=False)
    lists = pc.split_pattern(texts, ",")
    try:
        numbers = lists.flatten().cast(pa.float64())
    except pa.ArrowInvalid:
        try:
            numbers = pc.split_pattern(pc.replace_substring(texts, " ", ""), ",").flatten().cast(pa.float64())
        except pa.ArrowInvalid:
            return [None if gone else parse_numbers(text)
                    for gone, text in zip(missing, texts.to_pylist(), strict=True)]
    return _slices(numbers, pc.list_value_length(lists).to_numpy(zero_copy_only=False), missing)


def _slices(numbers: Any, lengths: np.ndarray, missing: np.ndarray) -> list[np.ndarray | None]:
    """Arrow numbers split into arrays of the given lengths; None if a row is missing."""
    values = np.asarray(numbers.to_numpy(zero_copy_only=False), dtype=np.float64)
    ends = np.cumsum(lengths).astype(np.int64)
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    return [None if gone else values[start:end] for gone, start, end in zip(missing, starts, ends, strict=True)]


def _csv_value(text: str | None, name: str) -> Any:
    text = (text or "").strip()
    if text in ("", "null", "NULL", "nan", "NaN", '""', "[]", "()"):
        return None
    if name == "source_id":
        return text
    if text[0] in "[(":
        return parse_numbers(text[1:-1])
    try:
        return float(text)
    except ValueError:
        return None


def parse_numbers(text: str) -> np.ndarray | None:
    """Comma-separated numbers, `null` as NaN; None if any item is not a number."""
    if "u" in text:
        text = text.replace("null", "nan")
    try:
        return np.array(text.split(","), dtype=np.float64)
    except ValueError:
        return None


# -- Avro, Parquet, FITS, VOTable -------------------------------------------------------------


def _avro_rows(content: Content) -> Iterator[Rows]:
    import fastavro

    rows: Rows = []
    with content.open() as handle:
        for record in fastavro.reader(handle):
            rows.append(_avro_row(record))
            if len(rows) == BATCH_ROWS:
                yield rows
                rows = []
    if rows:
        yield rows


def _avro_row(record: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"source_id": record.get("sourceId")}
    for band in ("bp", "rp"):
        solution = (record.get(f"{band}Spec") or {}).get("solution") or {}
        row[f"{band}_coefficients"] = _array(solution.get("parameters"))
        row[f"{band}_coefficient_covariances"] = _array(solution.get("covariance"))
        row[f"{band}_standard_deviation"] = solution.get("standardDeviation")
        row[f"{band}_n_parameters"] = solution.get("numberOfParameters")
    return row


def _arrow_rows(batch: Any) -> Rows:
    import pyarrow as pa
    import pyarrow.compute as pc

    columns: dict[str, list[Any]] = {}
    for name in batch.schema.names:
        column = batch.column(name)
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
            columns[name] = _slices(column.flatten(), lengths, column.is_null().to_numpy(zero_copy_only=False))
        else:
            columns[name] = [_array(value) for value in column.to_pylist()]
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _parquet(content: Content) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetFile(content.path)


def astropy_table(content: Content) -> Any:
    """The first table of a FITS or VOTable file; raises `unreadable` if astropy cannot read it."""
    import warnings

    from astropy.table import Table

    with decoding(content), warnings.catch_warnings(action="ignore"), content.open() as stream:
        return Table.read(stream, format=content.kind)


def _table_rows(table: Any) -> Iterator[Rows]:
    names = _present(list(table.colnames))
    for start in range(0, len(table), BATCH_ROWS):
        yield [{name: _table_value(row[name]) for name in names} for row in table[start : start + BATCH_ROWS]]


def _table_value(value: Any) -> Any:
    if value is np.ma.masked or value is None:
        return None
    if isinstance(value, str | bytes):
        text = value.decode() if isinstance(value, bytes) else value
        return _csv_value(text, "" if text[:1] in "[(" else "source_id")
    if isinstance(value, np.ndarray) and value.ndim:
        return np.ma.filled(np.ma.asarray(value, dtype=np.float64), np.nan)
    return value.item() if isinstance(value, np.generic) else value


_ID_IN_NAME = re.compile(r"(?<!\d)(\d{5,19})(?!\d)")


def id_in_name(name: str) -> int | None:
    """The Gaia source_id in a DataLink file's name, for example 'XP_SAMPLED-Gaia DR3 5853498713190525696.csv'."""
    found = _ID_IN_NAME.findall(name)
    return int(found[-1]) if found else None
