"""Catalogues of text: types are settled in a first pass, rows are streamed in a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..errors import SpecclipError
from ..opening.text_tables import TextLayout, astropy_text_table, text_batches, text_layout
from .stream import CatalogFile, described_field

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
Batches = Callable[[dict[str, pa.DataType]], Iterator[pa.RecordBatch]]


def open_text(path: Path) -> CatalogFile:
    """A table of text with named columns; a first pass over all rows settles each column's type.

    A column is an integer column only if every value is an integer and none has a leading zero
    (such values are codes and are kept as text); integers beyond 64 bits are kept as text.
    """
    layout = text_layout(path)
    if layout.kind == "ecsv":
        return _open_ecsv(path, layout)
    if layout.kind == "delimited":
        def batches(types: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
            return text_batches(path, layout, types)

        return _typed(layout, layout.names, batches)
    from .arrow import astropy_to_arrow, table_in_memory

    table = astropy_to_arrow(astropy_text_table(path, layout, as_text=True))
    notes = [f"read as a table of form {layout.kind} by astropy"]
    if layout.kind in ("ipac", "mrt"):  # they say their columns' types
        return table_in_memory(table, notes)
    text = table.cast(pa.schema([pa.field(f.name, pa.string(), metadata=f.metadata) for f in table.schema]))
    if layout.kind in ("latex", "aastex"):
        text = pa.table([_without_markup(column) for column in text.columns], schema=text.schema)
    opened = _typed(layout, text.column_names, lambda types: iter(text.select(list(types)).to_batches()))
    return CatalogFile(opened.schema, opened.chunks, opened.rows, notes)


def _typed(layout: TextLayout, names: list[str], batches: Batches) -> CatalogFile:
    """A catalogue whose columns come as text, with the types that all values fit."""
    types, rows, comma = _infer_types(names, batches)
    fields = [described_field(name, types[name], layout.units.get(name), layout.descriptions.get(name),
                              layout.ucds.get(name)) for name in names]
    schema = pa.schema(fields)

    def chunks(wanted: Any) -> Iterator[pa.Table]:
        fields = [schema.field(name) for name in wanted]
        for batch in batches({field.name: pa.string() for field in fields}):
            yield pa.table([_cast(batch.column(field.name), field.type, field.name in comma) for field in fields],
                           schema=pa.schema(fields))

    return CatalogFile(schema, chunks, rows, _notes(layout, comma))


def _notes(layout: TextLayout, comma: set[str]) -> list[str]:
    notes = [f"{count} line{'s' if count > 1 else ''} of {what} left out"
             for what, count in (("units", layout.left_out["units"]), ("dashes", layout.left_out["rule"]),
                                 ("comments between rows", layout.left_out["comment"] // 2),
                                 ("a trailer", layout.left_out["trailer"] // 2)) if count]
    if layout.encoding not in ("utf-8", "utf-8-sig"):
        notes.append(f"read as {layout.encoding}, for it is not UTF-8")
    if comma:
        notes.append(f"decimal commas in {', '.join(sorted(comma))} read as points")
    return notes


def _open_ecsv(path: Path, layout: TextLayout) -> CatalogFile:
    """An ECSV file; types, units and descriptions are those its header states."""
    from astropy.table.meta import get_header_from_yaml

    try:
        said = get_header_from_yaml(
            [line.removeprefix("# ").removeprefix("#") for line in layout.comments if "%ECSV" not in line])
        columns = list(said["datatype"])
        names = [str(column["name"]) for column in columns]
    except Exception as error:  # yaml's own errors, or a header that lacks what ECSV asks for
        raise SpecclipError(
            f"{path} has an ECSV header that cannot be read ({error}).", "Write it again, or write it as CSV."
        ) from error
    if layout.names != names:
        raise SpecclipError(
            f"{path} names columns {layout.names[:5]} in its line of names and {names[:5]} in its ECSV header.",
            "Write the file again.",
        )
    schema = pa.schema([_ecsv_field(column) for column in columns])

    def chunks(wanted: Any) -> Iterator[pa.Table]:
        fields = [schema.field(name) for name in wanted]
        for batch in text_batches(path, layout, {field.name: field.type for field in fields}):
            yield pa.Table.from_batches([batch]).cast(pa.schema(fields))

    return CatalogFile(schema, chunks)


def _ecsv_field(column: dict[str, Any]) -> pa.Field:
    kind = pa.string() if column.get("subtype") else _ECSV_TYPES.get(str(column["datatype"]), pa.string())
    meta = dict(column.get("meta") or {})
    return described_field(str(column["name"]), kind, column.get("unit"), column.get("description"), meta.get("ucd"))


def _without_markup(column: pa.ChunkedArray) -> pa.ChunkedArray:
    r"""Values of a LaTeX table without their dollar signs; ``\nodata`` is no value."""
    plain = pc.utf8_trim_whitespace(pc.replace_substring_regex(column, r"[$~{}]|\\,", ""))
    nothing = pc.match_substring_regex(plain, r"^(\\nodata|\\ldots|\\dots|\.\.\.|-+)?$")
    return pc.if_else(nothing, pa.scalar(None, pa.string()), pc.replace_substring_regex(plain, r"\\pm", "±"))


_LADDER = (pa.int64(), pa.float64(), pa.bool_(), pa.string())


def _infer_types(names: list[str], batches: Batches) -> tuple[dict[str, pa.DataType], int, set[str]]:
    """The type of each column, the number of rows, and the columns of numbers with decimal commas."""
    ladder = dict.fromkeys(names, 0)
    seen = dict.fromkeys(names, False)
    comma, commas = dict.fromkeys(names, True), dict.fromkeys(names, False)
    rows = 0
    for batch in batches({name: pa.string() for name in names}):
        rows += batch.num_rows
        for name in names:
            values = batch.column(name)
            seen[name] |= values.null_count < len(values)
            comma[name] = comma[name] and _with_comma(values)
            commas[name] |= comma[name] and bool(pc.any(pc.match_substring(values, ",")).as_py())
            while ladder[name] < len(_LADDER) - 1 and not _fits(values, _LADDER[ladder[name]]):
                ladder[name] += 1
    types = {name: _LADDER[step] if seen[name] else pa.string() for name, step in ladder.items()}
    decimal = {name for name in names if comma[name] and commas[name] and pa.types.is_string(types[name])}
    return {**types, **dict.fromkeys(decimal, pa.float64())}, rows, decimal


def _with_comma(values: pa.Array) -> bool:
    """Whether every value is a number written with a decimal comma, or a whole one."""
    pattern = r"^\s*[+-]?(\d+,\d+|\d+|\d*,\d+)([eE][+-]?\d+)?\s*$"
    return bool(pc.all(pc.match_substring_regex(values.drop_null(), pattern)).as_py() in (True, None))


def _cast(values: pa.Array, kind: pa.DataType, comma: bool) -> pa.Array:
    if pa.types.is_string(kind):
        return values
    trimmed = pc.utf8_trim_whitespace(values)
    if pa.types.is_boolean(kind):
        return pc.equal(pc.utf8_lower(trimmed), "true")
    return (pc.replace_substring(trimmed, ",", ".") if comma else trimmed).cast(kind)


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
