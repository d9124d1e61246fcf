"""From robust z of many quantities to one calibrated score a pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..statistics.learning_stars import choose, first_visits, teaches
from ..statistics.p_values import benjamini_hochberg, calibrate, surprise
from ..statistics.tail_shape import TailLaw

MIN_REFERENCE = 150
# a pair this far out in any quantity is no reference for normal ones
EXTREME_Z = 10.0
MAX_EXCLUDED = 0.10
REFERENCE_FOLDS = 10
POWER = 4.0
# the atlas's own few stars tell the tail so roughly that it may count this much more
OWN_SHARE = 2.0
BLOCK_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class Scores:
    """Score, p-value and q-value of every pair, and the parts of the score.

    Attributes
    ----------
    parts
        (N, m) -log10 p of each quantity, at most 30.
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


def score_pairs(
    z: np.ndarray, source_id: np.ndarray, weights: np.ndarray, tails: Sequence[TailLaw | None] | None = None
) -> Scores:
    """Combine robust z into one score, (sum of weight x (-log10 p)^4)^(1/4), and calibrate it by ranks.

    A high power, because most oddities show in one or two quantities: a plain sum of -log p
    (Fisher's) drowns them in the noise of the others. The quantities depend on each other, so the
    score's own p-value comes from its rank among reference stars.

    Parameters
    ----------
    z
        (N, m) robust z, large where odd.
    source_id
        (N,) Gaia source_id, from which the split follows.
    weights
        (m,) weight of each quantity.
    tails
        How the tail of each quantity runs on; from the reference stars alone where there is none.
    """
    reference, label = reference_pairs(z, source_id)
    parts = _parts(z, reference, tails)
    score = combined(parts, weights)
    members = np.flatnonzero(reference)
    p_value = calibrate(score[members]).p_value(score)
    return Scores(score, p_value, benjamini_hochberg(p_value), parts, label, len(members))


def combined(parts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N,) score of (N, m) -log10 p."""
    blocks = [parts[start : start + BLOCK_ROWS] for start in range(0, len(parts), BLOCK_ROWS)]
    powers = [block.astype(np.float64) ** POWER @ weights for block in blocks]
    return np.asarray(np.concatenate(powers) ** (1.0 / POWER) if powers else np.empty(0))


def quantity_parts(
    z: np.ndarray, source_id: np.ndarray, tails: Sequence[TailLaw | None] | None = None
) -> np.ndarray:
    """(N, m) -log10 p of each quantity against reference stars, before any weight."""
    return _parts(z, reference_pairs(z, source_id)[0], tails)


def _parts(z: np.ndarray, reference: np.ndarray, tails: Sequence[TailLaw | None] | None) -> np.ndarray:
    """(N, m) -log10 p of each quantity; of a reference star against the other reference stars.

    A star ranked among a sample that holds it looks more normal than one that is not in it, and
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
            # what this atlas shows often is not odd here, however rare where the law was learned
            parts[:, j] = np.minimum(tail.of(z[:, j], z[members, j]), OWN_SHARE * parts[:, j])
    return parts


def reference_pairs(z: np.ndarray, source_id: np.ndarray) -> tuple[np.ndarray, str]:
    """Pairs (N,) bool of validation stars that taught no model error, one a star, without far-out ones; their name."""
    chosen, label = choose(source_id, ~teaches(source_id), MIN_REFERENCE)
    if not chosen.any():
        chosen, label = first_visits(source_id), "all"
    largest = z.max(axis=1)
    limit = max(EXTREME_Z, float(np.quantile(largest[chosen], 1 - MAX_EXCLUDED)))
    return chosen & (largest <= limit), label
