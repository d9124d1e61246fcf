"""Residuals of one visit against another one in named lines and in windows over the whole range."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d, median_filter

from .velocity import GRID, LOG_STEP, PIXEL_KM_S, SIZE

# vacuum Angstrom: NIST Atomic Spectra Database; half widths of 8 Angstrom hold lines to 400 km/s at LAMOST's resolution
LINES = {
    "Ca K": (3934.8, 8.0),
    "Ca H": (3969.6, 8.0),
    "Hdelta": (4102.9, 8.0),
    "G band CH": (4304.0, 14.0),
    "Hgamma": (4341.7, 8.0),
    "He I 4472": (4472.7, 8.0),
    "He II 4686": (4687.0, 8.0),
    "Hbeta": (4862.7, 8.0),
    "[O III] 5007": (5008.2, 8.0),
    "Mg b": (5175.0, 14.0),
    "Halpha": (6564.6, 8.0),
    "Li I 6708": (6709.6, 8.0),
    "O I 7774": (7775.0, 8.0),
    "Ca II 8498": (8500.4, 8.0),
    "Ca II 8542": (8544.4, 8.0),
    "Ca II 8662": (8664.5, 8.0),
}
WIDE = 50.0
# the ends, the join of LAMOST's arms, bright sky lines (5577, Na D, 6300) and telluric bands (O2, H2O): differences
# there are the sky's
_LEFT_OUT = (
    (0.0, 3850.0),
    (5565.0, 5592.0),
    (5650.0, 6000.0),
    (6270.0, 6335.0),
    (6860.0, 6970.0),
    (7150.0, 7360.0),
    (7585.0, 7730.0),
    (8100.0, 8400.0),
    (8760.0, np.inf),
)
USED = np.ones(SIZE, dtype=bool)
for _lo, _hi in _LEFT_OUT:
    USED &= ~((_lo < GRID) & (_hi > GRID))
_WIDTH = GRID * LOG_STEP * np.log(10.0)

# sigma in pixels of a visit's level; of the ratio of two visits: sigma before, pixels of the running median, and sigma
# after it. Flux calibration tilts by factors between visits, over hundreds of Angstrom, and must not count
_LEVEL, _RATIO_FIRST, _RATIO, _RATIO_SMOOTHING = 60.0, 8.0, 151, 40.0
# pixels in which the scatter corrects the survey's errors, and by how much it may
_SCATTER, _CORRECTION = 301, (0.5, 5.0)
# neighbouring pixels are not independent after resampling; a level is not known better than this
_CORRELATED, _LEVEL_ERROR = 1.5, 0.01
_LEAST_MEASURED = 0.6


@dataclass(frozen=True, slots=True)
class Window:
    """A wavelength range; `line` where it is that of a named line."""

    name: str
    lo: float
    hi: float
    line: bool


def _windows() -> tuple[Window, ...]:
    named = [Window(name, at - half, at + half, True) for name, (at, half) in LINES.items()]
    starts = np.arange(3850.0, 8760.0, WIDE)
    wide = [Window(f"{lo:.0f}-{lo + WIDE:.0f}", lo, lo + WIDE, False) for lo in starts]
    kept = [one for one in wide if USED[(one.lo <= GRID) & (one.hi > GRID)].mean() > _LEAST_MEASURED]
    return (*named, *kept)


WINDOWS = _windows()
"""Named lines first, then windows of 50 Angstrom over all that is used."""
_MASKS = np.array([(one.lo <= GRID) & (one.hi > GRID) for one in WINDOWS], dtype=np.float64)
_PIXELS = _MASKS.sum(axis=1)


@dataclass(frozen=True, slots=True)
class Difference:
    """One visit less another one, in every window of `WINDOWS`.

    Attributes
    ----------
    width
        (W,) float64 difference of equivalent widths [Angstrom], positive: more flux in the first visit (emission, or
        weaker absorption); NaN where too few pixels are measured.
    sigma
        (W,) the same over its error by the survey's noise and the local scatter.
    """

    width: np.ndarray
    sigma: np.ndarray


def residual(
    flux: tuple[np.ndarray, np.ndarray], ivar: tuple[np.ndarray, np.ndarray], velocity: float
) -> tuple[np.ndarray, np.ndarray]:
    """A visit less another one that is moved by `velocity` [km/s] and brought to its level.

    Parameters
    ----------
    flux, ivar
        Of both visits, (SIZE,) on `GRID`.

    Returns
    -------
    residual, error : (SIZE,) float64
        In units of the continuum; 0 and inf where one has no measurement.
    """
    place = np.arange(SIZE) - velocity / PIXEL_KM_S
    other = np.interp(place, np.arange(SIZE), np.where(ivar[1] > 0, flux[1], np.nan), np.nan, np.nan)
    weight = np.where(np.isfinite(other), np.interp(place, np.arange(SIZE), ivar[1]), 0.0)
    measured = (ivar[0] > 0) & (weight > 0)
    other = np.where(measured, other, 0.0)
    level = _smoothed(other, measured, _LEVEL)
    ratio = _flux_ratio(np.where(measured, flux[0], 0.0), other, measured)
    good = USED & measured & (level > 0) & np.isfinite(ratio)
    scale, safe = np.where(good, ratio, 1.0), np.where(good, level, 1.0)
    left = np.where(good, (flux[0] / scale - other) / safe, 0.0)
    variance = 1.0 / (np.where(good, ivar[0], 1.0) * scale**2) + 1.0 / np.where(good, weight, 1.0)
    error = np.sqrt(variance) / safe
    scatter = 1.4826 * median_filter(np.where(good, np.abs(left / error), 0.6745), _SCATTER, mode="nearest")
    return left, np.where(good, error * np.clip(scatter, *_CORRECTION), np.inf)


def _flux_ratio(one: np.ndarray, other: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """(SIZE,) low-order ratio of two visits' flux; NaN where it is unknown.

    The logarithm is smoothed, which leaves a slope as it is, over all that was measured, the sky's bands too: cutting
    them out would bend the ratio at every edge.
    """
    levels = [_smoothed(values, measured, _RATIO_FIRST) for values in (one, other)]
    known = (levels[0] > 0) & (levels[1] > 0)
    if not known.any():
        return np.full(SIZE, np.nan)
    pixels = np.arange(SIZE)
    logarithm = np.log(np.where(known, levels[0], 1.0) / np.where(known, levels[1], 1.0))
    logarithm = np.interp(pixels, pixels[known], logarithm[known])
    return np.asarray(np.exp(gaussian_filter1d(median_filter(logarithm, _RATIO, mode="mirror"), _RATIO_SMOOTHING)))


def _smoothed(flux: np.ndarray, measured: np.ndarray, width: float) -> np.ndarray:
    weight = gaussian_filter1d(measured.astype(np.float64), width)
    return np.asarray(gaussian_filter1d(np.where(measured, flux, 0.0), width) / np.maximum(weight, 1e-3))


def difference(left: np.ndarray, error: np.ndarray) -> Difference:
    """What a residual is in every window."""
    good = np.isfinite(error)
    width = _MASKS @ (left * _WIDTH)
    variance = _MASKS @ np.where(good, np.where(good, error, 0.0) * _WIDTH, 0.0) ** 2
    span = _MASKS @ np.where(good, _WIDTH, 0.0)
    enough = (_MASKS @ good.astype(np.float64)) >= _LEAST_MEASURED * _PIXELS
    sigma = width / np.sqrt(_CORRELATED * variance + (_LEVEL_ERROR * span) ** 2 + 1e-30)
    return Difference(np.where(enough, width, np.nan), np.where(enough, sigma, np.nan))
