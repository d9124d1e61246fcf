"""Shift of one visit against another one, by least squares on continuum-normalised flux."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d

from specclip_search.constants import C_KM_S

LOG_START, LOG_STEP, SIZE = 3.5682, 1e-4, 3909
"""The grid on which visits are compared: LAMOST's own pixels, log10 of vacuum Angstrom."""
GRID = 10.0 ** (LOG_START + LOG_STEP * np.arange(SIZE))
PIXEL_KM_S = C_KM_S * np.log(10.0) * LOG_STEP
_PIXELS = np.arange(SIZE, dtype=np.float64)

# Angstrom; many lines in stars of all types, away from telluric bands and from the join of LAMOST's arms
RANGE = (4000.0, 5600.0)
# sigma in pixels: the continuum, broader than lines, and a smoothing without which the sub-pixel phase of two
# samplings pulls shifts to whole pixels
CONTINUUM_WIDTH, SMOOTHING = 20.0, 1.5
# pixels over which smoothed noise is correlated: 1 / integral of the squared Gaussian
CORRELATED = 2.0 * np.sqrt(np.pi) * SMOOTHING
# fraction of the continuum; differences of flux calibration and line spread bound the weight of bright pixels
LEAST_ERROR = 0.02
LARGEST_SHIFT = 12
_SCALE = (0.7, 1.4)
_IN_RANGE = (RANGE[0] < GRID) & (RANGE[1] > GRID)


@dataclass(frozen=True, slots=True)
class Normalised:
    """A visit over its local continuum, less 1 and smoothed.

    Attributes
    ----------
    flux, error
        (SIZE,) float64; error is that of the unsmoothed flux, inf where there is no measurement.
    """

    flux: np.ndarray
    error: np.ndarray


def normalised(flux: np.ndarray, ivar: np.ndarray) -> Normalised:
    """A visit on `GRID`: (SIZE,) flux and inverse variance, over its continuum."""
    measured = ivar > 0
    weight = gaussian_filter1d(measured.astype(np.float64), CONTINUUM_WIDTH)
    level = gaussian_filter1d(np.where(measured, flux, 0.0), CONTINUUM_WIDTH) / np.maximum(weight, 1e-3)
    usable = measured & (level > 0)
    safe = np.where(usable, level, 1.0)
    ratio = np.where(usable, flux / safe - 1.0, 0.0)
    error = np.where(usable, np.where(usable, ivar, 1.0) ** -0.5 / safe, np.inf)
    return Normalised(gaussian_filter1d(ratio, SMOOTHING), error)


@dataclass(frozen=True, slots=True)
class Shift:
    """Velocity of a visit against another one [km/s, positive: receding], its statistical error, and the fit's chi2."""

    velocity: float
    error: float
    chi2: float


def weights(one: Normalised, other: Normalised) -> np.ndarray:
    """(SIZE,) weight of each pixel in a fit of `other` to `one`; 0 outside `RANGE`."""
    good = _IN_RANGE & np.isfinite(one.error) & np.isfinite(other.error)
    variance = np.where(good, one.error, 1.0) ** 2 + np.where(good, other.error, 1.0) ** 2 + LEAST_ERROR**2
    return np.where(good, 1.0 / variance, 0.0)


def shifted(template: Normalised, pixels: np.ndarray) -> np.ndarray:
    """(K, SIZE) the template moved by each of (K,) pixels towards the red."""
    spline = CubicSpline(_PIXELS, template.flux)
    return np.asarray(spline(_PIXELS[None, :] - np.asarray(pixels)[:, None]))


def velocity_shift(one: Normalised, other: Normalised) -> Shift | None:
    """Shift of `one` against `other`; None where they share less than half of the range.

    The template is scaled between 0.7 and 1.4, because metallic lines are diluted by scattered light. The error is
    that of the parabola around the minimum, for the chi2 that is found and for noise correlated by the smoothing; what
    visits differ by beyond it (wavelength calibration) is measured on repeats, see
    `specclip_search.queries.changes.calibration`.
    """
    weight = weights(one, other)
    if np.count_nonzero(weight) < 0.5 * np.count_nonzero(_IN_RANGE):
        return None

    def chi2(pixels: np.ndarray) -> np.ndarray:
        moved = shifted(other, pixels)
        scale = (moved * one.flux) @ weight / np.maximum((moved * moved) @ weight, 1e-300)
        left = one.flux - np.clip(scale, *_SCALE)[:, None] * moved
        return np.asarray((left * left) @ weight)

    coarse = np.arange(-LARGEST_SHIFT, LARGEST_SHIFT + 1.0)
    best = coarse[int(np.argmin(chi2(coarse)))]
    fine = best + np.arange(-1.2, 1.21, 0.3)
    values = chi2(fine)
    place = int(np.clip(np.argmin(values), 1, len(fine) - 2))
    curve, slope, level = np.polyfit(fine[place - 1 : place + 2] - fine[place], values[place - 1 : place + 2], 2)
    if not curve > 0:
        return None
    vertex = -slope / (2 * curve)
    least = max(level - slope**2 / (4 * curve), 1e-9) / np.count_nonzero(weight)
    error = np.sqrt(least * CORRELATED / curve)
    return Shift(float((fine[place] + vertex) * PIXEL_KM_S), float(error * PIXEL_KM_S), float(least))
