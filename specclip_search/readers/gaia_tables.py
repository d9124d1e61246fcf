"""Rows of the Gaia archive's XP tables, read in batches from any supported file format."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from ..errors import Reason, SpectrumError
from ..labels import MAYBE_SOURCE_ID, plain_name, standard_name
from ..opening.regular import open_regular
from ..opening.text_tables import TextLayout, text_batches, text_layout
from ..opening.votables import safe_votable
from .content import Content, decoding

Rows = list[dict[str, Any]]
BATCH_ROWS = 512
BLOCK_BYTES = 8 << 20
_COORDINATES = ["ra", "dec"]
SAMPLED = ["source_id", "flux", "flux_error", *_COORDINATES]
CONTINUOUS = [
    "source_id", *_COORDINATES,
    *(f"{band}_{name}" for band in ("bp", "rp") for name in (
        "coefficients", "coefficient_errors", "coefficient_correlations", "coefficient_covariances",
        "standard_deviation", "n_parameters", "basis_function_id")),
]
#: the Multimodal Universe's column of both bands' coefficients and their errors, BP before RP, without correlations
NESTED = "spectral_coefficients"
WANTED = frozenset([*SAMPLED, *CONTINUOUS, "wavelength", "sampling", NESTED])


def file_names(content: Content) -> list[str]:
    """The names of a table's columns as the file has them; empty where it is no such table."""
    with decoding(content):
        if content.kind in ("ecsv", "text"):
            return text_of(content).names
        if content.kind == "parquet":
            return list(_parquet(content).schema_arrow.names)
        if content.kind == "avro":
            return list(CONTINUOUS) if b"bpSpec" in content.head else []
        return list(astropy_table(content).colnames)


def column_names(content: Content) -> list[str]:
    """The names of a table's columns by our names of them."""
    return list(our_names(file_names(content)).values())


def our_names(names: list[str]) -> dict[str, str]:
    """The archive's name of each column, whatever the case or spelling: `SOURCE_ID`, `DR3Name`, `RA_ICRS`."""
    ours: dict[str, str] = {}
    for name in names:
        lower, standard = name.strip().lower(), standard_name(name)
        known = lower if lower in WANTED else standard if standard in WANTED else lower
        ours[name] = known if known not in ours.values() else name
    if "source_id" not in ours.values():
        for name in names:
            if plain_name(name) in MAYBE_SOURCE_ID:
                return {**ours, name: "source_id"}
    return ours


@lru_cache(maxsize=4)
def text_of(content: Content) -> TextLayout:
    """How a text table is laid out; a table of numbers without names has none."""
    return text_layout(content.file, need_names=False)


def iter_rows(content: Content) -> Iterator[Rows]:
    """Batches of rows as dictionaries: numbers, arrays, None if missing; ids as Python integers.

    Raises
    ------
    SpectrumError
        `unreadable`, if the file ends early or its values cannot be read.
    """
    ours = our_names(file_names(content))
    for rows in _rows_of(content, [name for name, our in ours.items() if our in WANTED]):
        named = [{ours.get(name, name): value for name, value in row.items()} for row in rows]
        yield [_unnested(row) for row in named] if NESTED in ours.values() else named


def _unnested(row: dict[str, Any]) -> dict[str, Any]:
    """A row with the archive's columns in place of the nested one; its errors count as independent."""
    nested = row.pop(NESTED)
    if isinstance(nested, list) and nested and isinstance(nested[0], dict):
        nested = {name: [part[name] for part in nested] for name in nested[0]}
    if not isinstance(nested, dict) or nested.get("coeff") is None or nested.get("coeff_error") is None:
        return row
    values, errors = (np.asarray(nested[name], np.float64) for name in ("coeff", "coeff_error"))
    half = len(values) // 2
    for band, part in (("bp", slice(0, half)), ("rp", slice(half, None))):
        count = len(values[part])
        row |= {f"{band}_coefficients": values[part], f"{band}_coefficient_errors": errors[part],
                f"{band}_coefficient_correlations": np.zeros(count * (count - 1) // 2)}
    return row


def source_ids(content: Content) -> Iterator[int]:
    """The Gaia ids of a table, from its column, or the one in the name of a file of one star.

    Raises
    ------
    SpectrumError
        `unreadable`, if the file ends early; `layout_unknown`, if it says no id.
    """
    ours = our_names(file_names(content))
    column = next((name for name, our in ours.items() if our == "source_id"), None)
    if column is None:
        named = id_in_name(content.path.name)
        if named is None:
            raise SpectrumError(
                Reason.LAYOUT_UNKNOWN, f"{content.path} has no source_id, neither inside nor in its name.",
                "Keep the file name given by the archive.")
        yield named
        return
    for rows in _rows_of(content, [column]):
        for row in rows:
            digits = re.search(r"\d{5,19}$", str(next(iter(row.values()))).strip())
            if digits is not None:
                yield int(digits[0])


def _rows_of(content: Content, wanted: list[str]) -> Iterator[Rows]:
    with decoding(content):
        if content.kind in ("ecsv", "text"):
            yield from _csv_rows(content, wanted)
        elif content.kind == "parquet":
            for batch in _parquet(content).iter_batches(BATCH_ROWS, columns=wanted):
                yield arrow_rows(batch)
        elif content.kind == "avro":
            yield from _avro_rows(content)
        else:
            yield from _table_rows(astropy_table(content), wanted)


def _array(value: Any) -> Any:
    return np.asarray(value, dtype=np.float64) if isinstance(value, list) else value


# -- CSV and ECSV: the archive's bulk files; streamed ----------------------------------------


def _csv_rows(content: Content, wanted: list[str]) -> Iterator[Rows]:
    """Rows of a CSV or ECSV file, streamed through Arrow, every field as text first."""
    import pyarrow as pa

    types = dict.fromkeys(wanted, pa.string())
    for batch in text_batches(content.file, text_of(content), types, block=BLOCK_BYTES):
        for start in range(0, batch.num_rows, BATCH_ROWS):
            yield _text_rows(batch.slice(start, BATCH_ROWS))


def _text_rows(batch: Any) -> Rows:
    columns: dict[str, list[Any]] = {}
    ours = our_names(batch.schema.names)
    for name in batch.schema.names:
        column = batch.column(name)
        name = ours[name]
        if name == "source_id":
            columns[name] = column.to_pylist()
        elif name in _COORDINATES or name.endswith(("_n_parameters", "_standard_deviation", "_id")):
            columns[name] = [_csv_value(text, name) for text in column.to_pylist()]
        else:
            columns[name] = parse_lists(column)
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def parse_lists(column: Any) -> list[np.ndarray | None]:
    """Texts like ``[1.5,2]`` or ``(1.5, 2)`` to arrays; None if a text is empty, null or not numeric."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = pc.utf8_trim(pc.fill_null(column, ""), " ()[]\"\t")
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
        row[f"{band}_basis_function_id"] = (record.get(f"{band}Spec") or {}).get("basisFunctionSetDefId")
    return row


def arrow_rows(batch: Any) -> Rows:
    """Rows of a record batch of Arrow as dictionaries."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns: dict[str, list[Any]] = {}
    for place, name in enumerate(batch.schema.names):
        column = batch.column(place)
        listed = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
        if listed and not pa.types.is_struct(column.type.value_type):
            lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
            columns[name] = _slices(column.flatten(), lengths, column.is_null().to_numpy(zero_copy_only=False))
        else:
            columns[name] = [_array(value) for value in column.to_pylist()]
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _parquet(content: Content) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetFile(open_regular(content.file))


def astropy_table(content: Content) -> Any:
    """The table of a FITS or VOTable file that holds XP spectra, else the first; `unreadable` where astropy cannot."""
    import warnings

    from astropy.table import Table

    with decoding(content), warnings.catch_warnings(action="ignore"):
        if content.kind == "votable":
            facts, stream = safe_votable(content.file)
            number = _first_of_xp([names for _, names in facts.tables])
            return Table.read(stream, format="votable", table_id=number)
        from astropy.io import fits

        with content.open_fits() as stream, fits.open(stream, memmap=False, disable_image_compression=True) as hdus:
            tables = [hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU) and hdu.name.upper() != "GROUPING"]
            if not tables:
                return Table()
            return Table.read(tables[_first_of_xp([hdu.columns.names for hdu in tables])])


def _first_of_xp(tables: list[list[str]]) -> int:
    """Number of the first table whose columns are those of XP spectra, else 0."""
    for number, names in enumerate(tables):
        have = set(our_names(names).values())
        if {"flux", "flux_error"} <= have or {"bp_coefficients", "rp_coefficients"} <= have:
            return number
    return 0


def _table_rows(table: Any, wanted: list[str]) -> Iterator[Rows]:
    for start in range(0, len(table), BATCH_ROWS):
        yield [{name: _table_value(row[name]) for name in wanted} for row in table[start : start + BATCH_ROWS]]


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


def is_xp_name(name: str) -> bool:
    """Whether a file's name, or an archive member's, is that of an XP product, by DR3's or DR4's names."""
    named = name.rpartition("!")[2].rpartition("/")[2].upper()
    return named.startswith(("XP_", "MEAN_SPECTRUM_XP", "EPOCH_SPECTRUM_XP"))


def id_in_name(name: str) -> int | None:
    """The Gaia source_id in a DataLink file's name, for example 'XP_SAMPLED-Gaia DR3 5853498713190525696.csv'."""
    found = _ID_IN_NAME.findall(name)
    return int(found[-1]) if found else None
