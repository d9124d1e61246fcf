"""The network from a shared vector to a mixture of normal distributions of each label.

The mixture is the posterior of each label.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

QUANTILE_STEPS = 16


@dataclass(frozen=True)
class Mixture:
    """Mixtures of N spectra and L labels.

    Attributes
    ----------
    weights, means, sigmas
        (N, L, K) float64; the weights of a mixture sum to one.
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
        """(N, L) half widths of the central 68.3 %: sigma for a normal distribution."""
        return 0.5 * (self.quantile(0.8415) - self.quantile(0.1585))

    def below(self, values: np.ndarray) -> np.ndarray:
        """(N, L) probability of being below `values` (broadcast to (N, L))."""
        from scipy.special import ndtr

        pull = (np.broadcast_to(values, self.means.shape[:2])[..., None] - self.means) / self.sigmas
        return (self.weights * ndtr(pull)).sum(-1)

    def quantile(self, probability: float) -> np.ndarray:
        """(N, L) quantiles of the mixture at this probability, by bisection to 1e-3 of its width or better."""
        low = (self.means - 6 * self.sigmas).min(-1)
        high = (self.means + 6 * self.sigmas).max(-1)
        for _ in range(QUANTILE_STEPS):
            middle = 0.5 * (low + high)
            under = self.below(middle) < probability
            low, high = np.where(under, middle, low), np.where(under, high, middle)
        return 0.5 * (low + high)

    def stretched(self, factor: np.ndarray, offset: np.ndarray, floor: np.ndarray) -> Mixture:
        """The mixture widened about its mean by `factor`, shifted by -`offset`, convolved with a normal of `floor`.

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


MIN_LOG_SIGMA, MAX_LOG_SIGMA = -5.0, 3.0
BATCH = 4096
MAX_COORDINATE = 4.0
"""In standard deviations of the training stars."""


@dataclass(frozen=True)
class EstimatorSizes:
    """Sizes of an instrument's estimator."""

    dim: int
    """Length of the shared vector."""
    axes: int
    """Number of principal axes the vector is projected on."""
    hidden: int
    """Width of the two hidden layers."""
    components: int
    """Number of normal distributions per label."""
    labels: int
    """Number of labels."""
    members: int
    """Number of networks, whose mixtures are averaged."""


class MixtureNetwork(nn.Module):
    """Two hidden layers; a label's output is K log weights, K means, K log sigmas, in standardised units."""

    def __init__(self, sizes: EstimatorSizes, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = (sizes.labels, 3, sizes.components)
        self.layers = nn.Sequential(
            nn.Linear(sizes.axes, sizes.hidden), nn.SiLU(), nn.Dropout(dropout),
            nn.Linear(sizes.hidden, sizes.hidden), nn.SiLU(), nn.Dropout(dropout),
            nn.Linear(sizes.hidden, sizes.labels * 3 * sizes.components))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, axes) coordinates to log weights, means and log sigmas, each (B, labels, K)."""
        weights, means, sigmas = self.layers(x).view(len(x), *self.shape).unbind(2)
        return torch.log_softmax(weights, -1), means, sigmas.clamp(MIN_LOG_SIGMA, MAX_LOG_SIGMA)

    def loss(self, x: Tensor, target: Tensor) -> Tensor:
        """(B, labels) negative log density of `target` up to a constant; NaN targets contribute zero."""
        known = torch.isfinite(target)
        weights, means, sigmas = self(x)
        pull = (torch.where(known, target, 0.0)[..., None] - means) * torch.exp(-sigmas)
        return torch.where(known, -torch.logsumexp(weights - 0.5 * pull.square() - sigmas, -1), 0.0)


class EstimatorModule(nn.Module):
    """Map from unit vectors to standardised mixtures: projection, whitening, networks.

    The projection is rounded to float16 before training: whitening divides by spreads down to
    a thousandth of that of the first axis, so later rounding of the axes would be too inaccurate.
    """

    def __init__(self, sizes: EstimatorSizes, dropout: float = 0.0) -> None:
        super().__init__()
        self.sizes = sizes
        self.register_buffer("center", torch.zeros(sizes.dim))
        self.register_buffer("project", torch.zeros(sizes.axes, sizes.dim, dtype=torch.float16))
        self.register_buffer("axis_mean", torch.zeros(sizes.axes))
        self.register_buffer("axis_std", torch.ones(sizes.axes))
        self.members = nn.ModuleList(MixtureNetwork(sizes, dropout) for _ in range(sizes.members))

    def set_projection(self, vectors: np.ndarray) -> None:
        """Principal axes of `vectors` (N, dim), the first `sizes.axes`."""
        center = vectors.mean(0, dtype=np.float64)
        _, axes = np.linalg.eigh(np.cov(vectors - center, rowvar=False))
        self.center.copy_(torch.from_numpy(center))  # type: ignore[operator]
        self.project.copy_(torch.from_numpy(axes[:, ::-1][:, : self.sizes.axes].T.copy()))  # type: ignore[operator]
        raw = self._raw(torch.from_numpy(np.ascontiguousarray(vectors, np.float32)))
        self.axis_mean.copy_(raw.mean(0))  # type: ignore[operator]
        self.axis_std.copy_(raw.std(0).clamp_min(1e-6))  # type: ignore[operator]

    def _raw(self, vectors: Tensor) -> Tensor:
        return (vectors - self.center) @ self.project.float().T  # type: ignore[operator]

    def coordinates(self, vectors: Tensor) -> Tensor:
        """(N, axes) whitened coordinates, with mean 0 and variance 1 over the training stars."""
        return (self._raw(vectors) - self.axis_mean) / self.axis_std  # type: ignore[operator]

    def seen(self, coordinates: Tensor) -> Tensor:
        """Coordinates as network inputs, clipped to the range of the training stars."""
        return coordinates.clamp(-MAX_COORDINATE, MAX_COORDINATE)

    @torch.inference_mode()
    def run(self, vectors: np.ndarray) -> tuple[np.ndarray, Mixture]:
        """Coordinates (N, axes) and the averaged mixtures of unit vectors (N, dim)."""
        self.eval()
        parts = []
        for start in range(0, max(len(vectors), 1), BATCH):
            block = np.ascontiguousarray(vectors[start : start + BATCH], np.float32)
            x = self.coordinates(torch.from_numpy(block))
            outputs = [member(self.seen(x)) for member in self.members]
            pooled = [torch.cat([output[i] for output in outputs], dim=-1) for i in range(3)]
            parts.append((x, *pooled))
        columns: list[np.ndarray] = [torch.cat(column).double().numpy() for column in zip(*parts, strict=True)]
        coordinates, weights, means, sigmas = columns
        return coordinates, Mixture(np.exp(weights) / self.sizes.members, means, np.exp(sigmas))
