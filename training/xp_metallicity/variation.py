"""Augmentation of training spectra of the XP networks with dust and noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .networks import LIMIT

# fraction of eligible spectra that is augmented, and fraction of these with extra noise
CHANGED = 0.8
NOISY = 0.6
# range of added E(B-V); a small negative value removes as much as most stars have
ADDED_EBV = (-0.08, 0.45)
# noise in units of the spectrum's errors, correlated over this many pixels
MORE_NOISE = 1.5
NOISE_PIXELS = 1.5
# pixel at 550 nm, where spectra are 1
REFERENCE_PIXEL = 107


@dataclass(frozen=True)
class Variation:
    """Effect of dust and noise on the whitened components of ln flux, in which both are additive.

    Attributes
    ----------
    dust
        (c,) shift by E(B-V) = 1.
    noise
        (N, c) standard deviation of each component from the spectrum's errors; 0 for stars that are not augmented.
    may
        (N,) bool: stars that may be augmented.
    """

    dust: np.ndarray
    noise: np.ndarray
    may: np.ndarray

    def applied(self, x: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(n, c) components of `rows` with added dust and noise for most eligible stars."""
        count = len(rows)
        changed = self.may[rows] & (rng.random(count) < CHANGED)
        reddened = np.where(changed, rng.uniform(*ADDED_EBV, count), 0.0)
        strength = np.where(changed & (rng.random(count) < NOISY), rng.uniform(0, MORE_NOISE, count), 0.0)
        moved = x + reddened[:, None] * self.dust
        moved += strength[:, None] * self.noise[rows] * rng.normal(size=x.shape)
        return np.clip(moved, -LIMIT, LIMIT).astype(np.float32)


def variation(flux: np.ndarray, error: np.ndarray, may: np.ndarray, axes: np.ndarray) -> Variation:
    """Create from (N, 343) spectra, with the package's extinction curve and correlated noise."""
    from specclip_search.simulation.spectra.reddening import xp_extinction

    extinction = np.asarray(xp_extinction())
    dust = -0.4 * np.log(10.0) * (extinction - extinction[REFERENCE_PIXEL]) @ axes
    kernel = np.exp(-0.5 * (np.arange(-4, 5) / NOISE_PIXELS) ** 2)
    kernel /= np.sqrt(np.sum(kernel**2))
    smooth = np.stack([np.convolve(row, kernel, "same") for row in np.eye(flux.shape[1])]).astype(np.float32)
    noise = np.zeros((len(may), axes.shape[1]), np.float32)
    for row in np.flatnonzero(may):
        own = np.where(np.isfinite(error[row]), error[row], 0.0)
        relative = np.clip(own / np.maximum(flux[row], 0.01), 0.0, 1.0).astype(np.float32)
        noise[row] = np.linalg.norm((axes.T * relative) @ smooth, axis=1)
    return Variation(dust, noise, may)
