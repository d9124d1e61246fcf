"""Stars of the MILES library covered by the emulator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from specclip_search.readers.wavelengths import air_to_vacuum
from specclip_search.simulation.spectra.labels import FloatArray, SimulationError

if TYPE_CHECKING:
    from specclip_search.simulation.spectra.emulator import Emulator

COLUMNS = ("wave_air", "flux", "teff", "logg", "feh")


def usual_alpha(feh: FloatArray) -> FloatArray:
    """Typical [alpha/Fe] of a star with known [Fe/H] only: 0.33 below -1, falling to 0 at solar."""
    return np.clip(-0.33 * feh, 0.0, 0.33)


def resampled(wavelength: FloatArray, flux: FloatArray, grid: FloatArray) -> FloatArray:
    """Spectra (N, P) on another grid (G,), by cubic splines."""
    from scipy.interpolate import CubicSpline

    return np.asarray(CubicSpline(wavelength, flux, axis=1)(grid))


def miles_stars(emulator: Emulator, path: Path) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Labels (N, 5), wavelength (P,) [Angstrom, vacuum] and flux (N, P); [alpha/Fe] by `usual_alpha`, [C/Fe] 0.

    Raises
    ------
    SimulationError
        If the file lacks required columns.
    """
    with np.load(path, allow_pickle=False) as archive:
        missing = set(COLUMNS) - set(archive.files)
        if missing:
            raise SimulationError(
                f"{path} must hold {', '.join(COLUMNS)}; it lacks {', '.join(sorted(missing))}.",
                "Give the file of the MILES library.",
            )
        wave_air, flux, teff, logg, feh = (archive[name].astype(float) for name in COLUMNS)
    labels = np.stack([teff, logg, feh, usual_alpha(feh), np.zeros_like(feh)], axis=1)
    use = np.flatnonzero(np.isfinite(labels).all(axis=1) & np.isfinite(flux).all(axis=1))
    use = use[emulator.covers(labels[use])]
    return labels[use], air_to_vacuum(wave_air), flux[use]
