"""How much stars and sources count by metallicity."""

from __future__ import annotations

import numpy as np

REFERENCE, LOWEST = -2.0, -3.0


def depth(below: np.ndarray) -> np.ndarray:
    """How far a metallicity lies on the way from -2 (0) to -3 (1)."""
    return np.clip((REFERENCE - below) / (REFERENCE - LOWEST), 0.0, 1.0)


def inverse_density(values: np.ndarray, width: float = 0.25, cap: float = 20.0) -> np.ndarray:
    """Weight of each star against the number of stars within its bin, at most `cap` times the commonest's."""
    bins = np.floor(values / width).astype(np.int64)
    if len(values) == 0:
        return np.empty(0)
    _, inverse, counts = np.unique(bins, return_inverse=True, return_counts=True)
    return np.minimum(counts.max() / counts[inverse], cap)
