"""Exact conversion of catalogue ids to int64: from integers, text, and floats where that loses nothing."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

from ..errors import SpecclipError
from ..keys import INT64_MAX

EXACT_FLOAT_LIMIT = 2**53
_LARGEST = str(INT64_MAX)


def ids_to_int64(column: pa.ChunkedArray, name: str) -> tuple[pa.ChunkedArray, int]:
    """Convert a column of ids to int64.

    Parameters
    ----------
    column
        Integers, text or floats. Nulls stay null; 0, negative numbers (surveys
        write -9999) and text that is not a whole number become null.
    name
        The column's name in the file, for messages.

    Returns
    -------
    ids : int64 array, null if there is no valid id
    invalid : int
        Number of values that are not valid ids (nulls of the file are not counted).

    Raises
    ------
    SpecclipError
        If the column holds floats that may not be the exact ids: a value of 2**53 or
        more, or a value with a fraction.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_integer(kind):
        ids, absent = _from_integers(column)
    elif pa.types.is_floating(kind):
        ids, absent = _from_floats(column.cast(pa.float64()), name)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        ids, absent = _from_text(column.cast(pa.string()))
    elif pa.types.is_decimal(kind):
        ids = pa.chunked_array([pa.array([_from_decimal(value.as_py()) for value in column], pa.int64())])
        absent = column.null_count
    elif pa.types.is_null(kind):
        ids, absent = column.cast(pa.int64()), len(column)
    else:
        raise SpecclipError(
            f"Column '{name}' should hold ids, whole numbers of 64 bits; it holds {kind}.",
            "Leave it out with columns=..., or rename another column to take its place.",
        )
    return ids, int(ids.null_count - absent)


def _from_integers(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, int]:
    """Ids, and the number of nulls and of codes for a missing id."""
    nothing = pa.scalar(None, column.type)
    positive = pc.if_else(pc.greater(column, pa.scalar(0, column.type)), column, nothing)
    if column.type == pa.uint64():
        fits = pc.less_equal(positive, pa.scalar(INT64_MAX, pa.uint64()))
        return pc.if_else(fits, positive, nothing).cast(pa.int64()), positive.null_count
    return positive.cast(pa.int64()), positive.null_count


def _from_text(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, int]:
    """Ids, and the number of texts that stand for a missing id."""
    trimmed = pc.utf8_trim_whitespace(column)
    digits = pc.replace_substring_regex(trimmed, r"^\+?0*(\d+)$", r"\1")
    length = pc.utf8_length(digits)
    whole = pc.match_substring_regex(digits, r"^[1-9]\d*$")
    # 19 digits may be beyond int64; compared as text of equal length
    small = pc.or_(pc.less(length, 19), pc.and_(pc.equal(length, 19), pc.less_equal(digits, _LARGEST)))
    ids = pc.if_else(pc.and_(whole, small), digits, pa.scalar(None, pa.string())).cast(pa.int64())
    blank = pc.match_substring_regex(pc.utf8_lower(trimmed), r"^(|null|nan|none|--|-\d+(\.0*)?|0+)$")
    return ids, int(column.null_count + (pc.sum(blank).as_py() or 0))


def _from_decimal(value: Decimal | None) -> int | None:
    if value is None or value != value.to_integral_value():
        return None
    return int(value) if 0 < value <= INT64_MAX else None


def _from_floats(column: pa.ChunkedArray, name: str) -> tuple[pa.ChunkedArray, int]:
    finite = pc.if_else(pc.is_finite(column), column, pa.scalar(None, pa.float64()))
    largest = pc.max(finite).as_py()
    fractions = pc.any(pc.not_equal(finite, pc.floor(finite))).as_py()
    if largest is not None and (largest >= EXACT_FLOAT_LIMIT or fractions):
        why = f"the value {largest:.0f}" if largest >= EXACT_FLOAT_LIMIT else "values with a fraction"
        raise SpecclipError(
            f"Column '{name}' should hold exact 64-bit ids; it holds floats, with {why}, and a float keeps only "
            "whole numbers below 2**53 exactly.",
            "The digits are already lost in this file: get it again with the id as an integer or as text.",
        )
    positive = pc.if_else(pc.greater(finite, 0), finite, pa.scalar(None, pa.float64()))
    return positive.cast(pa.int64()), positive.null_count
