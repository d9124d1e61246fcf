"""From scores to p-values and false-discovery rates.

Scores of normal stars have no known distribution, so they are calibrated by ranks against
reference stars (conformal p-values: Vovk, Gammerman & Shafer 2005; Bates et al. 2023 for
outlier tests), with a generalised Pareto tail beyond the ranks (Pickands 1975), and the
false-discovery rate of Benjamini & Hochberg (1995).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TAIL_FRACTION = 0.05
MIN_TAIL = 15
MAX_SHAPE = 0.5
SMALLEST_P = 1e-12
MAX_QUANTILE_SHAPE = 0.3
ODD_Q = 0.2
MAX_ODD = 0.1


@dataclass(frozen=True, slots=True)
class RankCalibration:
    """Upper-tail p-values of scores, learned from the scores of reference stars."""

    reference: np.ndarray
    threshold: float
    tail_probability: float
    shape: float
    scale: float

    def p_value(self, scores: np.ndarray) -> np.ndarray:
        """(N,) probability that a normal star scores at least as high.

        By rank, (1 + #{reference >= score}) / (n + 1), up to `threshold`; beyond it by the
        tail fitted to the excesses of the reference.
        """
        scores = np.asarray(scores, dtype=np.float64)
        n = len(self.reference)
        above = n - np.searchsorted(self.reference, scores, side="left")
        ranks = (1.0 + above) / (n + 1.0)
        if not np.isfinite(self.threshold):
            return ranks
        excess = np.maximum(scores - self.threshold, 0.0) / self.scale
        survival = np.exp(-excess) if abs(self.shape) < 1e-6 else (1 + self.shape * excess) ** (-1 / self.shape)
        tail = np.maximum(self.tail_probability * survival, SMALLEST_P)
        return np.where(scores > self.threshold, tail, ranks)


def calibrate(reference: np.ndarray, tail_fraction: float = TAIL_FRACTION) -> RankCalibration:
    """Learn p-values from the scores of reference stars.

    Parameters
    ----------
    reference
        (n,) scores of stars assumed to be normal; non-finite ones are ignored.
    tail_fraction
        Upper fraction whose excesses determine the tail beyond the ranks, at least `MIN_TAIL` members;
        if those are more than 10 %, no tail is fitted and p is never below 1 / (n + 1).
    """
    ordered = np.sort(np.asarray(reference, dtype=np.float64)[np.isfinite(reference)])
    members = max(int(len(ordered) * tail_fraction), MIN_TAIL)
    if members > len(ordered) // 10:
        return RankCalibration(ordered, np.inf, 0.0, 0.0, 1.0)
    threshold = float(ordered[-members - 1])
    excess = ordered[-members:] - threshold
    if excess.max() <= 0:
        return RankCalibration(ordered, np.inf, 0.0, 0.0, 1.0)
    shape, scale = _pareto_by_moments(excess)
    return RankCalibration(ordered, threshold, (1.0 + members) / (len(ordered) + 1.0), shape, scale)


def _pareto_by_moments(excess: np.ndarray) -> tuple[float, float]:
    """Shape and scale of a generalised Pareto distribution by probability-weighted moments (Hosking & Wallis 1987).

    The shape is limited to 0 .. `MAX_SHAPE`: a finite end point would give p = 0 beyond it.
    """
    ordered = np.sort(excess)
    n = len(ordered)
    plotting = (np.arange(1, n + 1) - 0.35) / n
    first, second = ordered.mean(), float(np.mean((1 - plotting) * ordered))
    shape = 2 - first / (first - 2 * second) if first > 2 * second else MAX_SHAPE
    shape = float(np.clip(shape, 0.0, MAX_SHAPE))
    return shape, float(max(first * (1 - shape), 1e-12))


def benjamini_hochberg(p_values: np.ndarray) -> np.ndarray:
    """q-values: the false-discovery rate of the list that ends with each star (Benjamini & Hochberg 1995)."""
    p_values = np.asarray(p_values, dtype=np.float64)
    n = len(p_values)
    order = np.argsort(p_values, kind="stable")
    scaled = p_values[order] * n / np.arange(1, n + 1)
    q_sorted = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    q_values = np.empty(n)
    q_values[order] = q_sorted
    return q_values


def surprise(values: np.ndarray, reference: np.ndarray, cap: float = 30.0) -> np.ndarray:
    """-log10 of an upper-tail p-value that keeps growing beyond the ranks, at most `cap`.

    Ranks up to the quantile at 85 %; beyond it a generalised Pareto distribution from the quantiles at 40,
    70 and 85 % (Pickands 1975). A few per cent of anomalies in the reference hardly change these quantiles,
    but would dominate its largest values and hide similar stars.
    """
    ordered = np.sort(np.asarray(reference, dtype=np.float64)[np.isfinite(reference)])
    if len(ordered) < MIN_TAIL:
        return np.minimum(-np.log10(calibrate(ordered).p_value(values)), cap)
    return np.minimum(-_log10_p(np.asarray(values, dtype=np.float64), ordered, MAX_QUANTILE_SHAPE), cap)


def without_odd(scores: np.ndarray) -> np.ndarray:
    """(n,) bool: reference scores without those too large for the distribution of normal stars.

    The tail is taken as exponential beyond the quantile at 85 %, from those at 70 and 85 %; left out
    are scores with a false-discovery rate below 0.2 under it, never more than 10 %. For normal
    stars alone this hardly ever removes any.
    """
    ordered = np.sort(scores)
    if len(ordered) < MIN_TAIL:
        return np.ones(len(scores), dtype=bool)
    odd = benjamini_hochberg(10 ** _log10_p(scores, ordered, 0.0)) < ODD_Q
    limit = np.quantile(scores, 1 - MAX_ODD)
    return ~(odd & (scores > limit))


def _log10_p(values: np.ndarray, ordered: np.ndarray, largest_shape: float) -> np.ndarray:
    low, middle, high = np.quantile(ordered, (0.4, 0.7, 0.85))
    step, before = max(high - middle, 1e-9), max(middle - low, 1e-9)
    shape = float(np.clip(np.log2(step / before), 0.0, largest_shape))
    scale = step / np.log(2) if shape < 1e-6 else step * shape / (1 - 2**-shape)
    ranks = (1 + len(ordered) - np.searchsorted(ordered, values, side="left")) / (len(ordered) + 1.0)
    excess = np.maximum(values - high, 0.0) / scale
    fall = excess / np.log(10) if shape < 1e-6 else np.log10(1 + shape * excess) / shape
    return np.where(values > high, np.log10(0.15) - fall, np.maximum(np.log10(ranks), np.log10(0.15)))
