"""Numbers of star labels as people write them: limits, missing values, plausible ranges, sexagesimal positions.

One list for all doors: catalogues of every format, and lists of known stars.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..labels import ERROR_NAMES, RANGES

# no value, wherever they stand; the last ones are those that could be real in no label
ALWAYS_MISSING = (-9999.0, -9999.99, -999.0, -99999.0)
# no value, where they lie outside the range of the label: -99.99 is no metallicity, but a radial velocity
CODES = np.array([
    *(sign * code for sign in (1, -1) for code in (
        9.0, 9.9, 9.99, 9.999, 99.0, 99.9, 99.99, 99.999, 999.0, 999.9, 999.99, 9999.0, 9999.9, 9999.99, 99999.0, 1e20,
        1e30, 1e38)),
    0.0, -1.0, -32768.0, -2147483648.0,
])
POSITION = ("ra", "dec")
_NOTHING = pa.array(["", ".", "..", "...", "…", "-", "--", "---", "–", "—", "nan", "null", "none", "n/a", "na",
                     "nodata", r"\nodata", r"\ldots", r"\dots", "masked", "?"])
_LIMIT = r"^\(?\s*([<>≤≥≲≳]|\\l[et]|\\g[et]|\\lesssim|\\gtrsim|[ul]l\b)"
_NUMBER = (r"^\(?(?P<value>[+-]?(?:\d+[.,]?\d*|[.,]\d+)(?:[eE][+-]?\d+)?)\)?"
           r"\s*(?:[:?*a-z†‡]|(?:±|\+/-|\+-|\\pm).*|\(\d+\)|_\{?-.*\^.*|\^.*)?$")
_SEXAGESIMAL = (r"^(?P<sign>[+-]?)\s*(?P<whole>\d{1,3})\s*(?P<mark>[:hHdD°\s])\s*(?P<minutes>\d{1,2})\s*[:mM'′\s]\s*"
                r"(?P<seconds>\d{1,2}(?:\.\d*)?)\s*(?:[sS\"″]|'')?$")


@dataclass(slots=True)
class Cleaned:
    """Numbers of a column, and what was no number in it.

    Attributes
    ----------
    values
        Floats; null where there is no value.
    missing
        Codes that surveys write for 'no value'.
    implausible
        Numbers outside the label's range.
    limits
        Upper or lower limits.
    not_numbers
        Text that is no number.
    example
        One of the values that became null, as it was written.
    """

    values: pa.Array
    counts: Counter[str] = field(default_factory=Counter)
    example: str = ""


def clean_label(values: pa.ChunkedArray | pa.Array, name: str, unit: str = "") -> Cleaned:
    """A column of a label or of a position as floats.

    Parameters
    ----------
    values
        Numbers or text.
    name
        Our name of the column: one of `RANGES`, an error, `ra` or `dec`.
    unit
        The file's unit, where it says one; right ascension in hours and angles in radians become degrees.
    """
    flat = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if pa.types.is_dictionary(flat.type):
        flat = flat.dictionary_decode()
    done = Cleaned(flat)
    if pa.types.is_string(flat.type) or pa.types.is_large_string(flat.type):
        done = _from_text(flat.cast(pa.string()), name)
    elif not pa.types.is_floating(flat.type):
        done.values = flat.cast(pa.float64(), safe=False)
    numbers = done.values
    numbers = pc.if_else(pc.is_finite(numbers), numbers, pa.scalar(None, numbers.type))
    if name in POSITION:
        numbers = _degrees(numbers, name, unit)
    done.values = _in_range(numbers, name, done)
    return done


def _from_text(text: pa.Array, name: str) -> Cleaned:
    plain = pc.utf8_trim_whitespace(pc.replace_substring_regex(text, r"[$~{}]|\\,", ""))
    plain = pc.replace_substring_regex(plain, r"^[−–]", "-")
    plain = pc.replace_substring_regex(plain, "[eE]−", "e-")
    present = pc.and_(plain.is_valid(), pc.invert(pc.is_in(pc.utf8_lower(plain), value_set=_NOTHING)))
    present = present.fill_null(False)
    plain = pc.if_else(present, plain, pa.scalar(None, pa.string()))
    limit = pc.match_substring_regex(plain, _LIMIT, ignore_case=True).fill_null(False)
    found = pc.struct_field(pc.extract_regex(plain, _NUMBER), "value")
    number = pc.replace_substring(found, ",", ".").cast(pa.float64())
    number = pc.if_else(limit, pa.scalar(None, pa.float64()), number)
    if name in POSITION:
        number = pc.coalesce(number, _sexagesimal(plain, name))
    wrong = pc.and_(plain.is_valid(), pc.and_(number.is_null(), pc.invert(limit)))
    done = Cleaned(number)
    done.counts.update(limits=pc.sum(limit).as_py() or 0, not_numbers=pc.sum(wrong).as_py() or 0)
    if done.counts["not_numbers"]:
        done.example = str(text.filter(wrong)[0].as_py())[:40]
    return done


def _sexagesimal(text: pa.Array, name: str) -> pa.Array:
    """Degrees of angles in sexagesimal writing: hours for right ascension, unless degrees are marked."""
    parts = pc.extract_regex(text, _SEXAGESIMAL)
    whole, minutes, seconds = (pc.struct_field(parts, part).cast(pa.float64())
                               for part in ("whole", "minutes", "seconds"))
    size = pc.add(whole, pc.divide(pc.add(minutes, pc.divide(seconds, 60.0)), 60.0))
    sane = pc.and_(pc.less(minutes, 60.0), pc.less_equal(seconds, 60.0))
    size = pc.if_else(sane, size, pa.scalar(None, pa.float64()))
    if name == "ra":
        in_degrees = pc.is_in(pc.struct_field(parts, "mark"), value_set=pa.array(["d", "D", "°"]))
        size = pc.if_else(in_degrees, size, pc.multiply(size, 15.0))
    return pc.if_else(pc.equal(pc.struct_field(parts, "sign"), "-"), pc.negate(size), size)


def _degrees(numbers: pa.Array, name: str, unit: str) -> pa.Array:
    unit = unit.strip().lower()
    if unit in ("rad", "radian", "radians"):
        return pc.multiply(numbers, 180 / np.pi)
    if name == "ra" and unit in ("h", "hr", "hour", "hours", "hourangle"):
        return pc.multiply(numbers, 15.0)
    return numbers


def value_range(name: str) -> tuple[float, float]:
    """Least and largest value that a label can have."""
    return RANGES.get(name, (0.0, np.inf) if name in ERROR_NAMES else (-np.inf, np.inf))


def _in_range(numbers: pa.Array, name: str, done: Cleaned) -> pa.Array:
    values = numbers.to_numpy(zero_copy_only=False).astype(np.float64)
    low, high = value_range(name)
    with np.errstate(invalid="ignore"):
        outside = (values < low) | (values > high)
        missing = np.isin(values, np.array(ALWAYS_MISSING)) | np.isin(
            values, np.array(ALWAYS_MISSING, np.float32).astype(np.float64))
    places = np.flatnonzero(outside & ~missing)
    coded = np.isclose(values[places, None], CODES[None], rtol=1e-6, atol=1e-9).any(axis=1)
    missing[places[coded]] = True
    strange = outside & ~missing
    done.counts.update(missing=int(missing.sum()), implausible=int(strange.sum()))
    if strange.any() and not done.example:
        done.example = f"{values[np.flatnonzero(strange)[0]]:g}"
    gone = missing | strange
    return pc.if_else(pa.array(gone), pa.scalar(None, numbers.type), numbers) if gone.any() else numbers
