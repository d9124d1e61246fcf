"""Small networks that predict principal components, evaluated with NumPy alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .labels import FloatArray

BLOCK = 128
"""Stars computed at a time. Always this many (padded), so that a star's result does not depend on
the others it is computed with: matrix products of another shape may round differently."""


@dataclass(frozen=True, slots=True)
class Head:
    """Mean spectrum, principal components and the networks that predict their coefficients.

    Attributes
    ----------
    mean, basis, scale
        (P,), (K, P) orthonormal rows, (K,) standard deviation of each coefficient.
    members
        Networks whose predictions are averaged; each a list of (weight (n_in, n_out), bias (n_out,)).
    """

    mean: FloatArray
    basis: FloatArray
    scale: FloatArray
    members: list[list[tuple[FloatArray, FloatArray]]]

    def predict(self, inputs: FloatArray) -> FloatArray:
        """Spectra (N, P) float64 for standardised inputs (N, n_in), independent of the batch."""
        spectra = np.empty((len(inputs), len(self.mean)))
        for start in range(0, len(inputs), BLOCK):
            block = inputs[start : start + BLOCK]
            padded = np.zeros((BLOCK, inputs.shape[1]))
            padded[: len(block)] = block
            coefficients = sum(_forward(layers, padded) for layers in self.members) / len(self.members)
            spectra[start : start + BLOCK] = ((coefficients * self.scale) @ self.basis + self.mean)[: len(block)]
        return spectra


def _forward(layers: list[tuple[FloatArray, FloatArray]], values: FloatArray) -> FloatArray:
    """Fully connected layers with SiLU, x / (1 + exp(-x)), between them."""
    for weight, bias in layers[:-1]:
        values = values @ weight + bias
        values = values / (1.0 + np.exp(-np.clip(values, -60.0, None)))
    weight, bias = layers[-1]
    return values @ weight + bias


def pack_head(name: str, head: Head) -> dict[str, np.ndarray]:
    """Arrays that store a head: networks in float32, the basis in float16 with a scale per row."""
    peak = np.abs(head.basis).max(axis=1)
    arrays: dict[str, np.ndarray] = {
        f"{name}_mean": head.mean.astype(np.float32),
        f"{name}_basis": (head.basis / peak[:, None]).astype(np.float16),
        f"{name}_basis_peak": peak.astype(np.float32),
        f"{name}_scale": head.scale.astype(np.float32),
        f"{name}_size": np.array([len(head.members), len(head.members[0])], dtype=np.int32),
    }
    for m, layers in enumerate(head.members):
        for i, (weight, bias) in enumerate(layers):
            arrays[f"{name}_{m}_weight_{i}"] = weight.astype(np.float32)
            arrays[f"{name}_{m}_bias_{i}"] = bias.astype(np.float32)
    return arrays


def unpack_head(name: str, arrays: Mapping[str, np.ndarray]) -> Head:
    """The head that `pack_head` stored under `name`."""
    n_members, n_layers = (int(n) for n in arrays[f"{name}_size"])

    def wide(key: str) -> FloatArray:
        return np.ascontiguousarray(arrays[key], dtype=np.float64)

    return Head(
        mean=wide(f"{name}_mean"),
        basis=wide(f"{name}_basis") * wide(f"{name}_basis_peak")[:, None],
        scale=wide(f"{name}_scale"),
        members=[
            [(wide(f"{name}_{m}_weight_{i}"), wide(f"{name}_{m}_bias_{i}")) for i in range(n_layers)]
            for m in range(n_members)
        ],
    )
