"""Exceptions of the package.

Every message has three parts: what was expected, what was found, what to do.
The command line turns each of these into a short message and an exit code; library
code never prints.
"""

from __future__ import annotations

from enum import StrEnum


class SpecclipError(Exception):
    """Base class of the package's errors.

    Parameters
    ----------
    message
        What was expected and what was found.
    hint
        What to do about it; shown on a separate line.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class AtlasError(SpecclipError):
    """The atlas folder is missing, damaged, locked or of another version."""


class CheckpointError(SpecclipError):
    """A model file or folder cannot be used."""


class VectorIndexError(SpecclipError):
    """An index is missing, stale or cannot be built."""


class QueryError(SpecclipError):
    """A search, score or SQL request is invalid or cannot be answered."""


class FetchError(SpecclipError):
    """A download cannot be made, or was not completed."""

    exit_code = 1


class MissingExtra(SpecclipError):
    """An optional package is needed and not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed.",
            f"Install it with: pip install 'specclip-search[{extra}]'",
        )


class Reason(StrEnum):
    """Why a spectrum was rejected; stored in the `reason` column of `rejected/`."""

    UNREADABLE = "unreadable"
    LAYOUT_UNKNOWN = "layout_unknown"
    NO_COVERAGE = "no_coverage"
    NOT_MONOTONIC = "not_monotonic"
    TOO_FEW_GOOD_PIXELS = "too_few_good_pixels"
    FLAT_OR_ZERO = "flat_or_zero"
    NOT_FINITE = "not_finite"
    CONTINUUM_NOT_POSITIVE = "continuum_not_positive"
    NO_FLUX_AT_550NM = "no_flux_at_550nm"
    MISSING_BP_OR_RP = "missing_bp_or_rp"
    DUPLICATE_KEY = "duplicate_key"
    NO_CALIBRATION = "no_calibration"
    SKY_FIBRE = "sky_fibre"
    BAD_FIBRE = "bad_fibre"


class SpectrumError(SpecclipError):
    """A spectrum cannot be read or used; carries the reason code of the rejection."""

    def __init__(self, reason: Reason, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.reason = reason


def printable(text: str) -> str:
    """Text as a terminal may be given it: control characters but newlines become '?'.

    File names, columns, tensor names and values of a catalogue come from others; an escape sequence in
    one of them could move the cursor, hide lines or set the window's title.
    """
    return text if text.isprintable() else "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)
