"""From robust z of many quantities to one calibrated score a pair."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from specclip_search.keys import ACCEPTANCE_SPLIT, VALIDATION_SPLIT, split_of

from .calibration import benjamini_hochberg, calibrate, surprise

MIN_REFERENCE = 200
# a pair this far out in any quantity is no reference for normal ones
EXTREME_Z = 6.0
MAX_EXCLUDED = 0.10


@dataclass(frozen=True, slots=True)
class Scores:
    """Score, p-value and q-value of every pair, and the parts of the score.

    Attributes
    ----------
    parts
        (N, m) -log10 p of each quantity, at most 12.
    reference
        ``validation``, or ``all but acceptance`` where there were too few validation stars.
    reference_stars
        Number of pairs the p-values are ranked against.
    """

    score: np.ndarray
    p_value: np.ndarray
    q_value: np.ndarray
    parts: np.ndarray
    reference: str
    reference_stars: int


def score_pairs(z: np.ndarray, source_id: np.ndarray, weights: np.ndarray) -> Scores:
    """Combine robust z into one score, sum of weight x -log10 p, and calibrate it by ranks.

    The sum of -log p is Fisher's combination (1932); because the quantities depend on each
    other its own law is not used: the score's p-value comes from its rank among reference stars.

    Parameters
    ----------
    z
        (N, m) robust z, large where odd.
    source_id
        (N,) Gaia source_id, from which the split follows.
    weights
        (m,) weight of each quantity.
    """
    reference, label = reference_pairs(z, source_id)
    parts = np.column_stack([surprise(z[:, j], z[reference, j]) for j in range(z.shape[1])])
    score = parts @ weights
    p_value = calibrate(score[reference]).p_value(score)
    return Scores(score, p_value, benjamini_hochberg(p_value), parts, label, int(reference.sum()))


def reference_pairs(z: np.ndarray, source_id: np.ndarray) -> tuple[np.ndarray, str]:
    """(N,) bool: validation pairs without the far-out ones, and what they are called."""
    split = split_of(source_id)
    chosen, label = split == VALIDATION_SPLIT, "validation"
    if chosen.sum() < MIN_REFERENCE:
        chosen, label = split != ACCEPTANCE_SPLIT, "all but acceptance"
    if not chosen.any():
        chosen, label = np.ones(len(z), dtype=bool), "all"
    largest = z.max(axis=1)
    limit = max(EXTREME_Z, float(np.quantile(largest[chosen], 1 - MAX_EXCLUDED)))
    return chosen & (largest <= limit), label
