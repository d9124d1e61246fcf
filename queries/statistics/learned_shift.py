"""A ranking that learns from verdicts.

A verdict also applies to similar stars: anomalous in the same quantities and nearby in the space. What the
user would say of a candidate is predicted by a Gaussian process (Rasmussen & Williams 2006, eq. 2.25)
from the stored verdicts, and shifts its score; far from all verdicts the prediction is zero and the score
is unchanged. Astronomaly (Lochner & Bassett 2021) does the same with a random forest. Measured gain:
tests/benchmarks/feedback.py.
"""

from __future__ import annotations

import numpy as np

# length scale of the kernel in pattern distance (between unit vectors)
PATTERN_WIDTH = 0.35
# fraction of the covariance that also requires nearby vectors (root of 1 - cosine)
VECTOR_SHARE, VECTOR_WIDTH = 0.9, 0.4
# variances relative to that of the prediction (1): of the user's mean verdict, and of a single verdict
MOOD, DOUBT = 1.0, 0.3
# the score changes by at most a factor e^1.5
STRENGTH = 1.5


def odd_patterns(z: np.ndarray) -> np.ndarray:
    """(n, m) of unit length: pattern of anomalous quantities from (n, m) robust z, on a log scale."""
    patterns = np.log1p(np.maximum(np.asarray(z, dtype=np.float64), 0.0))
    return np.asarray(patterns / np.maximum(np.linalg.norm(patterns, axis=1, keepdims=True), 1e-9))


def learned_shift(vectors: np.ndarray, patterns: np.ndarray, judged: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Shift of candidates by verdicts, between -1 and 1; candidates with a verdict are shifted by that verdict.

    k_ij = exp(-|dp|^2 / 2 w^2) (1 - a + a exp(-(1 - cos) / 2 w_v^2)), shift = k (k_jj + doubt I)^-1 (v - mood).
    `mood` is the mean verdict, but never below 0: a user who likes everything shown may like the rest as
    well; a user who likes none of it wants something else, so dissimilar candidates must rise.

    Parameters
    ----------
    vectors
        (n, d) unit vectors of candidates (both instruments' side by side, each of length 1/sqrt 2).
    patterns
        (n, m) from `odd_patterns`.
    judged
        (v,) positions of candidates with a verdict.
    value
        (v,) verdicts, 1 or -1.
    """
    if len(judged) == 0:
        return np.zeros(len(vectors))
    apart = 2.0 - 2.0 * patterns @ patterns[judged].T
    near = np.exp(-0.5 * (1.0 - vectors @ vectors[judged].T) / VECTOR_WIDTH**2)
    kernel = np.exp(-0.5 * apart / PATTERN_WIDTH**2) * (1.0 - VECTOR_SHARE + VECTOR_SHARE * near)
    given = kernel[judged] + DOUBT * np.eye(len(judged))
    ones, answer = np.linalg.solve(given, np.column_stack([np.ones(len(judged)), value])).T
    mood = max(float(answer.sum() / (ones.sum() + 1.0 / MOOD)), 0.0)
    shift = np.clip(kernel @ (answer - mood * ones), -1.0, 1.0)
    shift[judged] = value
    return np.asarray(shift)
