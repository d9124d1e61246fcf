"""LAMOST's low-resolution spectrographs: from a star's spectrum to raw flux, inverse variance and masks.

S/N is defined as in LAMOST's headers, and drawn for simulated spectra from the observed distribution.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import numpy as np

from ...constants import C_KM_S
from .interstellar import interstellar_transmission
from .labels import FloatArray, SimulationError

# limits in Angstrom for which the median of flux * sqrt(ivar) over pixels of positive ivar is SNRU to SNRZ of 119 real
# headers, to 0.0004 or better in the median and 0.0024 in 90 of 100 (a header's last digit is 0.0003 at S/N 30)
BANDS = {
    "u": (3690.0, 3850.0),
    "g": (3980.0, 5400.0),
    "r": (5560.0, 6810.0),
    "i": (6900.0, 8160.0),
    "z": (8200.0, 9110.0),
}

# rounded centre and spread of SNRG above 10 in those files; the tails are limited as in surveys
TYPICAL_SNR, SNR_SPREAD_DEX = 40.0, 0.28
SNR_RANGE = (8.0, 400.0)


def band_snr(wavelength: FloatArray, flux: np.ndarray, ivar: np.ndarray) -> dict[str, np.ndarray]:
    """Median signal to noise per pixel in each band, by band name, (N,) float32; NaN without a good pixel.

    Parameters
    ----------
    wavelength
        (P,) Angstrom, vacuum.
    flux, ivar
        (N, P); pixels of zero `ivar` are ignored.
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


LOG_STEP = 1e-4
MODEL_LOG_START = 3.5670
LOG_START, PIXELS = 3.5682, 3909
WAVELENGTH: FloatArray = np.power(10.0, LOG_START + LOG_STEP * np.arange(PIXELS), dtype=np.float64)
FIRST_PIXEL = round((LOG_START - MODEL_LOG_START) / LOG_STEP)
MAX_RV_KM_S = 1000.0

BLUR = 0.23  # largest extra blur: [k, 1-2k, k] adds 2k square pixels, so R = 1800 falls to about 1500 at 0.23
CALIBRATION = 0.05  # standard deviation of each Chebyshev term of the flux calibration error, ln flux
CALIBRATION_DEGREE = 5
JOIN_A, JOIN_WIDTH_A, JOIN_STEP = 5900.0, 60.0, 0.02
SKY_LINE_EXCESS = 1.5  # threshold of a sky line, in units of the smooth sky variance
SKY_RESIDUAL = 0.7  # fraction of sigma in a sky line that is due to sky subtraction; varies between spectra
COSMIC_RAYS = 0.3  # per spectrum; real ones have 0.22 runs of 5 to 8 masked pixels, and some undetected ones
COSMIC_MASKED = 0.7
MASKED_PIXELS, UNNOTICED_PIXELS = (5, 9), (1, 3)
COSMIC_SIGMA = (6.0, 40.0)
MASK_BIT = 1


@dataclass(frozen=True, slots=True)
class RawLrs:
    """N simulated raw spectra.

    Attributes
    ----------
    wavelength
        (3909,) float64 Angstrom, vacuum, heliocentric: 10**(3.5682 + 1e-4 i).
    flux, ivar
        (N, 3909) float32 relative flux and its inverse variance; 0 where masked.
    andmask, ormask
        (N, 3909) int16, as the survey's: 0 is good.
    snr
        (N,) float32 by band, as the headers' SNRU to SNRZ.
    rv
        (N,) float64 km/s that the spectra were shifted by.
    """

    wavelength: FloatArray
    flux: np.ndarray
    ivar: np.ndarray
    andmask: np.ndarray
    ormask: np.ndarray
    snr: dict[str, np.ndarray]
    rv: FloatArray

    def __len__(self) -> int:
        return len(self.flux)


@dataclass(frozen=True, slots=True)
class NoiseCurves:
    """Shapes of LAMOST's variance, measured by `measure_noise`: contributions of the star and the sky."""

    star: FloatArray
    sky: FloatArray
    sky_line: np.ndarray
    log_ratio: tuple[float, float]


@lru_cache(maxsize=1)
def noise_curves() -> NoiseCurves:
    """The curves that ship with the package."""
    from scipy.ndimage import median_filter

    with resources.files(__package__).joinpath("data/lamost_noise.npz").open("rb") as handle, np.load(handle) as stored:
        sky = stored["sky"].astype(np.float64)
        middle, spread = stored["log_star_over_sky"]
        lines = sky > SKY_LINE_EXCESS * median_filter(sky, 151)
        return NoiseCurves(stored["star"].astype(np.float64), sky, lines, (float(middle), float(spread)))


def observe_lrs(
    flux: FloatArray,
    snr_g: FloatArray,
    rv: FloatArray,
    ids: np.ndarray,
    *,
    ebv: FloatArray | None = None,
    seed: int = 0,
) -> RawLrs:
    """Observe stars.

    Parameters
    ----------
    flux
        (N, 3923) spectra at R = 1800 on the emulator's grid 10**(3.5670 + 1e-4 i) A, any unit.
    snr_g
        (N,) signal to noise per pixel in the g band.
    rv
        (N,) radial velocity, km/s.
    ids
        (N,) int64; a star's noise depends only on `seed` and its id, not on the batch.
    ebv
        (N,) reddening E(B-V), mag, R_V = 3.1, with interstellar absorption lines; none by default.

    Raises
    ------
    SimulationError
        If a velocity or signal to noise is out of range.
    """
    _check(flux, snr_g, rv)
    seen = _shifted(flux, rv)
    if ebv is not None and np.any(ebv > 0):
        seen = seen * _transmission()[None, :] ** np.asarray(ebv)[:, None]
    count = len(seen)
    raw = RawLrs(
        WAVELENGTH,
        np.empty((count, PIXELS), np.float32),
        np.empty((count, PIXELS), np.float32),
        np.zeros((count, PIXELS), np.int16),
        np.zeros((count, PIXELS), np.int16),
        {},
        np.asarray(rv, float),
    )
    for i in range(count):
        rng = np.random.default_rng([seed, int(ids[i])])
        if ebv is not None and ebv[i] > 0:
            # separate random numbers: a star's noise is the same with and without dust
            gas = np.random.default_rng([seed, int(ids[i]), 2])
            seen[i] *= interstellar_transmission(WAVELENGTH, float(ebv[i]), gas)
        _expose(seen[i], float(snr_g[i]), raw, i, rng)
    raw.snr.update(band_snr(WAVELENGTH, raw.flux, raw.ivar))
    return raw


def _check(flux: FloatArray, snr_g: FloatArray, rv: FloatArray) -> None:
    pixels = PIXELS + FIRST_PIXEL + 2
    if flux.ndim != 2 or flux.shape[1] != pixels:
        raise SimulationError(f"Spectra to observe must be (N, {pixels}); found {flux.shape}.", "Use Emulator.lrs.")
    if np.any(np.abs(rv) > MAX_RV_KM_S) or not np.all(np.isfinite(rv)):
        raise SimulationError(f"Radial velocities must lie within {MAX_RV_KM_S:.0f} km/s.", "No star is faster.")
    if not np.all(np.asarray(snr_g) > 0):
        raise SimulationError("The signal to noise in g must be positive.", "LAMOST's lies mostly between 8 and 200.")


def _shifted(flux: FloatArray, rv: FloatArray) -> FloatArray:
    """Spectra at their velocity on the instrument's pixels, by four-point Lagrange interpolation."""
    shift = np.log10(1.0 + np.asarray(rv, float) / C_KM_S) / LOG_STEP
    start = FIRST_PIXEL - shift
    whole = np.floor(start).astype(int)
    t = (start - whole)[:, None]
    weights = (
        -t * (t - 1) * (t - 2) / 6,
        (t + 1) * (t - 1) * (t - 2) / 2,
        -(t + 1) * t * (t - 2) / 2,
        (t + 1) * t * (t - 1) / 6,
    )
    pixel = np.arange(PIXELS)
    last = flux.shape[1] - 1
    result = np.zeros((len(flux), PIXELS))
    for offset, weight in zip((-1, 0, 1, 2), weights, strict=True):
        place = np.clip(whole[:, None] + pixel + offset, 0, last)
        result += weight * np.take_along_axis(flux, place, axis=1)
    return result


@lru_cache(maxsize=1)
def _transmission() -> FloatArray:
    """(3909,) transmitted fraction for E(B-V) = 1."""
    from .reddening import transmission

    return transmission(WAVELENGTH, "Angstrom")


def _expose(star: FloatArray, snr_g: float, raw: RawLrs, row: int, rng: np.random.Generator) -> None:
    """One exposure of one star: blur, calibration, noise, sky residuals, cosmic rays."""
    curves = noise_curves()
    k = rng.uniform(0.0, BLUR)
    flux = star.copy()
    flux[1:-1] = (1 - 2 * k) * star[1:-1] + k * (star[:-2] + star[2:])
    flux *= _calibration_error(rng)
    inside = (BANDS["g"][0] < WAVELENGTH) & (BANDS["g"][1] > WAVELENGTH)
    flux /= np.median(flux[inside])
    ratio = np.exp(rng.normal(*curves.log_ratio))
    variance = ratio * curves.star * np.maximum(flux, 0.02) + curves.sky
    # the requested S/N sets the level; the shape is as measured
    sigma = np.sqrt(variance) * (np.median(flux[inside] / np.sqrt(variance[inside])) / snr_g)
    noise, residual = rng.standard_normal(PIXELS), rng.normal() * rng.standard_normal(PIXELS)
    # the measured variance includes sky residuals: noise and residuals share it, so that ivar is correct
    in_line = np.sqrt(1.0 - SKY_RESIDUAL**2) * noise + SKY_RESIDUAL * residual
    flux = flux + sigma * np.where(curves.sky_line, in_line, noise)
    counts = 10.0 ** rng.uniform(1.5, 3.5)
    ivar = (sigma * counts) ** -2.0
    for place, pixels, height, masked in _cosmic_rays(rng):
        hit = slice(place, place + pixels)
        flux[hit] += height * sigma[hit]
        if masked:
            ivar[hit] = 0.0
            raw.ormask[row, hit] = raw.andmask[row, hit] = MASK_BIT
    raw.flux[row], raw.ivar[row] = flux * counts, ivar


def _calibration_error(rng: np.random.Generator) -> FloatArray:
    """(3909,) factor: a smooth error of the flux calibration and a step at the join of the blue and red arms."""
    x = np.linspace(-1.0, 1.0, PIXELS)
    terms = rng.normal(0.0, CALIBRATION, CALIBRATION_DEGREE + 1)
    step = rng.normal(0.0, JOIN_STEP) * np.tanh((WAVELENGTH - JOIN_A) / JOIN_WIDTH_A)
    return np.exp(np.polynomial.chebyshev.chebval(x, terms) + step)


def _cosmic_rays(rng: np.random.Generator) -> list[tuple[int, int, float, bool]]:
    """Position, width, height in sigma of each cosmic ray, and whether the pipeline masked it."""
    found = []
    for _ in range(rng.poisson(COSMIC_RAYS)):
        masked = bool(rng.random() < COSMIC_MASKED)
        pixels = int(rng.integers(*(MASKED_PIXELS if masked else UNNOTICED_PIXELS)))
        found.append((int(rng.integers(0, PIXELS - pixels)), pixels, float(rng.uniform(*COSMIC_SIGMA)), masked))
    return found
