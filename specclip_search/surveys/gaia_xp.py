"""Gaia XP: flux over the flux at 550 nm, on the archive's grid of 343 points."""

from __future__ import annotations

import numpy as np

from ..errors import Reason, SpectrumError
from ..preparation.gridding import LinearMap, check_wavelength, linear_map

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
