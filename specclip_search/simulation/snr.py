"""Signal to noise as LAMOST's headers give it, and values to draw for simulated spectra."""

from __future__ import annotations

import numpy as np

from .labels import FloatArray

# limits in Angstrom for which the median of flux * sqrt(ivar) comes nearest to SNRG, SNRR, SNRI, SNRZ of 118 real
# headers (within 0.5, 1.4, 0.5 and 0.1 percent in the median; SNRU, of few counts, within 15 percent)
BANDS = {
    "u": (3700.0, 3900.0),
    "g": (3900.0, 5500.0),
    "r": (5650.0, 6770.0),
    "i": (6900.0, 8200.0),
    "z": (8200.0, 9100.0),
}

# the middle and spread of SNRG of spectra above 10 in those files, rounded; the tails are cut where surveys cut
TYPICAL_SNR, SNR_SPREAD_DEX = 40.0, 0.28
SNR_RANGE = (8.0, 400.0)


def band_snr(wavelength: FloatArray, flux: np.ndarray, ivar: np.ndarray) -> dict[str, np.ndarray]:
    """Median signal to noise a pixel in each band, by band name, (N,) float32; NaN without a good pixel.

    Parameters
    ----------
    wavelength
        (P,) Angstrom, vacuum.
    flux, ivar
        (N, P); pixels of zero `ivar` do not count.
    """
    result = {}
    for band, (low, high) in BANDS.items():
        inside = (wavelength > low) & (wavelength < high)
        good = ivar[:, inside] > 0
        ratio = np.where(good, flux[:, inside] * np.sqrt(ivar[:, inside]), np.nan)
        value = np.full(len(flux), np.nan, np.float32)
        some = good.any(axis=1)
        value[some] = np.nanmedian(ratio[some], axis=1)
        result[band] = value
    return result


def sample_snr(count: int, rng: np.random.Generator) -> FloatArray:
    """(count,) values of SNRG: log-normal about 40 with a spread of 0.28 dex, within 8 and 400."""
    return np.clip(TYPICAL_SNR * 10.0 ** rng.normal(0.0, SNR_SPREAD_DEX, count), *SNR_RANGE)
