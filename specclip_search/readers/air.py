"""Wavelengths in air and in vacuum."""

from __future__ import annotations

import numpy as np


def air_to_vacuum(wavelength: np.ndarray) -> np.ndarray:
    """Vacuum wavelengths of wavelengths in standard air, both in Angstrom.

    The refractive index is that of Birch & Downs (1994, Metrologia 31, 315), as used by the VALD
    database (N. Piskunov's inverse of it); good to 0.001 Angstrom between 2000 and 100000 Angstrom.

    Parameters
    ----------
    wavelength
        (P,) float64, Angstrom.
    """
    s2 = (1e4 / np.asarray(wavelength, dtype=np.float64)) ** 2
    index = (1.0 + 8.336624212083e-5 + 2.408926869968e-2 / (130.1065924522 - s2)
             + 1.599740894897e-4 / (38.92568793293 - s2))
    return wavelength * index
