"""Posterior of each label as a mixture of normal distributions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

QUANTILE_STEPS = 16


@dataclass(frozen=True)
class Mixture:
    """Mixtures of N spectra and L labels.

    Attributes
    ----------
    weights, means, sigmas
        (N, L, K) float64; the weights of a mixture add up to one.
    """

    weights: np.ndarray
    means: np.ndarray
    sigmas: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """(N, L) means."""
        return (self.weights * self.means).sum(-1)

    @property
    def sigma(self) -> np.ndarray:
        """(N, L) half widths of the central 68.3 %: for a normal distribution its sigma, and tails do not rule it."""
        return 0.5 * (self.quantile(0.8415) - self.quantile(0.1585))

    def below(self, values: np.ndarray) -> np.ndarray:
        """(N, L) probability of lying below `values` (broadcast to (N, L))."""
        from scipy.special import ndtr

        pull = (np.broadcast_to(values, self.means.shape[:2])[..., None] - self.means) / self.sigmas
        return (self.weights * ndtr(pull)).sum(-1)

    def quantile(self, probability: float) -> np.ndarray:
        """(N, L) values below which the mixture has this probability, by bisection to 1e-3 of its width or better."""
        low = (self.means - 6 * self.sigmas).min(-1)
        high = (self.means + 6 * self.sigmas).max(-1)
        for _ in range(QUANTILE_STEPS):
            middle = 0.5 * (low + high)
            under = self.below(middle) < probability
            low, high = np.where(under, middle, low), np.where(under, high, middle)
        return 0.5 * (low + high)

    def stretched(self, factor: np.ndarray, offset: np.ndarray, floor: np.ndarray) -> Mixture:
        """The mixture widened about its mean by `factor`, moved by -`offset`, folded with a normal of `floor`.

        All three are (N, L) or broadcast to it.
        """
        mean = self.mean[..., None]
        factor, offset, floor = (np.asarray(a, np.float64)[..., None] for a in (factor, offset, floor))
        means = mean + factor * (self.means - mean) - offset
        return Mixture(self.weights, means, np.hypot(factor * self.sigmas, floor))

    def log_density(self, values: np.ndarray) -> np.ndarray:
        """(N, L) natural logarithm of the density at `values` (N, L)."""
        from scipy.special import logsumexp

        pull = (values[..., None] - self.means) / self.sigmas
        return logsumexp(-0.5 * pull**2 - np.log(self.sigmas), b=self.weights, axis=-1) - 0.5 * np.log(2 * np.pi)
