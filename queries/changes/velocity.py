"""Shift of one visit against another one, by least squares on continuum-normalised flux."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

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
_BANDS = (4000.0, 4350.0, 4700.0, 5150.0, 5600.0)
_BAND_SLICES = tuple(slice(*np.searchsorted(GRID, ends)) for ends in pairwise(_BANDS))
_BAND_MASKS = np.zeros((len(_BAND_SLICES), SIZE))
for _number, _band in enumerate(_BAND_SLICES):
    _BAND_MASKS[_number, _band] = 1.0


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

    In each of four bands the template is scaled between 0.7 and 1.4, because lines are diluted by scattered light. The
    error is that of the parabola around the minimum, for the chi2 that is found, for noise correlated by the smoothing,
    and enlarged where the bands disagree; what visits differ by beyond it is measured on repeats, see
    `specclip_search.queries.changes.calibration`.
    """
    weight = weights(one, other)
    if np.count_nonzero(weight) < 0.5 * np.count_nonzero(_IN_RANGE):
        return None

    def chi2(pixels: np.ndarray) -> np.ndarray:
        """(bands, K): each band with a scale of its own."""
        moved = shifted(other, pixels)
        scale = _BAND_MASKS @ (moved * one.flux * weight).T
        scale = np.clip(scale / np.maximum(_BAND_MASKS @ (moved * moved * weight).T, 1e-300), *_SCALE)
        return np.stack(
            [
                (one.flux[band] - scale[number][:, None] * moved[:, band]) ** 2 @ weight[band]
                for number, band in enumerate(_BAND_SLICES)
            ]
        )

    coarse = np.arange(-LARGEST_SHIFT, LARGEST_SHIFT + 1.0)
    of_bands = chi2(coarse)
    best = coarse[int(np.argmin(of_bands.sum(axis=0)))]
    fine = best + np.arange(-3.0, 3.01, 0.3)
    of_bands = chi2(fine)
    found = _minimum(fine, of_bands.sum(axis=0))
    if found is None:
        return None
    vertex, curve, level = found
    least = max(level, 1e-9) / np.count_nonzero(weight)
    variance = least * CORRELATED / curve
    # where stretches of the spectrum disagree, the wavelength calibration is at fault (Birge 1932, Phys. Rev. 40, 207)
    parts = [part for part in (_minimum(fine, values) for values in of_bands) if part is not None]
    if len(parts) > 1:
        place, weight_of = np.array([part[0] for part in parts]), np.array([part[1] for part in parts])
        spread = weight_of @ (place - weight_of @ place / weight_of.sum()) ** 2 / (least * CORRELATED)
        variance *= max(1.0, spread / (len(parts) - 1))
    return Shift(float(vertex * PIXEL_KM_S), float(np.sqrt(variance) * PIXEL_KM_S), float(least))


def _minimum(pixels: np.ndarray, values: np.ndarray) -> tuple[float, float, float] | None:
    """Place, curvature and value of the minimum, by a parabola; None where there is none inside."""
    place = int(np.clip(np.argmin(values), 1, len(pixels) - 2))
    curve, slope, level = np.polyfit(pixels[place - 1 : place + 2] - pixels[place], values[place - 1 : place + 2], 2)
    if not curve > 0:
        return None
    vertex = float(np.clip(-slope / (2 * curve), -1.0, 1.0))
    return float(pixels[place] + vertex), float(curve), float(level - slope**2 / (4 * curve))
