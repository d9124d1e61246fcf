"""What readers of other surveys share: rows that cannot be used, arms joined, masks and signal to noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import Reason


@dataclass(frozen=True, slots=True)
class Refused:
    """A file or row that gave no spectrum.

    Attributes
    ----------
    source
        The file, with ``#row`` inside it.
    """

    source: str
    spec_id: int | None
    release: str | None
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Waiting(Refused):
    """A row that is kept as its file has it until something that is not installed yet can make a spectrum of it.

    Attributes
    ----------
    kept
        Its columns; the other attributes are those of a refusal.
    """

    kept: dict[str, Any]


def join_arms(arms: Sequence[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """Arms of one spectrograph as one spectrum; where they overlap, the mean weighted by inverse variance.

    Parameters
    ----------
    arms
        One tuple an arm: wavelength (P,), flux (N, P) and ivar (N, P), and any further (N, P) or (P,) arrays,
        which are averaged with the same weights. Arms that overlap must sample the overlap at the same
        wavelengths, as DESI's do, or not overlap at all.

    Returns
    -------
    tuple
        Wavelength (Q,), flux (N, Q), ivar (N, Q) and the further arrays. A pixel that no arm measured has
        ivar 0 and the plain mean of its fluxes.

    Raises
    ------
    ValueError
        If arms overlap on different samplings.
    """
    ordered = sorted(arms, key=lambda arm: float(arm[0][0]))
    rows = len(np.atleast_2d(ordered[0][1]))
    step = min(float(np.median(np.diff(arm[0]))) for arm in ordered)
    starts, wavelength = [0], np.asarray(ordered[0][0], np.float64)
    for arm in ordered[1:]:
        start = int(np.searchsorted(wavelength, arm[0][0] - 1e-3 * step))
        shared = len(wavelength) - start
        if not np.allclose(wavelength[start:], arm[0][:shared], rtol=0, atol=1e-3 * step):
            raise ValueError("arms overlap on different samplings")
        wavelength = np.concatenate([wavelength, arm[0][shared:]])
        starts.append(start)
    joined = np.empty((len(ordered[0]) - 1, rows, len(wavelength)))
    filled = 0
    for start, arm in zip(starts, ordered, strict=True):
        values = [np.broadcast_to(np.atleast_2d(part), (rows, len(arm[0]))) for part in arm[1:]]
        shared = filled - start
        if shared > 0:
            _average(joined[:, :, start:filled], [part[:, :shared] for part in values])
        for which, part in enumerate(values):
            joined[which, :, max(start, filled) : start + len(arm[0])] = part[:, max(shared, 0) :]
        filled = start + len(arm[0])
    return wavelength, *joined


def _average(into: np.ndarray, values: list[np.ndarray]) -> None:
    """Weighted mean of what is there, (K, N, M) with inverse variance second, and of the next arm's values."""
    first, second = (np.nan_to_num(weight, nan=0.0, posinf=0.0, neginf=0.0) for weight in (into[1], values[1]))
    total = first + second
    for which in range(len(values)):
        if which == 1:
            continue
        there, here = np.nan_to_num(into[which]), np.nan_to_num(values[which].astype(np.float64))
        with np.errstate(invalid="ignore", divide="ignore"):
            into[which] = np.where(total > 0, (there * first + here * second) / total, (there + here) / 2)
    into[1] = total


def good_ivar(flux: np.ndarray, ivar: np.ndarray, bad: np.ndarray | None = None) -> np.ndarray:
    """Inverse variance as float64 with zeros where it is not positive and finite, the flux is not finite, or `bad`."""
    with np.errstate(invalid="ignore"):
        usable = (ivar > 0) & (ivar < np.inf) & np.isfinite(flux)
    if bad is not None:
        usable &= ~bad
    return np.where(usable, ivar, 0.0).astype(np.float64)


def ivar_of_error(flux: np.ndarray, error: np.ndarray, bad: np.ndarray | None = None) -> np.ndarray:
    """The same from standard errors."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ivar = np.asarray(error, np.float64) ** -2.0
    return good_ivar(flux, np.where(np.asarray(error) > 0, ivar, 0.0), bad)


def median_snr(flux: np.ndarray, ivar: np.ndarray) -> float | None:
    """Median of flux over its error over pixels with a measurement; None where there is none."""
    good = ivar > 0
    return float(np.median(flux[good] * np.sqrt(ivar[good]))) if good.any() else None


def whole(value: object) -> int | None:
    """A 64-bit integer, negative ones too; None for anything else, floats above all."""
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    if isinstance(value, str):
        text = value.strip()
        if not is_whole_number(text):
            return None
        value = int(text)
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        return None
    number = int(value)
    return number if -(2**63) <= number < 2**63 else None


def is_whole_number(text: str) -> bool:
    """Whether a text is the digits of a whole number, with a sign or without."""
    return text.lstrip("+-").isascii() and text.lstrip("+-").isdigit() and len(text) - len(text.lstrip("+-")) <= 1


def signed64(number: int) -> int:
    """An unsigned 64-bit id as the int64 of the same bits."""
    return number - 2**64 if number >= 2**63 else number
