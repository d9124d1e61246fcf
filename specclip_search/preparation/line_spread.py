"""How wide a line is in each instrument's spectra, and the matrix from one instrument's pixels to another's."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.sparse import csr_array

FWHM_PER_SIGMA = float(np.sqrt(8.0 * np.log(2.0)))
#: how far a line spread reaches, in sigma
REACH_SIGMA = 4.0
#: of a source pixel: a line spread narrower than this is the pixel itself, and is interpolated instead
NARROWEST = 0.6
#: pixel widths: a larger distance between pixels is a gap between arms or chips
GAP_STEPS = 8.0
#: of a target pixel's line spread: how much must lie on source pixels
LEAST_COVERED = 0.9
LAMOST_GRID = 10.0 ** (3.5682 + 1e-4 * np.arange(3909))

# Resolving power of LAMOST LRS by vacuum wavelength [Angstrom]: median over the real training spectra of the width of
# sky lines (Hg I, O I, OH) in their variance, measured by `specclip_search.training.emulator.lrs_resolution`. It
# differs by about 20 per cent between fibres: KIC 8098300 has 1380 at 5150 Angstrom.
_LRS_POWER = {
    4359.6: 1705.0,
    5462.3: 1725.0,
    5578.9: 1665.0,
    6865.9: 1648.0,
    7278.4: 2085.0,
    7342.9: 2232.0,
    7752.8: 2355.0,
    7995.5: 2136.0,
    8401.5: 2045.0,
    8888.3: 2251.0,
}
# FWHM [nm] of Gaia XP by wavelength [nm]: at which model spectra at APOGEE labels match real spectra of 3,763
# training stars of low extinction best, window by window from 370 to 900 nm; the step at 640 nm is BP to RP
_XP_FWHM_NM = {
    336.0: 6.0,
    370.0: 7.5,
    390.0: 8.0,
    430.0: 10.5,
    475.0: 12.0,
    510.0: 12.5,
    638.0: 13.0,
    642.0: 7.0,
    660.0: 7.0,
    720.0: 9.0,
    870.0: 12.0,
    1020.0: 14.0,
}


def lrs_resolution(wavelength: np.ndarray) -> np.ndarray:
    """Resolving power of LAMOST LRS at vacuum wavelengths [Angstrom]; constant beyond the outermost measured lines."""
    return np.interp(wavelength, list(_LRS_POWER), list(_LRS_POWER.values()))


def xp_fwhm(wavelength_nm: np.ndarray) -> np.ndarray:
    """Full width at half maximum [nm] of XP's line spread in sampled mean spectra, by wavelength [nm]."""
    return np.interp(wavelength_nm, list(_XP_FWHM_NM), list(_XP_FWHM_NM.values()))


def sigma_of_power(wavelength: np.ndarray, power: np.ndarray | float) -> np.ndarray:
    """Sigma of a Gaussian line spread in the unit of `wavelength`, of a resolving power (P,) or one number."""
    return np.asarray(wavelength / (FWHM_PER_SIGMA * np.asarray(power, np.float64)), np.float64)


def pixel_widths(wavelength: np.ndarray) -> np.ndarray:
    """(P,) width of each pixel: the smaller distance to a neighbour, so that a gap does not count as a wide pixel."""
    steps = np.diff(wavelength)
    return np.minimum(np.append(steps, steps[-1]), np.insert(steps, 0, steps[0]))


def degrading_matrix(
    source: np.ndarray, source_sigma: np.ndarray, target: np.ndarray, target_sigma: np.ndarray
) -> csr_array:
    """The linear map from pixels of one instrument to those of a coarser one.

    Each target pixel is the mean of the source pixels under a Gaussian whose variance is the difference of
    the two line spreads' variances, weighted by the width of the source's pixels. Where the source is no
    sharper than the target it is interpolated linearly: nothing can sharpen it.

    Parameters
    ----------
    source, target
        (P,), (n,) wavelengths, increasing, in one unit.
    source_sigma, target_sigma
        (P,), (n,) sigma of each instrument's line spread in that unit.

    Returns
    -------
    csr_array
        (n, P) float64; rows sum to 1, or to 0 for a target pixel outside the source's range or in one of its gaps.
    """
    steps = pixel_widths(source)
    here = np.interp(target, source, source_sigma)
    step = np.interp(target, source, steps)
    sigma = np.sqrt(np.maximum(target_sigma**2 - here**2, 0.0))
    narrow = sigma < NARROWEST * step
    reach = np.where(narrow, 0.0, REACH_SIGMA * sigma)
    first, beyond = np.searchsorted(source, target - reach, "left"), np.searchsorted(source, target + reach, "right")
    first, beyond = np.where(narrow, first - 1, first), np.where(narrow, first + 1, beyond)
    outside = (target < source[0] - step) | (target > source[-1] + step) | (first < 0) | (beyond > len(source))
    count = np.where(outside & narrow, 0, np.clip(beyond, 0, len(source)) - np.clip(first, 0, len(source)))
    first = np.clip(first, 0, len(source))
    row = np.repeat(np.arange(len(target)), count)
    column = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
    distance = source[column] - target[row]
    weight = np.exp(-0.5 * (distance / np.where(narrow, 1.0, sigma)[row]) ** 2) * steps[column]
    spacing = np.diff(source, append=np.inf)[np.clip(np.where(narrow, first, 0), 0, len(source) - 1)]
    spacing = np.where(spacing > GAP_STEPS * step, 1e-9, spacing)
    linear = np.maximum(1.0 - np.abs(distance) / spacing[row], 0.0)
    weight = np.where(narrow[row], linear, weight)
    total = np.bincount(row, weight, len(target))
    # of a Gaussian that reaches over an end or a gap of the source some is missing
    expected = np.where(narrow, 1.0, np.sqrt(2.0 * np.pi) * sigma)
    covered = (total > LEAST_COVERED * expected) & (count > 0)
    weight *= np.where(covered, 1.0 / np.where(total > 0, total, 1.0), 0.0)[row]
    pointers = np.concatenate([[0], np.cumsum(count)])
    return csr_array((weight, column, pointers), shape=(len(target), len(source)))


@lru_cache(maxsize=64)
def _cached(source: bytes, source_sigma: bytes, target: bytes, target_sigma: bytes) -> csr_array:
    return degrading_matrix(*(np.frombuffer(part) for part in (source, source_sigma, target, target_sigma)))


def cached_matrix(
    source: np.ndarray, source_sigma: np.ndarray, target: np.ndarray, target_sigma: np.ndarray
) -> csr_array:
    """`degrading_matrix`, kept for the next spectrum of the same pixels; the source's sigma is rounded to 2 %."""
    rounded = np.exp(np.round(np.log(np.maximum(source_sigma, 1e-12)) / 0.02) * 0.02)
    return _cached(
        *(np.ascontiguousarray(part, np.float64).tobytes() for part in (source, rounded, target, target_sigma))
    )
