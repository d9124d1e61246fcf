"""Gaia XP: flux over the flux at 550 nm, on the archive's grid of 343 points.

Gaia XP rows with quality: what `prepare_arrays` does for this instrument.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..errors import Reason, SpectrumError
from ..preparation.gridding import UNKNOWN_VARIANCE, LinearMap, check_wavelength, linear_map
from ..preparation.quality import good_pixels, reason_for_pixels, repair

if TYPE_CHECKING:
    from .batch import Prepared

GRID = np.arange(336.0, 1021.0, 2.0)
UNIT = "nm"
REFERENCE_NM = 550.0
REFERENCE_INDEX = int(np.searchsorted(GRID, REFERENCE_NM))


def xp_map(wavelength: np.ndarray) -> LinearMap:
    """The map of a wavelength array (P,), nm, onto the grid; refuses what cannot carry it."""
    wavelength = np.asarray(wavelength, dtype=np.float64)
    check_wavelength(wavelength, GRID, UNIT)
    return linear_map(wavelength, GRID)


def prepare_xp(wavelength: np.ndarray, flux: np.ndarray) -> np.ndarray:
    """Published XP input: (N, P) finite flux to (N, 343) float64, 1 at 550 nm.

    Raises
    ------
    SpectrumError
        `no_flux_at_550nm`, if the flux there is not positive.
    """
    gridded = xp_map(wavelength).values(np.asarray(flux, dtype=np.float64))
    reference = gridded[:, REFERENCE_INDEX]
    bad = np.flatnonzero(~(reference > 0))
    if len(bad):
        raise SpectrumError(
            Reason.NO_FLUX_AT_550NM,
            f"the flux at 550 nm must be positive; row {bad[0]} has {reference[bad[0]]:.3g} ({len(bad)} such rows).",
            "Set these spectra aside; nothing can be divided by it.",
        )
    return gridded / reference[:, None]


# BP alone reaches 640 nm, RP alone begins at 635 nm: a spectrum without any good sample this side or
# that of the join has only one of the two
BP_ALONE_NM, RP_ALONE_NM = 630.0, 645.0


def prepare_xp_rows(wavelength: np.ndarray, flux: np.ndarray, ivar: np.ndarray, result: Prepared) -> None:
    """Fill `result` from (N, P) rows."""
    onto_grid = xp_map(wavelength)
    good = good_pixels(flux, ivar)
    window = onto_grid.window
    n_good = np.count_nonzero(good[:, window], axis=1)
    width = window.stop - window.start
    result.good_fraction[:] = n_good / width
    result.n_repaired[:] = width - n_good
    gridded = onto_grid.values(repair(wavelength, flux, good).astype(np.float64, copy=False))
    reference = gridded[:, REFERENCE_INDEX]
    usable = np.isfinite(reference) & (reference > 0)
    divisor = np.where(usable, reference, 1.0)[:, None]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        variance = np.where(good, 1.0 / np.where(good, ivar, 1.0), UNKNOWN_VARIANCE)
        sigma = onto_grid.sigma_from_variance(variance)
        result.flux[:] = gridded / divisor
        result.error[:] = sigma / divisor
        result.snr[:] = np.median(np.where(np.isfinite(sigma), gridded / sigma, 0.0), axis=1)
        result.scale[:] = reference
    result.n_clipped[:] = np.count_nonzero(gridded <= 0.0, axis=1)
    _set_aside(wavelength[window], flux[:, window], good[:, window], reference, usable, result)


def _set_aside(wavelength: np.ndarray, flux: np.ndarray, good: np.ndarray, reference: np.ndarray, usable: np.ndarray,
               result: Prepared) -> None:
    blue, red = wavelength < BP_ALONE_NM, wavelength > RP_ALONE_NM
    suspect = ~good.all(axis=1) | (flux.min(axis=1) == flux.max(axis=1))
    for row in np.flatnonzero(suspect):
        has_blue, has_red = good[row, blue].any(), good[row, red].any()
        found = reason_for_pixels(flux[row], good[row])
        if has_blue != has_red:
            missing = "RP" if has_blue else "BP"
            found = Reason.MISSING_BP_OR_RP, f"both BP and RP are needed; {missing} has no good sample"
        if found is not None:
            result.set_aside(int(row), *found)
    for row in np.flatnonzero(~usable):
        if result.reasons[row] is None:
            result.set_aside(int(row), Reason.NO_FLUX_AT_550NM,
                             f"the flux at {REFERENCE_NM:.0f} nm must be positive; found {reference[row]:.3g}")
