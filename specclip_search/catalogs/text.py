"""CSV (any usual separator, gzipped or not) and ECSV catalogues, streamed with Arrow's CSV reader."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from ..errors import SpecclipError
from .stream import CatalogFile, described_field, is_gzip

_SEPARATORS = ("|", ",", "\t", ";", " ")
_NULLS = ["", "null", "NULL", "nan", "NaN", "\\N", "--", "N/A"]
_BLOCK = 4 << 20
_ECSV_TYPES = {
    "bool": pa.bool_(),
    "float16": pa.float32(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "float128": pa.float64(),
    "string": pa.string(),
    "datetime64": pa.string(),
    **{f"{sign}int{bits}": getattr(pa, f"{sign}int{bits}")() for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


@dataclass(frozen=True, slots=True)
class _Layout:
    """Position of the first row, and how a line is split."""

    skip_lines: int
    separator: str
    names: list[str]


def open_text(path: Path) -> CatalogFile:
    """A separated-values file with a header line; a first pass over all rows determines each column's type.

    A column is an integer column only if every value is an integer and none has a leading zero
    (such values are codes and are kept as text); integers beyond 64 bits are kept as text.
    """
    layout = _sniff(path)
    types, rows = _infer_types(path, layout)
    schema = pa.schema([pa.field(name, types[name]) for name in layout.names])
    return CatalogFile(
        schema, lambda wanted: _stream(path, layout, pa.schema([schema.field(name) for name in wanted])), rows
    )


def open_ecsv(path: Path) -> CatalogFile:
    """An ECSV file; types, units and descriptions are taken from its header."""
    from astropy.table.meta import get_header_from_yaml

    comments, header = _leading_lines(path)
    try:
        said = get_header_from_yaml(
            [line.removeprefix("# ").removeprefix("#") for line in comments if not line.startswith("# %ECSV")]
        )
        columns = said["datatype"]
    except Exception as error:  # yaml's own errors, or a header that lacks what ECSV asks for
        raise SpecclipError(
            f"{path} has an ECSV header that cannot be read ({error}).", "Write it again, or write it as CSV."
        ) from error
    separator = str(said.get("delimiter", " "))
    layout = _Layout(len(comments) + 1, separator, [str(column["name"]) for column in columns])
    if (found := next(csv.reader([header], delimiter=separator), [])) != layout.names:
        raise SpecclipError(
            f"{path} names columns {found[:5]} in its line of names and {layout.names[:5]} in its ECSV header.",
            "Write the file again.",
        )
    schema = pa.schema([_ecsv_field(column) for column in columns])
    return CatalogFile(
        schema,
        lambda wanted: _stream(path, layout, pa.schema([schema.field(name) for name in wanted])),
    )


def _ecsv_field(column: dict[str, Any]) -> pa.Field:
    kind = pa.string() if column.get("subtype") else _ECSV_TYPES.get(str(column["datatype"]), pa.string())
    meta = dict(column.get("meta") or {})
    return described_field(str(column["name"]), kind, column.get("unit"), column.get("description"), meta.get("ucd"))


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if is_gzip(path) else open(path, "rb")  # type: ignore[return-value]


def _leading_lines(path: Path) -> tuple[list[str], str]:
    """Comment lines at the head of the file, and the first line after them."""
    comments: list[str] = []
    with io.TextIOWrapper(_open(path), encoding="utf-8-sig", errors="replace") as lines:
        for line in lines:
            if not line.startswith("#"):
                return comments, line.rstrip("\r\n")
            comments.append(line.rstrip("\r\n"))
    return comments, ""


def _sniff(path: Path) -> _Layout:
    comments, first = _leading_lines(path)
    header, skip = first, len(comments) + 1
    if comments:
        # a header line may be the last comment: it has as many names as the first row has values
        candidate = comments[-1].lstrip("# ")
        separator = _separator(candidate)
        if (
            len(_split(candidate, separator)) > 1
            and len(_split(candidate, separator)) == len(_split(first, separator))
            and any(_is_number(value) for value in _split(first, separator))
        ):
            header, skip = candidate, len(comments)
    separator = _separator(header)
    names = [name.strip() for name in _split(header, separator)]
    if not any(names) or all(_is_number(name) for name in names):
        raise SpecclipError(
            f"{path} should begin with a line of column names; found '{header[:60]}'.",
            "Add a first line with the names, separated as the values are.",
        )
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise SpecclipError(f"{path} names a column twice: {', '.join(twice)}.", "Give each column its own name.")
    return _Layout(skip, separator, [name or f"column_{i}" for i, name in enumerate(names, 1)])


def _separator(line: str) -> str:
    return next((separator for separator in _SEPARATORS if separator in line), ",")


def _split(line: str, separator: str) -> list[str]:
    return next(csv.reader([line], delimiter=separator), [])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _batches(path: Path, layout: _Layout, types: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
    try:
        with (
            _open(path) as handle,
            pacsv.open_csv(
                handle,
                read_options=pacsv.ReadOptions(
                    column_names=layout.names, skip_rows=layout.skip_lines, block_size=_BLOCK, use_threads=False
                ),
                parse_options=pacsv.ParseOptions(delimiter=layout.separator, newlines_in_values=False),
                convert_options=pacsv.ConvertOptions(
                    column_types=types,
                    include_columns=list(types),
                    strings_can_be_null=True,
                    null_values=_NULLS,
                    quoted_strings_can_be_null=True,
                ),
            ) as reader,
        ):
            yield from reader
    except (pa.ArrowInvalid, EOFError, OSError, UnicodeDecodeError) as error:
        if "Empty CSV file" in str(error):
            return
        raise SpecclipError(
            f"{path} cannot be read as text separated by '{layout.separator}' ({error}).",
            "See the named row; each must have as many values as there are column names.",
        ) from error


def _infer_types(path: Path, layout: _Layout) -> tuple[dict[str, pa.DataType], int]:
    text = {name: pa.string() for name in layout.names}
    ladder = dict.fromkeys(layout.names, 0)
    seen = dict.fromkeys(layout.names, False)
    rows = 0
    for batch in _batches(path, layout, text):
        rows += batch.num_rows
        for name in layout.names:
            values = batch.column(name)
            seen[name] |= values.null_count < len(values)
            while ladder[name] < len(_LADDER) - 1 and not _fits(values, _LADDER[ladder[name]]):
                ladder[name] += 1
    return {name: _LADDER[step] if seen[name] else pa.string() for name, step in ladder.items()}, rows


_LADDER = (pa.int64(), pa.float64(), pa.bool_(), pa.string())


def _fits(values: pa.Array, kind: pa.DataType) -> bool:
    if pa.types.is_string(kind):
        return True
    trimmed = pc.utf8_trim_whitespace(values)
    if pa.types.is_boolean(kind):
        return bool(pc.all(pc.is_in(pc.utf8_lower(trimmed.drop_null()), value_set=pa.array(["true", "false"]))).as_py())
    # codes with leading zeros, and whole numbers too long for 64 bits, would lose digits as numbers
    if pc.any(pc.match_substring_regex(trimmed, r"^[+-]?(0\d+|\d{19,})$")).as_py():
        try:
            if not pa.types.is_integer(kind) or pc.any(pc.match_substring_regex(trimmed, r"^[+-]?0\d+$")).as_py():
                return False
            trimmed.cast(kind)
        except pa.ArrowInvalid:
            return False
        return True
    try:
        trimmed.cast(kind)
    except pa.ArrowInvalid:
        return False
    return True


def _stream(path: Path, layout: _Layout, schema: pa.Schema) -> Iterator[pa.Table]:
    types = {field.name: field.type for field in schema}
    for batch in _batches(path, layout, types):
        yield pa.Table.from_batches([batch]).cast(schema)
