"""Weights of stars and sources as functions of metallicity."""

from __future__ import annotations

import numpy as np

REFERENCE, LOWEST = -2.0, -3.0


def depth(below: np.ndarray) -> np.ndarray:
    """Linear interpolation of metallicity from -2 (0) to -3 (1)."""
    return np.clip((REFERENCE - below) / (REFERENCE - LOWEST), 0.0, 1.0)


def inverse_density(values: np.ndarray, width: float = 0.25, cap: float = 20.0) -> np.ndarray:
    """Weight of each star, inverse to the number of stars in its bin, at most `cap` times the smallest."""
    bins = np.floor(values / width).astype(np.int64)
    if len(values) == 0:
        return np.empty(0)
    _, inverse, counts = np.unique(bins, return_inverse=True, return_counts=True)
    return np.minimum(counts.max() / counts[inverse], cap)
