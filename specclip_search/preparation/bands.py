"""Broad-band shape of a raw spectrum, which division by the continuum removes.

LAMOST's flux calibration is relative and accurate to about 10 % across the spectrum. Dust and
temperature change the shape by far more, so it shows whether a spectrum belongs to the star that
Gaia observed. A step between two bands shows that the blue and red arms were joined badly.
"""

from __future__ import annotations

import numpy as np

from .quality import good_pixels

# Angstrom, vacuum; clear of H-alpha, of the oxygen bands at 6870 and 7600, and of the join at 5900
BAND_EDGES = np.array(
    [
        (4000, 4250), (4250, 4500), (4500, 4750), (4750, 5000), (5000, 5250), (5250, 5500), (5500, 5750),
        (6050, 6300), (6300, 6520), (6600, 6850), (7000, 7300), (7300, 7580), (7720, 8050), (8050, 8400), (8400, 8850),
    ],
    dtype=np.float64,
)  # fmt: skip
BANDS = len(BAND_EDGES)
BAND_CENTRES = BAND_EDGES.mean(axis=1)
JOIN = 5900.0
LEAST_GOOD = 0.7
LEAST_BANDS = 3
LARGEST_SHARE = 0.1


def band_levels(wavelength: np.ndarray, flux: np.ndarray, ivar: np.ndarray) -> np.ndarray:
    """Logarithm of the mean flux in each band, minus the mean over the bands.

    Parameters
    ----------
    wavelength
        (P,) Angstrom, vacuum, increasing.
    flux, ivar
        (N, P) flux in any unit and its inverse variance; bad pixels are excluded from both flux and width.

    Returns
    -------
    np.ndarray
        (N, 15) float32; NaN for a band that is not covered, has less than 70 % good pixels, or no positive
        mean, and for all of a spectrum with fewer than three bands.
    """
    left, right = np.searchsorted(wavelength, BAND_EDGES[:, 0]), np.searchsorted(wavelength, BAND_EDGES[:, 1])
    covered = (wavelength[0] <= BAND_EDGES[:, 0]) & (wavelength[-1] >= BAND_EDGES[:, 1]) & (right > left)
    if not covered.any():
        return np.full((len(flux), BANDS), np.nan, np.float32)
    first, last = int(left[covered][0]), int(right[covered][-1])
    good = good_pixels(flux[:, first:last], ivar[:, first:last])
    used = np.where(good, flux[:, first:last], 0.0)
    # alternating starts and ends: every second sum is a band, the others are gaps
    places = np.column_stack([left[covered], right[covered]]).ravel()[:-1] - first
    total, count = np.full((2, len(flux), BANDS), np.nan)
    total[:, covered] = np.add.reduceat(used, places, axis=1, dtype=np.float64)[:, ::2]
    count[:, covered] = np.add.reduceat(good, places, axis=1, dtype=np.int64)[:, ::2]
    with np.errstate(all="ignore"):
        enough = (count >= LEAST_GOOD * (right - left)) & (total > 0)
        return centred(np.log(np.where(enough, total / count, np.nan))).astype(np.float32)


def known_band_levels(wavelength: np.ndarray, flux: np.ndarray, error: np.ndarray) -> np.ndarray:
    """The same for Gaia XP spectra, whose errors are correlated between neighbouring samples.

    Parameters
    ----------
    wavelength
        (P,) Angstrom.
    flux, error
        (N, P); the error of a band's mean is taken to be the mean of its samples' errors.

    Returns
    -------
    np.ndarray
        (N, 15) float32; NaN also where the error exceeds a tenth of the flux.
    """
    level = band_levels(wavelength, flux, np.ones_like(flux)).astype(np.float64)
    for number, (low, high) in enumerate(BAND_EDGES):
        inside = (wavelength >= low) & (wavelength < high)
        with np.errstate(invalid="ignore"):
            vague = error[:, inside].mean(axis=1) > LARGEST_SHARE * flux[:, inside].mean(axis=1)
        level[vague, number] = np.nan
    return centred(level).astype(np.float32)


def centred(level: np.ndarray) -> np.ndarray:
    """(N, 15) levels minus the mean of each row's known levels; NaN if fewer than three are known."""
    known = np.isfinite(level)
    count = known.sum(axis=1, keepdims=True)
    middle = np.where(known, level, 0.0).sum(axis=1, keepdims=True) / np.maximum(count, 1)
    return np.where(known & (count >= LEAST_BANDS), level - middle, np.nan)

