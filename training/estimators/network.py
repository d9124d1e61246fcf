"""The network from a shared vector to a mixture of normal distributions of each label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .estimators_mixture import Mixture

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
    """Principal axes the vector is projected on."""
    hidden: int
    """Width of the two hidden layers."""
    components: int
    """Normal distributions a label."""
    labels: int
    """Number of labels."""
    members: int
    """Networks, whose mixtures are pooled."""


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
        """(B, labels) negative log density of `target` up to a constant; NaN targets count as nothing."""
        known = torch.isfinite(target)
        weights, means, sigmas = self(x)
        pull = (torch.where(known, target, 0.0)[..., None] - means) * torch.exp(-sigmas)
        return torch.where(known, -torch.logsumexp(weights - 0.5 * pull.square() - sigmas, -1), 0.0)


class EstimatorModule(nn.Module):
    """Everything between unit vectors and standardised mixtures: projection, whitening, the networks.

    The projection's numbers are float16 ones from the start: whitening divides by spreads down to
    a thousandth of the first axis's, which axes rounded afterwards would not bear.
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
        """(N, axes) whitened coordinates: of mean 0 and variance 1 over the training stars."""
        return (self._raw(vectors) - self.axis_mean) / self.axis_std  # type: ignore[operator]

    def seen(self, coordinates: Tensor) -> Tensor:
        """Coordinates as the networks see them: what no training star has is held at the edge of what they have."""
        return coordinates.clamp(-MAX_COORDINATE, MAX_COORDINATE)

    @torch.inference_mode()
    def run(self, vectors: np.ndarray) -> tuple[np.ndarray, Mixture]:
        """Coordinates (N, axes) and the pooled mixtures of unit vectors (N, dim)."""
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
