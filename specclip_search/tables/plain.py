"""Every type that SQL can give, in the types that files can hold.

DuckDB has numbers of 128 bits and of any length, decimals, intervals, unions and bit strings; FITS, VOTable and JSON
have not. Numbers stay numbers wherever the format can hold each of them exactly, else they become their digits as text;
nothing is rounded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_LARGEST = 2**63 - 1
_BIGNUM = "bignum"


def storable(table: pa.Table) -> pa.Table:
    """The table with only such types as Parquet can hold: intervals, unions and DuckDB's own types become text."""
    for number, field in enumerate(table.schema):
        if _needs_text(field.type):
            column = _as_text(table.column(number))
            table = table.set_column(number, field.with_type(pa.string()), column)
    return table


def plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column in numbers of at most 64 bits, text, booleans, times, bytes, or lists and structures of them."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return plain_column(column.cast(kind.value_type))
    if _needs_text(kind):
        return _as_text(column)
    if pa.types.is_decimal(kind):
        return _decimals(column, kind.scale)
    if pa.types.is_uint64(kind):
        largest = pc.max(column).as_py()
        return column.cast(pa.int64() if largest is None or largest <= _LARGEST else pa.string())
    return column


def json_value(value: Any) -> Any:
    """What JSON has no form for: decimals as numbers, where a reader gets every digit back, bytes as hexadecimal."""
    if isinstance(value, Decimal):
        if value == value.to_integral_value():
            return int(value)
        return float(value) if Decimal(repr(float(value))) == value else str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, pa.MonthDayNano):
        return _interval(value)
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _needs_text(kind: pa.DataType) -> bool:
    return (
        pa.types.is_interval(kind)
        or pa.types.is_duration(kind)
        or pa.types.is_union(kind)
        or pa.types.is_null(kind)
        or isinstance(kind, pa.BaseExtensionType)
        or (pa.types.is_nested(kind) and any(_needs_text(kind.field(n).type) for n in range(kind.num_fields)))
    )


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if isinstance(kind, pa.OpaqueType) and kind.type_name == _BIGNUM:
        storage = pa.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type)
        return _texts(None if value is None else str(_bignum(value)) for value in storage.to_pylist())
    return _texts(_text(value) for value in column.to_pylist())


def _texts(values: Iterable[str | None]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(list(values), pa.string())])


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | dict):
        return json.dumps(value, default=json_value)
    if isinstance(value, int | float):
        return repr(value)
    return str(json_value(value))


def _bignum(data: bytes) -> int:
    """DuckDB's integer of any length: three bytes of sign and length, then its digits; all inverted where negative."""
    negative = not data[0] & 0x80
    digits = bytes(255 - byte for byte in data[3:]) if negative else data[3:]
    return -int.from_bytes(digits, "big") if negative else int.from_bytes(digits, "big")


def _interval(value: pa.MonthDayNano) -> str:
    """In the form of ISO 8601: P1M2DT3.5S."""
    seconds = Decimal(value.nanoseconds) / 1_000_000_000
    days = f"{value.months}M{value.days}D" if value.months or value.days else ""
    return f"P{days}T{seconds.normalize():f}S" if seconds or not days else f"P{days}"


def _decimals(column: pa.ChunkedArray, scale: int) -> pa.ChunkedArray:
    values = column.to_pylist()
    if scale <= 0:
        if all(value is None or -_LARGEST - 1 <= value <= _LARGEST for value in values):
            return pa.chunked_array([pa.array([None if v is None else int(v) for v in values], pa.int64())])
    elif all(value is None or Decimal(repr(float(value))) == value for value in values):
        return pa.chunked_array([pa.array([None if v is None else float(v) for v in values], pa.float64())])
    return _texts(None if value is None else f"{value:f}" for value in values)
