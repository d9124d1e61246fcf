"""Signal to noise as LAMOST's headers give it, and values to draw for simulated spectra."""

from __future__ import annotations

import numpy as np

from .labels import FloatArray

# limits in Angstrom for which the median of flux * sqrt(ivar) over pixels of positive ivar is SNRU to SNRZ of 119 real
# headers, to 0.0004 or better in the median and 0.0024 in 90 of 100 (a header's last digit is 0.0003 at S/N 30)
BANDS = {
    "u": (3690.0, 3850.0),
    "g": (3980.0, 5400.0),
    "r": (5560.0, 6810.0),
    "i": (6900.0, 8160.0),
    "z": (8200.0, 9110.0),
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
