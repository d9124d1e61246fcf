"""Augmentation of training spectra: noise, velocity shifts, slopes, masked pixels.

Pure array functions; all random numbers come from the given generator.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from specclip_search.constants import C_KM_S
from specclip_search.surveys import LRS, XP

LRS_LOG_STEP = 1e-4
XP_REFERENCE = 107
# number of knots over the LRS input, 320, 18 and 4 A apart, and their fraction of the errors
STRENGTH_SCALES = {6: 0.4, 90: 0.5, 365: 0.8}


@dataclass(frozen=True)
class Augmentation:
    """Table `[augment]` of a recipe; a value of zero disables a part."""

    probability: float = 0.5
    """Probability of each augmentation per spectrum."""
    noise: float = 0.0
    """Largest extra noise in units of the spectrum's own errors."""
    rv_kms: float = 0.0
    """Standard deviation of an extra radial velocity of LRS spectra, km/s."""
    line_strength: float = 0.0
    """Standard deviation of ln of the factor applied to LRS line depths; see `scale_lines`."""
    xp_tilt: float = 0.0
    """Standard deviation of a slope of XP spectra over the band, zero at 550 nm."""
    mask_pixels: int = 0
    """Longest run of LRS pixels replaced by a straight line."""


def augment(modality: str, flux: np.ndarray, error: np.ndarray | None, settings: Augmentation,
            rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Augmented inputs for (B, n) spectra, and their targets.

    Velocity and slope are properties of the star, so input and target share them. Noise, masked pixels
    and wrong line strengths are properties of the observation and the models, so only the input has them.

    Parameters
    ----------
    error
        (B, n) 1 sigma, inf for pixels without information; if not given, no noise is added.

    Returns
    -------
    input, target
        (B, n) float32 each.
    """
    target = flux
    if modality == LRS and settings.rv_kms:
        target = shift_velocity(flux, rng.normal(0.0, settings.rv_kms, len(flux)) * _chosen(flux, settings, rng))
    if modality == XP and settings.xp_tilt:
        target = tilt(flux, rng.normal(0.0, settings.xp_tilt, len(flux)) * _chosen(flux, settings, rng))
    seen = target
    if modality == LRS and settings.line_strength:
        seen = scale_lines(seen, settings, rng)
    seen = seen if error is None or not settings.noise else add_noise(seen, error, settings, rng)
    if modality == LRS and settings.mask_pixels:
        seen = bridge_pixels(seen, settings, rng)
    return seen.astype(np.float32, copy=False), target.astype(np.float32, copy=False)


def tilt(flux: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """(B, 343) XP inputs times exp(slope * x), x = 0 at 550 nm and growing by 1 over the band."""
    axis = (np.arange(flux.shape[1]) - XP_REFERENCE) / flux.shape[1]
    return flux * np.exp(slope[:, None] * axis)


def shift_velocity(flux: np.ndarray, velocity: np.ndarray) -> np.ndarray:
    """Shift spectra on the log-wavelength LRS grid in velocity, by linear interpolation.

    Parameters
    ----------
    flux
        (B, n).
    velocity
        (B,) km/s, positive for redshift. Edge pixels are repeated.
    """
    size = flux.shape[1]
    pixels = np.log10(1.0 + velocity / C_KM_S) / LRS_LOG_STEP
    position = np.clip(np.arange(size) - pixels[:, None], 0, size - 1)
    low = np.minimum(position.astype(np.int64), size - 2)
    part = (position - low).astype(flux.dtype)
    left = np.take_along_axis(flux, low, axis=1)
    return left + part * (np.take_along_axis(flux, low + 1, axis=1) - left)


def scale_lines(flux: np.ndarray, settings: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """Scale line depths of continuum-normalised flux by smooth random factors on three length scales.

    Model spectra have errors in the depth of whole regions (scattered light, missing opacity) and of
    single lines (transition strengths); a model trained with such errors does not rely on single lines.
    """
    change = np.zeros(flux.shape, np.float32)
    for knots, share in STRENGTH_SCALES.items():
        change += share * _smooth_field(len(flux), flux.shape[1], knots, rng)
    factor = np.exp(settings.line_strength * change * _chosen(flux, settings, rng)[:, None])
    return 1.0 - (1.0 - flux) * factor.astype(np.float32)


def _smooth_field(rows: int, size: int, knots: int, rng: np.random.Generator) -> np.ndarray:
    """(rows, size) float32: normal random numbers at evenly spaced knots, interpolated smoothly."""
    values = rng.standard_normal((rows, knots), dtype=np.float32)
    place = np.linspace(0, knots - 1, size)
    left = np.minimum(place.astype(np.int64), knots - 2)
    part = (place - left).astype(np.float32)
    part = part * part * (3 - 2 * part)
    return values[:, left] * (1 - part) + values[:, left + 1] * part


def add_noise(flux: np.ndarray, error: np.ndarray, settings: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """Noise of up to `noise` times each pixel's own error; none if the error is not finite."""
    factor = rng.uniform(0.0, settings.noise, len(flux)) * _chosen(flux, settings, rng)
    sigma = np.where(np.isfinite(error), error, 0.0).astype(np.float32) * factor[:, None].astype(np.float32)
    return flux + sigma * rng.standard_normal(flux.shape, dtype=np.float32)


def bridge_pixels(flux: np.ndarray, settings: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """Replace one run of pixels by linear interpolation, like repaired pixels."""
    rows, size = flux.shape
    width = rng.integers(1, settings.mask_pixels + 1, (rows, 1))
    start = rng.integers(1, size - settings.mask_pixels - 1, (rows, 1))
    index = np.arange(size)
    inside = (index >= start) & (index < start + width) & _chosen(flux, settings, rng)[:, None]
    left = np.take_along_axis(flux, start - 1, axis=1)
    right = np.take_along_axis(flux, start + width, axis=1)
    line = left + (right - left) * ((index - start + 1) / (width + 1)).astype(flux.dtype)
    return np.where(inside, line, flux)


def _chosen(flux: np.ndarray, settings: Augmentation, rng: np.random.Generator) -> np.ndarray:
    return rng.random(len(flux)) < settings.probability
