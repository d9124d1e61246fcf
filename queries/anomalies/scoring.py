"""Combine robust z of many quantities into one calibrated score per pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..statistics.learning_stars import first_visits, in_learning_half, pairs_in_half
from ..statistics.p_values import benjamini_hochberg, calibrate, surprise
from ..statistics.tail_shape import TailModel

MIN_REFERENCE = 150
# a pair this extreme in any quantity is excluded from the reference
EXTREME_Z = 10.0
MAX_EXCLUDED = 0.10
REFERENCE_FOLDS = 10
POWER = 4.0
# the tail from the atlas's own stars is uncertain, so the tail model may give this much more
OWN_SHARE = 2.0
BLOCK_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class Scores:
    """Score, p-value and q-value of every pair, and the components of the score.

    Attributes
    ----------
    parts
        (N, m) -log10 p of each quantity, at most 30.
    reference
        ``validation``, or ``all but acceptance`` if there were too few validation stars.
    reference_stars
        Number of reference pairs for the p-values.
    """

    score: np.ndarray
    p_value: np.ndarray
    q_value: np.ndarray
    parts: np.ndarray
    reference: str
    reference_stars: int


def score_pairs(
    z: np.ndarray, source_id: np.ndarray, weights: np.ndarray, tails: Sequence[TailModel | None] | None = None
) -> Scores:
    """Combine robust z into one score, (sum of weight x (-log10 p)^4)^(1/4), and calibrate it by ranks.

    A high power is used because most anomalies show in one or two quantities: a plain sum of -log p
    (Fisher's method) loses them in the noise of the others. The quantities are not independent, so the
    p-value of the score comes from its rank among reference stars.

    Parameters
    ----------
    z
        (N, m) robust z, large for anomalies.
    source_id
        (N,) Gaia source_id, which determines the split.
    weights
        (m,) weight of each quantity.
    tails
        Tail model of each quantity; None to use the reference stars alone.
    """
    reference, label = reference_pairs(z, source_id)
    parts = _parts(z, reference, tails)
    score = combined(parts, weights)
    members = np.flatnonzero(reference)
    p_value = calibrate(score[members]).p_value(score)
    return Scores(score, p_value, benjamini_hochberg(p_value), parts, label, len(members))


def calibrated(score: np.ndarray, z: np.ndarray, source_id: np.ndarray) -> Scores:
    """A score (N,) made otherwise, calibrated against the reference stars that `score_pairs` uses; without parts."""
    reference, label = reference_pairs(z, source_id)
    members = np.flatnonzero(reference)
    p_value = calibrate(score[members]).p_value(score)
    parts = np.empty((len(score), 0), np.float32)
    return Scores(score, p_value, benjamini_hochberg(p_value), parts, label, len(members))


def combined(parts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N,) score of (N, m) -log10 p."""
    blocks = [parts[start : start + BLOCK_ROWS] for start in range(0, len(parts), BLOCK_ROWS)]
    powers = [block.astype(np.float64) ** POWER @ weights for block in blocks]
    return np.asarray(np.concatenate(powers) ** (1.0 / POWER) if powers else np.empty(0))


def quantity_parts(
    z: np.ndarray, source_id: np.ndarray, tails: Sequence[TailModel | None] | None = None
) -> np.ndarray:
    """(N, m) -log10 p of each quantity against reference stars, without weights."""
    return _parts(z, reference_pairs(z, source_id)[0], tails)


def _parts(z: np.ndarray, reference: np.ndarray, tails: Sequence[TailModel | None] | None) -> np.ndarray:
    """(N, m) -log10 p of each quantity; reference stars are compared with the other reference stars.

    A star ranked within a sample that contains it looks more normal than one outside it, and
    the final p-values of all others would come out too small.
    """
    members = np.flatnonzero(reference)
    fold = np.arange(len(members)) % REFERENCE_FOLDS
    parts = np.empty(z.shape, np.float32)
    for j in range(z.shape[1]):
        parts[:, j] = surprise(z[:, j], z[members, j])
        for number in range(REFERENCE_FOLDS) if len(members) >= MIN_REFERENCE else ():
            own = members[fold == number]
            parts[own, j] = surprise(z[own, j], z[members[fold != number], j])
        tail = None if tails is None or len(members) < MIN_REFERENCE else tails[j]
        if tail is not None:
            # what is common in this atlas is not anomalous here, however rare where the tail model was learned
            parts[:, j] = np.minimum(tail.of(z[:, j], z[members, j]), OWN_SHARE * parts[:, j])
    return parts


def reference_pairs(z: np.ndarray, source_id: np.ndarray) -> tuple[np.ndarray, str]:
    """Pairs (N,) bool of validation stars outside the learning half, one per star, no extreme ones; their label."""
    chosen, label = pairs_in_half(source_id, ~in_learning_half(source_id), MIN_REFERENCE)
    if not chosen.any():
        chosen, label = first_visits(source_id), "all"
    largest = z.max(axis=1)
    limit = max(EXTREME_Z, float(np.quantile(largest[chosen], 1 - MAX_EXCLUDED)))
    return chosen & (largest <= limit), label
