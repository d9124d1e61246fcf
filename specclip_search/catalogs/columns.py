"""Conversion of a file's columns to the atlas's: names, types, ids, units and descriptions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import SpecclipError
from ..labels import (
    KEY_NAMES,
    KNOWN,
    LABEL_NAMES,
    MAYBE_SOURCE_ID,
    WALK_NAMES,
    plain_name,
    split_unit,
    standard_name,
)
from .ids import ids_to_int64
from .values import POSITION, clean_label

# reserved words of SQL that cannot be column names; as listed by duckdb_keywords()
_WORDS = """
    all analyse analyze and any array as asc asymmetric both case cast check collate column constraint create
    default deferrable desc describe distinct do else end except false fetch for foreign from group having in
    initially intersect into lambda lateral leading limit not null offset on only or order pivot pivot_longer
    pivot_wider placing primary qualify references returning select show similar some summarize symmetric table then
    to trailing true union unique unpivot using variadic when where window with
"""
_RESERVED = frozenset(_WORDS.split())
NO_KEY = "no_valid_id"


@dataclass(frozen=True, slots=True)
class Column:
    """One column to keep: its source and its converted form."""

    source: str
    field: pa.Field

    @property
    def name(self) -> str:
        return self.field.name


@dataclass(slots=True)
class ColumnPlan:
    """The columns to keep with their names and types, and those left out with the reason."""

    columns: list[Column]
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([column.field for column in self.columns])

    @property
    def keys(self) -> list[str]:
        return [column.name for column in self.columns if column.name in KEY_NAMES]

    @property
    def has_position(self) -> bool:
        return {"ra", "dec"} <= {column.name for column in self.columns}

    @property
    def renamed(self) -> dict[str, str]:
        return {column.source: column.name for column in self.columns if column.source != column.name}


def sql_name(name: str) -> str:
    """`name` as a plain SQL identifier: lower case, letters, digits and underscores.

    >>> sql_name("[Fe/H] (dex)"), sql_name("2MASS"), sql_name("order")
    ('fe_h_dex', '_2mass', 'order_')
    """
    plain = plain_name(name) or "column"
    if plain[0].isdigit():
        plain = f"_{plain}"
    return f"{plain}_" if plain in _RESERVED else plain


def plan_columns(
    schema: pa.Schema,
    columns: Sequence[str] | None = None,
    rename: Mapping[str, str] | None = None,
    arrays: bool = False,
    looks_like_id: Callable[[str], bool] = lambda name: False,
) -> ColumnPlan:
    """Decide on every column of a file.

    Parameters
    ----------
    schema
        The file's columns; field metadata may hold unit, description, ucd.
    columns
        Names of the columns to keep, as in the file or after renaming; by default all.
    rename
        Mapping from the file's names to ours; takes precedence over the usual spellings of labels.
    arrays
        Keep columns of arrays too.
    looks_like_id
        Asked for a column whose name may mean Gaia's id or something else (`Source`): whether its values are ids.

    Raises
    ------
    SpecclipError
        If a named column is not in the file, or two columns would get the same name.
    """
    asked = dict(rename or {})
    _require(asked, schema.names, "rename")
    names = _target_names(schema.names, asked, looks_like_id)
    if columns is not None:
        _require(columns, [*schema.names, *names.values()], "columns")
    plan = ColumnPlan([])
    for source in schema:
        if columns is not None and source.name not in columns and names[source.name] not in columns:
            continue
        kind, why = _target_type(source.type, names[source.name], arrays)
        if kind is None:
            plan.skipped[source.name] = why
        else:
            plan.columns.append(Column(source.name, _target_field(source, names[source.name], kind)))
    if not plan.columns:
        raise SpecclipError(
            "No column of the catalogue can be kept: "
            + ("; ".join(f"{name}: {why}" for name, why in plan.skipped.items()) or "it has none."),
            "Check the file, or choose others with --columns.",
        )
    return plan


def _require(wanted: Sequence[str] | Mapping[str, str], known: Sequence[str], argument: str) -> None:
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise SpecclipError(
            f"{argument} names {', '.join(map(repr, unknown))}, which the catalogue does not have.",
            f"Its columns are: {', '.join(known)}.",
        )


def _target_names(
    names: Sequence[str], asked: Mapping[str, str], looks_like_id: Callable[[str], bool]
) -> dict[str, str]:
    """Our name of each column. Exact names win over other spellings; a second claimant keeps its own name."""
    plain = {name: sql_name(asked.get(name, name)) for name in names}
    taken: dict[str, str] = {}
    walk = {name for name in names if plain[name] in WALK_NAMES and name not in asked}
    for name in sorted(names, key=lambda n: (n not in asked, plain[n] not in KNOWN)):
        standard = plain[name] if name in asked else standard_name(name)
        if standard not in KNOWN or (len(walk) > 1 and name in walk):
            standard = plain[name]
        if plain[name] in MAYBE_SOURCE_ID and name not in asked and "source_id" not in taken.values() and (
                looks_like_id(name)):
            standard = "source_id"
        if name in asked and standard in taken.values():
            raise SpecclipError(f"Two columns would be named '{standard}'.", "Give another name with --rename.")
        target = standard if standard not in taken.values() else plain[name]
        number = 2
        while target in taken.values():
            target = f"{plain[name]}_{number}"
            number += 1
        taken[name] = target
    return {name: taken[name] for name in names}


def _target_type(kind: pa.DataType, name: str, arrays: bool) -> tuple[pa.DataType | None, str]:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if name in KEY_NAMES or name in WALK_NAMES:
        return pa.int64(), ""
    if (name in LABEL_NAMES or name in POSITION) and not pa.types.is_floating(kind) and not pa.types.is_nested(kind):
        return (None, "it is empty") if pa.types.is_null(kind) else (pa.float64(), "")
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return (kind, "") if arrays else (None, "arrays are not kept unless asked for")
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string(), ""
    if pa.types.is_float16(kind):
        return pa.float32(), ""
    if pa.types.is_decimal(kind):
        return pa.float64(), ""
    if pa.types.is_null(kind):
        return None, "it is empty, or has an unsupported type (arrays of varying length, complex numbers)"
    simple = (
        pa.types.is_integer(kind),
        pa.types.is_floating(kind),
        pa.types.is_boolean(kind),
        pa.types.is_string(kind),
        pa.types.is_temporal(kind),
    )
    return (kind, "") if any(simple) else (None, f"type {kind} is not supported in a catalogue")


def _target_field(source: pa.Field, name: str, kind: pa.DataType) -> pa.Field:
    """The file's own unit, description and UCD take precedence over those known for the name."""
    metadata = {
        key.decode(): value.decode("utf-8", "replace")
        for key, value in (source.metadata or {}).items()
        if key in (b"unit", b"description", b"ucd")
    }
    known = KNOWN.get(name)
    unit = split_unit(source.name)[1]
    if known is not None and unit and "unit" not in metadata:
        metadata["unit"] = unit
    if name in POSITION:
        metadata.pop("unit", None)  # the values are brought to degrees
    if known is not None:
        for key in ("unit", "description", "ucd"):
            if not metadata.get(key) and getattr(known, key):
                metadata[key] = getattr(known, key)
    metadata = {key: value for key, value in metadata.items() if value}
    if source.name != name:
        metadata["original_name"] = source.name
    return pa.field(name, kind, metadata=metadata or None)


@dataclass(slots=True)
class Converted:
    """A converted chunk and counts of what was changed."""

    table: pa.Table
    rejected: int
    invalid_ids: dict[str, int]
    cleaned: dict[str, Counter[str]]
    examples: dict[str, str]


def convert_chunk(chunk: pa.Table, plan: ColumnPlan, *, keep_all: bool = False) -> Converted:
    """Bring a chunk of the file to the plan's columns.

    NaN and empty text become null, and so does, in a column of a label or a position, what is no value: survey
    codes (-9999, -99.99), numbers outside the label's range, limits, text; each is counted. A row is left out
    only where it has key columns and no valid value in any of them, nor a position;
    with `keep_all` none is.
    """
    arrays, invalid, examples = [], {}, {}
    cleaned: dict[str, Counter[str]] = {}
    for column in plan.columns:
        values = chunk[column.source]
        if column.name in KEY_NAMES or column.name in WALK_NAMES:
            values, bad = ids_to_int64(values, column.source)
            if bad:
                invalid[column.name] = bad
        elif column.name in LABEL_NAMES or column.name in POSITION:
            unit = chunk.schema.field(column.source).metadata or {}
            done = clean_label(values, column.name, unit.get(b"unit", b"").decode("utf-8", "replace")
                               or split_unit(column.source)[1])
            values = done.values.cast(column.field.type, safe=False)
            if done.counts.total():
                cleaned[column.name] = +done.counts
                examples[column.name] = done.example
        else:
            values = values.cast(column.field.type)
            if pa.types.is_floating(column.field.type):
                values = pc.if_else(pc.is_finite(values), values, pa.scalar(None, values.type))
            elif pa.types.is_string(column.field.type):
                values = pc.if_else(pc.equal(pc.utf8_trim_whitespace(values), ""), pa.scalar(None, pa.string()), values)
        arrays.append(values)
    table = pa.Table.from_arrays(arrays, schema=plan.schema)
    keep = np.ones(table.num_rows, dtype=bool) if keep_all else _has_key(table, plan)
    rejected = table.num_rows - int(keep.sum())
    return Converted(table.filter(pa.array(keep)) if rejected else table, rejected, invalid, cleaned, examples)


def _has_key(table: pa.Table, plan: ColumnPlan) -> np.ndarray:
    if not plan.keys:
        return np.ones(table.num_rows, dtype=bool)
    keep = np.zeros(table.num_rows, dtype=bool)
    for name in plan.keys:
        keep |= np.asarray(table[name].is_valid())
    if plan.has_position:
        keep |= np.asarray(table["ra"].is_valid()) & np.asarray(table["dec"].is_valid())
    return keep
