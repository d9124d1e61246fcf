"""Absorption by interstellar gas in a LAMOST spectrum: sodium and the strongest diffuse bands.

They measure the dust in front of the star, which continuum normalisation otherwise removes.
"""

from __future__ import annotations

import numpy as np

from ...constants import C_KM_S
from .labels import FloatArray

RESOLUTION = 1800.0
SIGMA_TO_FWHM = float(np.sqrt(8.0 * np.log(2.0)))
# air to vacuum near 5000-8600 A, accurate to 0.03 A
AIR_TO_VACUUM = 1.000277

# centre [A, air], full width at half maximum [A], equivalent width [A] for E(B-V) = 1:
# Jenniskens & Desert 1994, A&AS 106, 39; the last from Munari et al. 2008, A&A 488, 969
BANDS: dict[str, tuple[float, float, float]] = {
    "4428": (4428.4, 12.3, 2.231),
    "5780": (5780.5, 2.1, 0.579),
    "5797": (5797.1, 1.0, 0.132),
    "6284": (6283.9, 3.8, 0.618),
    "6614": (6613.7, 1.1, 0.231),
    "8620": (8620.4, 4.3, 0.368),
}
D2_A, D1_A = 5889.95, 5895.92
# log10 E(B-V) = slope * EW + constant, EW in A: Poznanski, Prochaska & Bloom 2012, MNRAS 426, 1465, equations 7 and 8
D2_LAW, D1_LAW = (2.16, -1.91), (2.47, -1.76)
MAX_SODIUM_EBV = 1.0

COMMON_SCATTER = 0.2  # scatter of ln strength common to all bands of a star
BAND_SCATTER = 0.15  # scatter of ln strength of each band
SODIUM_SCATTER = 0.15  # scatter of E(B-V) in dex at an equivalent width (Poznanski et al.)
VELOCITY_KM_S = 20.0  # of the gas


def interstellar_windows() -> list[tuple[float, float]]:
    """Wavelength ranges [A, vacuum] of the absorption features, as (first, last)."""
    edges = []
    for centre, width in [(c, w) for c, w, _ in BANDS.values()] + [((D1_A + D2_A) / 2, D1_A - D2_A)]:
        half = 1.3 * (width + centre / RESOLUTION)
        edges.append((centre * AIR_TO_VACUUM - half, centre * AIR_TO_VACUUM + half))
    return edges


def sodium_width(ebv: float, law: tuple[float, float]) -> float:
    """Equivalent width [A] of a sodium D line at this reddening; saturated beyond 1 mag, 0 without dust.

    Below the range of the published fit (its widths reach 0 at E(B-V) = 0.012 and 0.017) the width
    is proportional to E(B-V).
    """
    slope, constant = law
    low = 2.0 * 10.0**constant
    reddening = min(max(ebv, 0.0), MAX_SODIUM_EBV)
    if reddening < low:
        return (np.log10(2.0) / slope) * reddening / low
    return float((np.log10(reddening) - constant) / slope)


def interstellar_transmission(wavelength: FloatArray, ebv: float, rng: np.random.Generator) -> FloatArray:
    """Transmission of the gas at R = 1800.

    Parameters
    ----------
    wavelength
        (P,) Angstrom, vacuum, heliocentric, increasing.
    ebv
        Reddening of the star, mag.
    rng
        Draws the strength's scatter and the gas's velocity.

    Returns
    -------
    ndarray
        (P,) between 0 and 1; 1 without dust.
    """
    common, own = rng.normal(0.0, COMMON_SCATTER), rng.normal(0.0, BAND_SCATTER, len(BANDS))
    seen_by_sodium = ebv * 10.0 ** rng.normal(0.0, SODIUM_SCATTER)
    factor = AIR_TO_VACUUM * (1.0 + rng.normal(0.0, VELOCITY_KM_S) / C_KM_S)
    lines = [
        (centre, width, strength * ebv * np.exp(common + extra))
        for (centre, width, strength), extra in zip(BANDS.values(), own, strict=True)
    ]
    lines += [(D2_A, 0.5, sodium_width(seen_by_sodium, D2_LAW)), (D1_A, 0.5, sodium_width(seen_by_sodium, D1_LAW))]
    depth = np.zeros(len(wavelength))
    for centre, width, strength in lines:
        place = centre * factor
        sigma = np.hypot(width, place / RESOLUTION) / SIGMA_TO_FWHM
        first, last = np.searchsorted(wavelength, (place - 5 * sigma, place + 5 * sigma))
        part = wavelength[first:last]
        depth[first:last] += strength / (sigma * np.sqrt(2 * np.pi)) * np.exp(-0.5 * ((part - place) / sigma) ** 2)
    return np.exp(-depth)

