"""Rows of the Gaia archive's XP tables, a batch at a time, whatever file they come in."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import Reason, SpectrumError
from .content import Content, as_text_stream, damaged_gzip

Rows = list[dict[str, Any]]
BATCH_ROWS = 512
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
    """The names of a table's columns; empty where the file is no such table."""
    if content.kind in ("ecsv", "text"):
        return _csv_header(content)
    if content.kind == "parquet":
        return list(_parquet(content).schema_arrow.names)
    if content.kind == "avro":
        return CONTINUOUS if b"bpSpec" in content.head else []
    return list(astropy_table(content).colnames)


def iter_rows(content: Content) -> Iterator[Rows]:
    """Batches of rows as dictionaries: numbers, arrays, None where missing; ids as Python integers.

    Raises
    ------
    SpectrumError
        `unreadable`, where the file ends early or its values cannot be read.
    """
    try:
        if content.kind in ("ecsv", "text"):
            yield from _csv_rows(content)
        elif content.kind == "parquet":
            for batch in _parquet(content).iter_batches(BATCH_ROWS, columns=_present(column_names(content))):
                yield [{key: _array(value) for key, value in row.items()} for row in batch.to_pylist()]
        elif content.kind == "avro":
            yield from _avro_rows(content)
        else:
            yield from _table_rows(astropy_table(content))
    except (EOFError, OSError) as error:
        raise damaged_gzip(content.path, error) from None


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
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with as_text_stream(content) as stream:
        reader = csv.reader(line for line in stream if not line.startswith("#"))
        names = [name.strip() for name in next(reader, [])]
        places = [(place, name) for place, name in enumerate(names) if name in WANTED]
        rows: Rows = []
        for fields in reader:
            if len(fields) != len(names):
                if fields:
                    raise SpectrumError(
                        Reason.UNREADABLE,
                        f"{content.path}: line {reader.line_num} has {len(fields)} fields; {len(names)} were expected.",
                        "The file is damaged or cut short; download it again.")
                continue
            rows.append({name: _csv_value(fields[place], name) for place, name in places})
            if len(rows) == BATCH_ROWS:
                yield rows
                rows = []
        if rows:
            yield rows


def _csv_value(text: str, name: str) -> Any:
    text = text.strip()
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
    """Comma-separated numbers, `null` as NaN; None where something is no number."""
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


def _parquet(content: Content) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(content.path)
    except (pa.ArrowInvalid, OSError) as error:
        raise SpectrumError(Reason.UNREADABLE, f"{content.path} is damaged or cut short ({error}).",
                            "Download it again.") from None


def astropy_table(content: Content) -> Any:
    """The first table of a FITS or VOTable file; `unreadable` where astropy cannot."""
    import warnings

    from astropy.table import Table

    form = {"fits": "fits", "votable": "votable"}[content.kind]
    try:
        with warnings.catch_warnings(), content.open() as stream:
            warnings.simplefilter("ignore")
            return Table.read(stream, format=form)
    except Exception as error:  # astropy raises many kinds on damaged files
        text = (str(error) or type(error).__name__).splitlines()[0][:120]
        raise SpectrumError(Reason.UNREADABLE, f"{content.path} cannot be read as {form.upper()} ({text}).",
                            "Download it again.") from None


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
