"""The published preparation, one spectrum at a time and step by step: slow, and the truth the fast one is held to.

Written from the description of the SpecCLIP preprocessing (arXiv 2507.01939), both fitted ranges and
the smoothing included although only the first range reaches the model.
"""

from __future__ import annotations

import numpy as np
from numpy.polynomial import Polynomial

BALMER = ((4030.0, 4160.0), (4270.0, 4410.0), (4800.0, 4940.0))


def published_continuum(wavelength: np.ndarray, flux: np.ndarray, snr: float = 60.0) -> np.ndarray:
    """Pseudo-continuum of one spectrum.

    Parameters
    ----------
    wavelength
        (P,) Angstrom, increasing.
    flux
        (P,) raw flux.
    snr
        Signal to noise that sets the smoothing; the models were trained with 60, which smooths nothing.

    Returns
    -------
    ndarray
        (P,) float64, values at or below zero replaced by 1.
    """
    from scipy.signal import medfilt

    filtered = medfilt(flux.astype(np.float64), 7)
    result = filtered.copy()
    first, second = (wavelength >= 3700) & (wavelength <= 5700), wavelength > 6100
    if first.sum() > 100:
        result[first] = _blue_continuum(wavelength, filtered[first], first, snr)
    if second.sum() > 100:
        result[second] = _red_continuum(wavelength[second], filtered[second], snr)
    result[result <= 0] = 1.0
    return result


def published_lrs_input(wavelength: np.ndarray, flux: np.ndarray) -> np.ndarray:
    """(1462,) the model's input from one raw spectrum, by the published steps."""
    from scipy.interpolate import interp1d

    normalised = flux / published_continuum(wavelength, flux)
    grid = np.linspace(3.602, 3.602 + 1461e-4, 1462)
    return interp1d(np.log10(wavelength), normalised, kind="linear", bounds_error=True)(grid)


def _smoothed(flux: np.ndarray, snr: float) -> np.ndarray:
    from scipy.signal import savgol_filter

    if snr >= 50:
        return savgol_filter(flux, 3, 2, mode="nearest")
    window = int(55 - snr)
    window = max(3, window + (window % 2 == 0))
    return savgol_filter(flux, window, 4, mode="nearest")


def _fit(wavelength: np.ndarray, flux: np.ndarray, degree: int) -> np.ndarray:
    return np.polyval(np.polyfit(wavelength, flux, degree), wavelength)


def _blue_continuum(wavelength: np.ndarray, filtered: np.ndarray, first: np.ndarray, snr: float) -> np.ndarray:
    inner = wavelength[first]
    target = filtered.copy()
    if inner[np.argmax(_fit(inner, _smoothed(filtered, snr), 5))] < 4500:
        _bridge(wavelength, target)
    for _ in range(10):
        target = np.maximum(_fit(inner, target, 5), target)
    return _fit(inner, target, 5)


def _bridge(wavelength: np.ndarray, target: np.ndarray) -> None:
    """Straight lines over the Balmer lines; positions are those of the whole spectrum, as published."""
    def height(edge: float) -> float:
        return float(target[np.flatnonzero(np.abs(wavelength - edge) <= 10)].max())

    heights = [(height(low), height(high)) for low, high in BALMER]
    for (low, high), (left, right) in zip(BALMER, heights, strict=True):
        inside = np.flatnonzero((wavelength >= low) & (wavelength <= high))
        target[inside] = Polynomial.fit([low, high], [left, right], 1)(wavelength[inside])


def _red_continuum(wavelength: np.ndarray, filtered: np.ndarray, snr: float) -> np.ndarray:
    target = _smoothed(filtered, snr)
    fit = target
    for _ in range(9):
        fit = _fit(wavelength, target, 4)
        spread = np.std(target - fit)
        replaced = (target < fit) | (target > fit + 3 * spread)
        target = np.where(replaced, fit, target)
    return fit
