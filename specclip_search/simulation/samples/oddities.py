"""Classes of simulated anomalies, and their effect on a star's light or on the raw LAMOST spectrum.

Astrophysical anomalies change the light seen by both instruments; instrumental ones change one
LAMOST spectrum; a wrong cross-match combines two stars under one id. The shapes are simple
approximations with realistic position, width and strength, sufficient to test the searches.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...constants import C_KM_S
from ..spectra.labels import FloatArray
from ..spectra.spectrograph import WAVELENGTH, RawLrs, noise_curves

ASTROPHYSICAL, INSTRUMENTAL, IDENTITY = "astrophysical", "instrumental", "identity"
ODDITIES: dict[str, str] = {
    "carbon_enhanced": ASTROPHYSICAL,
    "carbon_star": ASTROPHYSICAL,
    "double_lined": ASTROPHYSICAL,
    "emission": ASTROPHYSICAL,
    "white_dwarf_m_dwarf": ASTROPHYSICAL,
    "hot_subdwarf": ASTROPHYSICAL,
    "s_process": ASTROPHYSICAL,
    "strong_alpha": ASTROPHYSICAL,
    "cosmic_rays": INSTRUMENTAL,
    "dead_columns": INSTRUMENTAL,
    "sky_residual": INSTRUMENTAL,
    "flux_calibration": INSTRUMENTAL,
    "bad_join": INSTRUMENTAL,
    "wavelength_shift": INSTRUMENTAL,
    "saturated": INSTRUMENTAL,
    "wrong_match": IDENTITY,
}
REPLACED = ("white_dwarf_m_dwarf", "hot_subdwarf")
"""Classes that are not described by stellar labels: their true labels are null."""
# vacuum Angstrom, NIST Atomic Spectra Database
BALMER = (3971.20, 4102.89, 4341.68, 4862.68, 6564.61)
S_PROCESS = (4078.86, 4216.74, 4555.30, 4935.45, 6143.41, 6498.74)
ALPHA_LINES = (3934.78, 3969.59, 4227.92, 5168.76, 5174.13, 5185.05)
HELIUM = (4027.3, 4472.7, 4687.0, 4923.3, 5017.1, 5877.2)
C2_HEADS = (4383.0, 4738.0, 5166.6, 5637.0, 6193.0)  # Swan system, degraded to the violet
CN_HEADS = (6927.0, 7876.0, 9150.0, 10880.0)
TIO_HEADS = (4763.0, 4956.0, 5168.0, 5450.0, 5849.0, 6160.0, 6653.0, 7056.0, 7592.0, 8434.0)  # to the red
LINE_SIGMA_A = 1.3


def changed_light(
    name: str, wavelength: FloatArray, flux: FloatArray, strength: FloatArray, bin_a: float
) -> FloatArray:
    """Light (P,) of one star with an astrophysical anomaly; other classes leave it unchanged.

    Parameters
    ----------
    wavelength
        (P,) Angstrom, vacuum, evenly spaced linearly or in logarithm.
    flux
        (P,) of the star without the anomaly, any unit.
    strength
        (4,) numbers between 0 and 1 that set the anomaly's parameters.
    bin_a
        Pixel width if pixels are much wider than a line, Angstrom; lines are averaged over it.
    """
    change = _LIGHT.get(name)
    return flux if change is None else change(wavelength, flux, strength, bin_a)


def _lines(
    wavelength: FloatArray, centres: tuple[float, ...], width_a: FloatArray | float, sigma: float, bin_a: float
) -> FloatArray:
    """Sum of Gaussians of equivalent width `width_a` [A] each, averaged over bins where these are wide."""
    from scipy.special import ndtr

    offset = wavelength[:, None] - np.array(centres)
    if bin_a > 0:
        profile = (ndtr((offset + bin_a / 2) / sigma) - ndtr((offset - bin_a / 2) / sigma)) / bin_a
    else:
        profile = np.exp(-0.5 * (offset / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    return np.asarray((profile * width_a).sum(axis=1))


def _bands(wavelength: FloatArray, heads: tuple[float, ...], depth: float, length_a: float, side: int) -> FloatArray:
    """Transmission of molecular bands with sharp heads, fading over `length_a` to the blue (-1) or red (1)."""
    beyond = side * (wavelength[:, None] - np.array(heads))
    return np.asarray(np.exp(-(depth * np.where(beyond >= 0, np.exp(-np.abs(beyond) / length_a), 0.0)).sum(axis=1)))


def _planck(wavelength: FloatArray, teff: float) -> FloatArray:
    """Blackbody flux per unit wavelength, 1 at 5500 A."""
    shape = wavelength**-5.0 / np.expm1(1.438777e8 / (wavelength * teff))
    return shape / (5500.0**-5.0 / np.expm1(1.438777e8 / (5500.0 * teff)))


def _broad(wavelength: FloatArray, centres: tuple[float, ...], depth: float, width_a: float) -> FloatArray:
    """Transmission of pressure-broadened lines."""
    offset = (wavelength[:, None] - np.array(centres)) / width_a
    return np.asarray((1.0 - depth / (1.0 + np.abs(offset) ** 2.5)).prod(axis=1))


def _carbon_star(wavelength: FloatArray, flux: FloatArray, strength: FloatArray, bin_a: float) -> FloatArray:
    bands = _bands(wavelength, C2_HEADS, 0.4 + 0.8 * strength[0], 120.0, -1)
    return flux * bands * _bands(wavelength, CN_HEADS, 0.2 + 0.4 * strength[1], 200.0, 1)


def _double_lined(wavelength: FloatArray, flux: FloatArray, strength: FloatArray, bin_a: float) -> FloatArray:
    speed = (120.0 + 180.0 * strength[0]) * (1 if strength[1] < 0.5 else -1)
    moved = np.interp(wavelength, wavelength * (1.0 + speed / C_KM_S), flux)
    share = 0.5 + 0.5 * strength[2]
    return (flux + share * moved) / (1.0 + share)


def _emission(wavelength: FloatArray, flux: FloatArray, strength: FloatArray, bin_a: float) -> FloatArray:
    h_alpha = 5.0 * 10.0 ** (1.2 * strength[0])
    width = np.array([0.02, 0.04, 0.08, 0.2, 1.0]) * h_alpha
    return flux * (1.0 + _lines(wavelength, BALMER, width, 2.0 + 3.0 * strength[1], bin_a))


def _white_dwarf_m_dwarf(wavelength: FloatArray, flux: FloatArray, strength: FloatArray, bin_a: float) -> FloatArray:
    dwarf = _planck(wavelength, 10000.0 + 15000.0 * strength[0])
    dwarf = dwarf * _broad(wavelength, BALMER, 0.5, 25.0 + 25.0 * strength[1])
    cool = _planck(wavelength, 3300.0) * _bands(wavelength, TIO_HEADS, 0.6, 130.0, 1)
    return float(np.median(flux)) * (dwarf + (0.3 + strength[2]) * cool)


def _hot_subdwarf(wavelength: FloatArray, flux: FloatArray, strength: FloatArray, bin_a: float) -> FloatArray:
    hot = _planck(wavelength, 25000.0 + 15000.0 * strength[0]) * _broad(wavelength, BALMER, 0.4, 12.0)
    helium = _lines(wavelength, HELIUM, 0.5 + 2.0 * strength[1], 2.5, bin_a)
    return float(np.median(flux)) * hot * np.exp(-helium)


def _s_process(wavelength: FloatArray, flux: FloatArray, strength: FloatArray, bin_a: float) -> FloatArray:
    return flux * np.exp(-_lines(wavelength, S_PROCESS, 0.5 + 1.0 * strength[0], LINE_SIGMA_A, bin_a))


def _strong_alpha(wavelength: FloatArray, flux: FloatArray, strength: FloatArray, bin_a: float) -> FloatArray:
    return flux * np.exp(-_lines(wavelength, ALPHA_LINES, 0.5 + 1.5 * strength[0], 2.0, bin_a))


_LIGHT: dict[str, Callable[[FloatArray, FloatArray, FloatArray, float], FloatArray]] = {
    "carbon_star": _carbon_star,
    "double_lined": _double_lined,
    "emission": _emission,
    "white_dwarf_m_dwarf": _white_dwarf_m_dwarf,
    "hot_subdwarf": _hot_subdwarf,
    "s_process": _s_process,
    "strong_alpha": _strong_alpha,
}


def spoil(name: str, raw: RawLrs, row: int, rng: np.random.Generator) -> None:
    """Apply an instrumental anomaly to one raw spectrum, in place; its inverse variance is not changed."""
    change = _FAULTS.get(name)
    if change is not None:
        raw.flux[row] = change(raw.flux[row].astype(np.float64), raw.ivar[row], rng)


def _cosmic_rays(flux: FloatArray, ivar: np.ndarray, rng: np.random.Generator) -> FloatArray:
    for place in rng.integers(0, len(flux) - 3, int(rng.integers(25, 60))):
        flux[place : place + int(rng.integers(1, 4))] += np.median(flux) * rng.uniform(0.3, 2.0)
    return flux


def _dead_columns(flux: FloatArray, ivar: np.ndarray, rng: np.random.Generator) -> FloatArray:
    window = np.flatnonzero((WAVELENGTH > 3950) & (WAVELENGTH < 5650))
    for place in rng.choice(window[:-80], int(rng.integers(1, 4))):
        flux[place : place + int(rng.integers(10, 60))] *= rng.uniform(0.0, 0.3)
    return flux


def _sky_residual(flux: FloatArray, ivar: np.ndarray, rng: np.random.Generator) -> FloatArray:
    lines = noise_curves().sky_line
    return flux + np.where(lines, np.median(np.abs(flux)) * rng.choice([-1, 1]) * rng.uniform(0.3, 1.0), 0.0)


def _flux_calibration(flux: FloatArray, ivar: np.ndarray, rng: np.random.Generator) -> FloatArray:
    terms = np.concatenate([[0.0], rng.normal(0.0, 0.2, 12)])
    return flux * np.exp(np.polynomial.chebyshev.chebval(np.linspace(-1, 1, len(flux)), terms))


def _bad_join(flux: FloatArray, ivar: np.ndarray, rng: np.random.Generator) -> FloatArray:
    return np.where(WAVELENGTH > 5900.0, flux * np.exp(rng.choice([-1, 1]) * rng.uniform(0.2, 0.7)), flux)


def _wavelength_shift(flux: FloatArray, ivar: np.ndarray, rng: np.random.Generator) -> FloatArray:
    shift = float(rng.choice([-1, 1]) * rng.uniform(5.0, 20.0))
    return np.interp(np.arange(len(flux)) - shift, np.arange(len(flux)), flux)


def _saturated(flux: FloatArray, ivar: np.ndarray, rng: np.random.Generator) -> FloatArray:
    inside = (WAVELENGTH > 4000) & (WAVELENGTH < 5600)
    return np.minimum(flux, np.quantile(flux[inside], rng.uniform(0.15, 0.5)))


_FAULTS: dict[str, Callable[[FloatArray, np.ndarray, np.random.Generator], FloatArray]] = {
    "cosmic_rays": _cosmic_rays,
    "dead_columns": _dead_columns,
    "sky_residual": _sky_residual,
    "flux_calibration": _flux_calibration,
    "bad_join": _bad_join,
    "wavelength_shift": _wavelength_shift,
    "saturated": _saturated,
}
