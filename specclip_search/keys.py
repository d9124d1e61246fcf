"""Keys of spectra and stars: 64-bit integers, and their form as text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import QueryError

INT64_MAX = 2**63 - 1
_PREFIX_TO_MODALITY: dict[str, str] = {}
_MODALITY_TO_PREFIX: dict[str, str] = {}
_UNSIGNED: set[str] = set()

ACCEPTANCE_SPLIT = 9
VALIDATION_SPLIT = 8


def add_prefix(prefix: str, modality: str, unsigned: bool = False) -> None:
    """Register the prefix of an instrument's keys; called when an instrument is registered.

    Parameters
    ----------
    unsigned
        Whether the survey's ids are unsigned 64-bit numbers. The atlas keeps the same bits as int64, so that ids
        from 2**63 on are negative there; keys may give either number.

    Raises
    ------
    QueryError
        If another instrument has the prefix.
    """
    if _PREFIX_TO_MODALITY.setdefault(prefix, modality) != modality:
        raise QueryError(
            f"Keys that begin with '{prefix}:' name {_PREFIX_TO_MODALITY[prefix]} spectra already.",
            f"Give {modality} another prefix.",
        )
    _MODALITY_TO_PREFIX[modality] = prefix
    if unsigned:
        _UNSIGNED.add(modality)


def is_survey(name: str) -> bool:
    """Whether keys may begin with `name`, in any case: an instrument's prefix or its full name."""
    return name.lower() in _PREFIX_TO_MODALITY or name.lower() in _MODALITY_TO_PREFIX


@dataclass(frozen=True, slots=True)
class SpectrumKey:
    """Key of a spectrum: its modality and its 64-bit id within that modality."""

    modality: str
    spec_id: int

    def __str__(self) -> str:
        return f"{_MODALITY_TO_PREFIX.get(self.modality, self.modality)}:{self.spec_id}"


def parse_key(text: str) -> SpectrumKey:
    """Parse `lamost:101001` or `gaia:5853418002145112704`.

    Raises
    ------
    QueryError
        If the text is not `<survey>:<64-bit integer>`.
    """
    prefix, colon, digits = text.strip().partition(":")
    modality = _PREFIX_TO_MODALITY.get(prefix.lower(), prefix.lower())
    known = ", ".join(f"{p}:<id>" for p in _PREFIX_TO_MODALITY)
    if not colon or modality not in _MODALITY_TO_PREFIX:
        raise QueryError(
            f"'{text}' is not a spectrum key; expected one of {known}.",
            "A LAMOST obsid is written lamost:101001, a Gaia source_id gaia:5853418002145112704.",
        )
    what = f"the id of '{text}'"
    if modality in _UNSIGNED:
        return SpectrumKey(modality, _same_bits(digits, what))
    return SpectrumKey(modality, parse_int64(digits, what=what))


def _same_bits(digits: str, what: str) -> int:
    """An unsigned 64-bit id, or the negative int64 of the same bits, as int64."""
    text = digits.strip()
    if text.startswith("-"):
        number = -parse_int64(text[1:], what)
    elif text.isascii() and text.isdigit() and INT64_MAX < int(text) < 2**64:
        number = int(text) - 2**64
    else:
        number = parse_int64(text, what)
    return number


def parse_int64(value: Any, what: str = "id") -> int:
    """Turn text or an integer into a non-negative 64-bit integer; floats are refused.

    Raises
    ------
    QueryError
        If the value is a float, not a whole number, or outside 0 .. 2**63-1.
    """
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    if isinstance(value, str):
        value = value.strip()
        if not (value.isascii() and value.isdigit()):
            raise QueryError(
                f"{what} must be a whole number; found '{value}'.",
                "Give all digits of the id, without a decimal point or an exponent.",
            )
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise QueryError(
            f"{what} must be a 64-bit integer; found {type(value).__name__} {value!r}.",
            "A float cannot hold a Gaia source_id exactly; keep ids as integers or text.",
        )
    number = int(value)
    if not 0 <= number <= INT64_MAX:
        raise QueryError(
            f"{what} must lie between 0 and 2**63-1; found {number}.",
            "Check that the id was copied completely.",
        )
    return number


def split_of(source_id: np.ndarray | int) -> np.ndarray:
    """Split number 0-9 of a star: 0-7 train, 8 validation, 9 acceptance.

    Acceptance stars are never used for training, tuning or thresholds. The split is
    by star: `(source_id >> 7) % 10`.
    """
    return (np.asarray(source_id, dtype=np.int64) >> 7) % 10


def release_order(release: str) -> tuple[tuple[int, str], ...]:
    """Sort key of data releases, older first: dr9 comes before dr10, and dr13 before dr13q1."""
    pieces = re.findall(r"\d+|\D+", release.lower())
    return tuple((int(piece), "") if piece.isdigit() else (-1, piece) for piece in pieces)
