"""Two visits of a star compared: velocity, lines and windows, a second set of lines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .differences import Difference, difference, residual
from .second_lines import SecondLines, second_lines
from .velocity import SIZE, Normalised, Shift, normalised, velocity_shift


@dataclass(frozen=True)
class Visit:
    """One visit on the grid of `specclip_search.queries.changes.velocity.GRID`.

    Attributes
    ----------
    flux, ivar
        (SIZE,) float64; ivar 0 where there is no measurement.
    """

    flux: np.ndarray
    ivar: np.ndarray
    lines: Normalised

    @classmethod
    def of(cls, flux: np.ndarray, ivar: np.ndarray) -> Visit:
        """From (SIZE,) flux and inverse variance; what is not finite counts as not measured."""
        good = np.isfinite(flux) & np.isfinite(ivar) & (ivar > 0)
        clean = np.where(good, flux, 0.0), np.where(good, ivar, 0.0)
        return cls(*clean, normalised(*clean))

    @property
    def weight(self) -> float:
        """Sum of squared signal to noise; the visit with most of it is the one that others are compared with."""
        return float(self.flux**2 @ self.ivar)


@dataclass(frozen=True)
class Comparison:
    """One visit against another one.

    Attributes
    ----------
    second
        Of the visit that shows two sets of lines; `second_in_first` says whether that is the first.
    """

    shift: Shift
    difference: Difference
    second: SecondLines
    second_in_first: bool


def compare(one: Visit, other: Visit) -> Comparison | None:
    """What `one` shows that `other` does not; None where they share too little."""
    shift = velocity_shift(one.lines, other.lines)
    if shift is None:
        return None
    left, error = residual((one.flux, other.flux), (one.ivar, other.ivar), shift.velocity)
    found = difference(left, error)
    pair = second_lines(one.lines, other.lines), second_lines(other.lines, one.lines)
    if pair[0] is None or pair[1] is None or not np.isfinite(found.sigma).any():
        return None
    first = pair[0].strength >= pair[1].strength
    return Comparison(shift, found, pair[0] if first else pair[1], first)


def on_grid(wavelength: np.ndarray, flux: np.ndarray, ivar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A spectrum in vacuum Angstrom on the grid: LAMOST's and SDSS's pixels as they are, others interpolated.

    Returns
    -------
    flux, ivar : (SIZE,) float64
        ivar is 0 where the spectrum has no pixel, or a pixel next to it was not measured.
    """
    from .velocity import LOG_START, LOG_STEP

    place = (np.log10(wavelength) - LOG_START) / LOG_STEP
    nearest = np.round(place).astype(np.int64)
    grid = np.zeros(SIZE), np.zeros(SIZE)
    if np.abs(place - nearest).max() < 0.02 and len(np.unique(nearest)) == len(nearest):
        inside = (nearest >= 0) & (nearest < SIZE)
        grid[0][nearest[inside]], grid[1][nearest[inside]] = flux[inside], ivar[inside]
        return grid
    wanted = np.arange(SIZE)
    measured = np.interp(wanted, place, (ivar > 0).astype(np.float64), 0.0, 0.0) > 0.999
    # a pixel of the grid that is narrower than the spectrum's holds less of the measurement
    share = np.interp(wanted, place, np.gradient(place), 1.0, 1.0)
    values = np.interp(wanted, place, np.where(ivar > 0, flux, 0.0))
    return values, np.where(measured, np.interp(wanted, place, ivar) / np.maximum(share, 1e-3), 0.0)
