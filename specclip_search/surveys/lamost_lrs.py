"""LAMOST LRS: flux over pseudo-continuum, on a logarithmic grid.

LAMOST LRS rows with quality: what `prepare_arrays` does for this instrument.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import Reason
from ..preparation.continuum import CHUNK_ROWS, ContinuumGrid, continuum, continuum_grid, positive
from ..preparation.gridding import UNKNOWN_VARIANCE, LinearMap, check_wavelength, linear_map
from ..preparation.quality import MAX_CLIPPED_FRACTION, good_pixels, reason_for_pixels, repair

if TYPE_CHECKING:
    from .batch import Prepared

LOG_START, LOG_STEP, SIZE = 3.602, 1e-4, 1462
LOG_GRID = np.linspace(LOG_START, LOG_START + LOG_STEP * (SIZE - 1), SIZE)
GRID = 10.0**LOG_GRID
UNIT = "Angstrom"


@dataclass(frozen=True, slots=True)
class LrsGrids:
    """The two fixed maps of one wavelength grid: to its continuum, and onto the model's grid."""

    continuum: ContinuumGrid
    onto_model: LinearMap

    @property
    def used(self) -> slice:
        return self.continuum.used


def lrs_grids(wavelength: np.ndarray) -> LrsGrids:
    """Fixed quantities of a wavelength array (P,), Angstrom; refuses what cannot carry the model's grid."""
    wavelength = np.asarray(wavelength, dtype=np.float64)
    check_wavelength(wavelength, GRID, UNIT)
    grid = continuum_grid(wavelength)
    return LrsGrids(grid, linear_map(np.log10(wavelength[grid.used]), LOG_GRID))


def prepare_lrs(wavelength: np.ndarray, flux: np.ndarray) -> np.ndarray:
    """Published LRS input: (N, P) finite flux to (N, 1462) float64."""
    grids = lrs_grids(wavelength)
    used = flux[:, grids.used]
    result = np.empty((len(flux), SIZE))
    for start in range(0, len(flux), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        result[rows] = grids.onto_model.values(used[rows] / positive(continuum(grids.continuum, used[rows])))
    return result


ROWS_AT_ONCE = 24
# Angstrom; the fit ends at 5700, what lies beyond serves only to interpolate over a mask that crosses that end
REACH = 5900.0


def prepare_lrs_rows(wavelength: np.ndarray, flux: np.ndarray, ivar: np.ndarray, result: Prepared) -> None:
    """Fill `result` from (N, P) rows; a few rows at once, so that the work stays in the processor's cache."""
    grids = lrs_grids(wavelength)
    near = slice(grids.used.start, max(grids.used.stop, int(np.searchsorted(wavelength, REACH))))
    for start in range(0, len(flux), ROWS_AT_ONCE):
        rows = slice(start, min(start + ROWS_AT_ONCE, len(flux)))
        _prepare_rows(grids, wavelength[near], flux[rows, near], ivar[rows, near], start, result)


def _prepare_rows(grids: LrsGrids, wavelength: np.ndarray, flux: np.ndarray, ivar: np.ndarray, start: int,
                  result: Prepared) -> None:
    rows, pixels = slice(start, start + len(flux)), grids.used.stop - grids.used.start
    window = grids.onto_model.window
    good = good_pixels(flux, ivar)
    repaired = repair(wavelength, flux, good)[:, :pixels]
    flux, ivar, good = flux[:, :pixels], ivar[:, :pixels], good[:, :pixels]
    n_good = np.count_nonzero(good[:, window], axis=1)
    width = window.stop - window.start
    result.good_fraction[rows] = n_good / width
    result.n_repaired[rows] = width - n_good
    levels = continuum(grids.continuum, repaired)
    clipped = levels[:, window] <= 0.0
    result.n_clipped[rows] = np.count_nonzero(clipped, axis=1)
    divisor = positive(levels)
    result.flux[rows] = grids.onto_model.values(repaired / divisor)
    variance = _variance(ivar, good, divisor, window, clipped)
    result.error[rows] = grids.onto_model.sigma_from_variance(variance)
    result.snr[rows] = _median_snr(repaired[:, window], ivar[:, window], good[:, window])
    _set_aside(flux[:, window], good[:, window], start, width, result)


def _variance(ivar: np.ndarray, good: np.ndarray, divisor: np.ndarray, window: slice,
              clipped: np.ndarray) -> np.ndarray:
    """(N, U) float32 variance of flux over continuum; unknown where a pixel is bad or has no continuum."""
    with np.errstate(divide="ignore", over="ignore", invalid="ignore", under="ignore"):
        variance = (1.0 / (ivar * divisor * divisor)).astype(np.float32)
    variance[~good] = UNKNOWN_VARIANCE
    variance[:, window][clipped] = UNKNOWN_VARIANCE
    return variance


def _median_snr(flux: np.ndarray, ivar: np.ndarray, good: np.ndarray) -> np.ndarray:
    """(N,) median over good pixels of flux times the root of its inverse variance."""
    with np.errstate(over="ignore", invalid="ignore"):
        ratio = (flux * np.sqrt(np.where(good, ivar, 0.0))).astype(np.float32, copy=False)
    result = np.median(ratio, axis=1)
    for row in np.flatnonzero(~good.all(axis=1)):
        chosen = ratio[row, good[row]]
        result[row] = np.median(chosen) if len(chosen) else np.nan
    return result


def _set_aside(flux: np.ndarray, good: np.ndarray, start: int, width: int, result: Prepared) -> None:
    limit = int(MAX_CLIPPED_FRACTION * width)
    suspect = ~good.all(axis=1) | (flux.min(axis=1) == flux.max(axis=1))
    for row in np.flatnonzero(suspect):
        found = reason_for_pixels(flux[row], good[row])
        if found is not None:
            result.set_aside(start + int(row), *found)
    for row in np.flatnonzero(result.n_clipped[start : start + len(flux)] > limit):
        if result.reasons[start + row] is None:
            count = int(result.n_clipped[start + row])
            result.set_aside(
                start + int(row), Reason.CONTINUUM_NOT_POSITIVE,
                f"at most {limit} pixels of the model's window may have no positive continuum; found {count}")
