"""Nuisance shapes of a star's residual: dust, velocity, slope and curvature of the continuum."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from specclip_search.constants import C_KM_S

R_V = 3.1
PIVOT_NM = 550.0
MAG_TO_LN = 0.4 * np.log(10.0)
# 1 sigma prior of each amplitude, relative to the prediction
EBV_SIGMA = 0.5
RV_SIGMA_KM_S = 200.0
BEND_SIGMA = 0.03
LRS_BENDS, XP_BENDS = 4, 2
# extra noise per pixel when amplitudes are measured individually
ROUGH = 0.02


@lru_cache(maxsize=4)
def _extinction(first_nm: float, last_nm: float, points: int) -> np.ndarray:
    x = 1000.0 / np.linspace(first_nm, last_nm, points)
    y = x - 1.82
    a = np.polynomial.polynomial.polyval(
        y, (1.0, 0.17699, -0.50447, -0.02427, 0.72085, 0.01979, -0.77530, 0.32999)
    )
    b = np.polynomial.polynomial.polyval(
        y, (0.0, 1.41338, 2.28305, 1.07233, -5.38434, -0.62251, 5.30260, -2.09002)
    )
    infrared = x < 1.1
    a = np.where(infrared, 0.574 * x**1.61, a)
    b = np.where(infrared, -0.527 * x**1.61, b)
    return np.asarray(R_V * (a + b / R_V))


def extinction(wavelength_nm: np.ndarray) -> np.ndarray:
    """(n,) extinction [mag] for E(B-V) = 1 on an even grid: Cardelli, Clayton & Mathis 1989, R_V = 3.1."""
    return _extinction(float(wavelength_nm[0]), float(wavelength_nm[-1]), len(wavelength_nm))


def dust_shape(predicted: np.ndarray, wavelength_nm: np.ndarray) -> np.ndarray:
    """(N, n) change of XP spectra, divided by their flux at 550 nm, for one magnitude of E(B-V), first order.

    f -> f 10^(-0.4 E (k(l) - k(550 nm))), so df/dE = -0.4 ln 10 (k(l) - k(550 nm)) f.
    """
    curve = extinction(wavelength_nm)
    return -MAG_TO_LN * (curve - np.interp(PIVOT_NM, wavelength_nm, curve)) * predicted


def velocity_shape(predicted: np.ndarray, wavelength: np.ndarray) -> np.ndarray:
    """(N, n) change of spectra for 1 km/s, first order: -df/dln(l) / c."""
    return np.asarray(-np.gradient(predicted, np.log(wavelength), axis=1) / C_KM_S)


def amplitude(residual: np.ndarray, noise: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """(N,) least-squares amplitude of a shape in residuals; 0 without information."""
    good = np.isfinite(noise)
    weight = np.where(good, 1.0 / (np.where(good, noise, 1.0) ** 2 + ROUGH**2), 0.0)
    total = (weight * shape**2).sum(axis=1)
    along = (weight * shape * np.where(good, residual, 0.0)).sum(axis=1)
    return np.where(total > 0, along / np.maximum(total, 1e-12), 0.0)


def _bends(predicted: np.ndarray, wavelength: np.ndarray, count: int) -> list[np.ndarray]:
    """Smooth factors of the flux: Chebyshev polynomials of order 1 to `count`."""
    t = np.linspace(-1.0, 1.0, len(wavelength))
    return [
        BEND_SIGMA * np.polynomial.chebyshev.chebval(t, np.eye(count + 1)[order]) * predicted
        for order in range(1, count + 1)
    ]


def lrs_shapes(predicted: np.ndarray, wavelength: np.ndarray) -> np.ndarray:
    """(N, e, n): velocity to second order, which XP does not constrain, and continuum polynomials."""
    first = RV_SIGMA_KM_S * velocity_shape(predicted, wavelength)
    second = 0.5 * RV_SIGMA_KM_S * velocity_shape(first, wavelength)
    return np.stack([first, second, *_bends(predicted, wavelength, LRS_BENDS)], axis=1)


def xp_shapes(predicted: np.ndarray, wavelength_nm: np.ndarray) -> np.ndarray:
    """(N, e, n): dust, which a normalised LRS spectrum does not constrain, and continuum polynomials."""
    return np.stack(
        [EBV_SIGMA * dust_shape(predicted, wavelength_nm), *_bends(predicted, wavelength_nm, XP_BENDS)], axis=1
    )
