"""Figures of merit with confidence intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

Z95 = 1.959964
RESAMPLES = 200


@dataclass(frozen=True, slots=True)
class Measured:
    """One figure of merit: metric, class, value, 95 % interval and sample size."""

    metric: str
    group: str
    value: float
    low: float
    high: float
    n: int

    def row(self) -> dict[str, str | float | int]:
        """As a row of the table; the column of the group is called `class`."""
        content = asdict(self)
        return {"metric": content.pop("metric"), "class": content.pop("group"), **content}


def share(metric: str, group: str, hits: np.ndarray) -> Measured:
    """Fraction of true values with Wilson's interval (1927); NaN for an empty sample."""
    n, count = len(hits), int(np.sum(hits))
    if n == 0:
        return Measured(metric, group, np.nan, np.nan, np.nan, 0)
    p = count / n
    middle = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * np.sqrt(p * (1 - p) / n + Z95**2 / (4 * n**2))
    return Measured(metric, group, p, max(middle - half, 0.0), min(middle + half, 1.0), n)


def middle(metric: str, group: str, values: np.ndarray) -> Measured:
    """A median, its interval from order statistics (normal approximation of the binomial)."""
    known = np.sort(values[np.isfinite(values)])
    n = len(known)
    if n == 0:
        return Measured(metric, group, np.nan, np.nan, np.nan, 0)
    reach = 0.5 * Z95 * np.sqrt(n)
    low, high = int(max(np.floor(n / 2 - reach), 0)), int(min(np.ceil(n / 2 + reach), n - 1))
    return Measured(metric, group, float(np.median(known)), float(known[low]), float(known[high]), n)


def scatter(
    metric: str, group: str, values: np.ndarray, statistic: Callable[[np.ndarray], float], seed: int
) -> Measured:
    """A statistic of the finite values, its interval from resampled ones (bootstrap, 2.5-97.5 %)."""
    known = values[np.isfinite(values)]
    n = len(known)
    if n == 0:
        return Measured(metric, group, np.nan, np.nan, np.nan, 0)
    rng = np.random.default_rng(seed)
    low, high = np.quantile([statistic(rng.choice(known, n)) for _ in range(RESAMPLES)], [0.025, 0.975])
    return Measured(metric, group, float(statistic(known)), float(low), float(high), n)


def average_precision(score: np.ndarray, positive: np.ndarray) -> float:
    """Average precision: mean over the positives of the precision at their ranks; ties count against them."""
    hit = positive[np.lexsort((positive, -score))]
    places = np.flatnonzero(hit)
    return float((np.arange(1, len(places) + 1) / (places + 1)).mean()) if len(places) else float("nan")


def ranked(metric: str, group: str, score: np.ndarray, positive: np.ndarray, seed: int) -> Measured:
    """Average precision, its interval from resampled positives and negatives (bootstrap, 2.5-97.5 %).

    Of resampled negatives only the numbers between the positives' scores matter: they are drawn
    from their multinomial distribution, which is the same as drawing the negatives one by one.
    """
    n = int(positive.sum())
    if n == 0:
        return Measured(metric, group, np.nan, np.nan, np.nan, 0)
    rng = np.random.default_rng(seed)
    odd, normal = np.sort(score[positive])[::-1], np.sort(score[~positive])
    # negatives at least as high as each positive, and how many fall between consecutive positives
    above = len(normal) - np.searchsorted(normal, odd, side="left")
    between = np.diff(above, prepend=0, append=len(normal))
    drawn = []
    for _ in range(RESAMPLES):
        chosen = np.sort(rng.integers(0, n, n))
        counts = rng.multinomial(len(normal), between / len(normal)) if len(normal) else between
        drawn.append(_precision(np.cumsum(counts)[chosen]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Measured(metric, group, _precision(above), float(low), float(high), n)


def _precision(above: np.ndarray) -> float:
    """Average precision of positives in descending order, each with so many negatives at or above it."""
    hits = np.arange(1, len(above) + 1)
    return float((hits / (hits + above)).mean())


def rank_correlation(metric: str, group: str, a: np.ndarray, b: np.ndarray) -> Measured:
    """Spearman's correlation with Fisher's interval; NaN for fewer than four values or a constant."""
    from scipy.stats import spearmanr

    good = np.isfinite(a) & np.isfinite(b)
    n = int(good.sum())
    if n < 4 or np.ptp(a[good]) == 0 or np.ptp(b[good]) == 0:
        return Measured(metric, group, np.nan, np.nan, np.nan, n)
    value = float(spearmanr(a[good], b[good]).statistic)
    z, half = np.arctanh(np.clip(value, -0.999999, 0.999999)), Z95 / np.sqrt(n - 3)
    return Measured(metric, group, value, float(np.tanh(z - half)), float(np.tanh(z + half)), n)
