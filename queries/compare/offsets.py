"""Offsets and scatters of several measurements of the same stars, by pairs and solved together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..statistics.robust_trend import MAD_TO_SIGMA

#: a difference beyond this many robust standard deviations is an outlier
OUTLYING = 4.0
#: rows from which correlation and slope, which only point at causes, are taken
ENOUGH = 100_000
#: fewer shared stars say nothing
LEAST_SHARED = 5
#: standard error of a median over that of a mean, for normal errors
MEDIAN_OVER_MEAN = 1.2533


@dataclass(frozen=True, slots=True)
class Pair:
    """Differences of two sources over the stars that both have.

    Attributes
    ----------
    a, b
        Numbers of the sources.
    n
        Stars in both.
    bias, bias_err
        Median of a minus b, and its standard error.
    sigma
        1.4826 times the median absolute deviation of a minus b, without the outliers.
    outliers
        Fraction beyond 4 sigma of the bias, before they were left out.
    pull
        Robust standard deviation of the differences over their quoted errors, 1 where these are right; NaN without.
    slope
        Ratio of the robust spreads of b and a, negative where they run against each other.
    correlation
        Rank correlation of a and b.
    """

    a: int
    b: int
    n: int
    bias: float
    bias_err: float
    sigma: float
    outliers: float
    pull: float
    slope: float
    correlation: float


@dataclass(frozen=True, slots=True)
class Offsets:
    """Offset and own scatter of each source, from all pairs.

    Attributes
    ----------
    offset
        (S,) what a source lies above the reference; NaN where no chain of shared stars leads to it.
    error
        (S,) 1 sigma of it, from the pairs' standard errors.
    scatter
        (S,) robust standard deviation of each source's own errors; NaN if fewer than three sources share stars.
    """

    offset: np.ndarray
    error: np.ndarray
    scatter: np.ndarray


def compare_pairs(values: np.ndarray, errors: np.ndarray) -> list[Pair]:
    """Every pair of columns with at least `LEAST_SHARED` stars in common.

    Parameters
    ----------
    values, errors
        (N, S) measurements and 1 sigma errors; NaN where there is none.
    """
    found = []
    for a in range(values.shape[1]):
        for b in range(a + 1, values.shape[1]):
            both = np.isfinite(values[:, a]) & np.isfinite(values[:, b])
            if np.count_nonzero(both) >= LEAST_SHARED:
                found.append(_pair(a, b, values[both][:, (a, b)], errors[both][:, (a, b)]))
    return found


def _pair(a: int, b: int, values: np.ndarray, errors: np.ndarray) -> Pair:
    difference = values[:, 0] - values[:, 1]
    n, bias = len(difference), float(np.median(difference))
    off = difference - bias
    sigma = MAD_TO_SIGMA * float(np.median(np.abs(off)))
    far = np.abs(off) > OUTLYING * sigma
    # again without them, because even a median moves with a few per cent of wild values
    sigma = MAD_TO_SIGMA * float(np.median(np.abs(off[~far])))
    outliers = float(np.mean(far))
    quoted = np.hypot(errors[:, 0], errors[:, 1])
    told = np.isfinite(quoted) & (quoted > 0)
    pull = float("nan")
    if np.count_nonzero(told) >= LEAST_SHARED:
        pull = MAD_TO_SIGMA * float(np.median(np.abs(off[told] / quoted[told])))
    slope, correlation = _relation(values[:: max(1, n // ENOUGH)])
    return Pair(a, b, n, bias, MEDIAN_OVER_MEAN * sigma / np.sqrt(n), sigma, outliers, pull, slope, correlation)


def _relation(values: np.ndarray) -> tuple[float, float]:
    """Ratio of the second column's robust spread to the first's, with their sign, and Spearman's rank correlation."""
    from scipy.stats import spearmanr

    if (values == values[0]).all(axis=0).any():
        return float("nan"), float("nan")
    correlation = float(spearmanr(values[:, 0], values[:, 1]).statistic)
    spread = np.median(np.abs(values - np.median(values, axis=0)), axis=0)
    return (float(np.copysign(spread[1] / spread[0], correlation)) if spread[0] > 0 else float("nan")), correlation


def solve_offsets(pairs: Sequence[Pair], count: int, reference: int) -> Offsets:
    """Offsets of all sources against one of them, by weighted least squares over the pairs' biases.

    Parameters
    ----------
    pairs
        From `compare_pairs`.
    count
        Number of sources.
    reference
        The source whose offset is 0.

    Notes
    -----
    The biases are taken as independent; they share stars, so the errors are approximate. Scatters are the
    non-negative solution of sigma_ab^2 = s_a^2 + s_b^2 (the method of the three-cornered hat), which needs three
    sources with independent errors.
    """
    offset, error, scatter = (np.full(count, np.nan) for _ in range(3))
    reached = _connected(pairs, count, reference)
    offset[reference], error[reference] = 0.0, 0.0
    unknown = [s for s in sorted(reached) if s != reference]
    inside = [pair for pair in pairs if pair.a in reached]
    if unknown:
        design = np.zeros((len(inside), count))
        rows = np.arange(len(inside))
        design[rows, [pair.a for pair in inside]], design[rows, [pair.b for pair in inside]] = 1.0, -1.0
        weight = 1.0 / np.maximum([pair.bias_err for pair in inside], 1e-12)
        system = design[:, unknown] * weight[:, None]
        normal = np.linalg.pinv(system.T @ system)
        offset[unknown] = normal @ system.T @ (np.array([pair.bias for pair in inside]) * weight)
        error[unknown] = np.sqrt(np.diag(normal))
    if len(inside) >= 3 and len(reached) >= 3:
        from scipy.optimize import nnls

        members = sorted(reached)
        design = np.zeros((len(inside), len(members)))
        for row, pair in enumerate(inside):
            design[row, [members.index(pair.a), members.index(pair.b)]] = 1.0
        square = np.array([pair.sigma**2 for pair in inside])
        weight = np.sqrt([pair.n for pair in inside]) / np.maximum(square, 1e-12)
        if np.linalg.matrix_rank(design) == len(members):
            scatter[members] = np.sqrt(nnls(design * weight[:, None], square * weight)[0])
    return Offsets(offset, error, scatter)


def _connected(pairs: Sequence[Pair], count: int, start: int) -> set[int]:
    """Sources that a chain of pairs joins to `start`."""
    reached = {start}
    for _ in range(count):
        reached |= {s for pair in pairs if {pair.a, pair.b} & reached for s in (pair.a, pair.b)}
    return reached


def _row_medians(values: np.ndarray) -> np.ndarray:
    """Median of each row's finite values, of which there must be one; much faster than `np.nanmedian` of short rows."""
    ordered = np.sort(values, axis=1)  # NaN last
    count = np.isfinite(ordered).sum(axis=1)
    pair = np.take_along_axis(ordered, np.stack([(count - 1) // 2, count // 2], axis=1), axis=1)
    return np.asarray(pair.mean(axis=1))


@dataclass(frozen=True, slots=True)
class OddOnes:
    """The source that disagrees most with the others, star by star.

    Attributes
    ----------
    source
        (N,) int64 number of the source; -1 where a star has fewer than three.
    deviation
        (N,) its value, offset taken off, minus the median of the others.
    sigmas
        (N,) the same in units of the sources' scatters.
    """

    source: np.ndarray
    deviation: np.ndarray
    sigmas: np.ndarray


def odd_ones_out(values: np.ndarray, offsets: Offsets) -> OddOnes:
    """Which source stands apart from the others for each star of three sources or more.

    Parameters
    ----------
    values
        (N, S) measurements, NaN where there is none.
    """
    levelled = values - offsets.offset
    known = np.isfinite(levelled)
    n, sources = levelled.shape
    deviation = np.full((n, sources), np.nan)
    for s in range(sources):
        others = np.delete(levelled, s, axis=1)
        rows = known[:, s] & (np.isfinite(others).sum(axis=1) >= 2)
        if rows.any():
            deviation[rows, s] = levelled[rows, s] - _row_medians(others[rows])
    typical = np.nanmedian(offsets.scatter) if np.isfinite(offsets.scatter).any() else np.nan
    scatter = np.where(offsets.scatter > 0, offsets.scatter, typical)
    sigmas = np.abs(deviation) / np.hypot(scatter, typical)
    usable = np.isfinite(sigmas).any(axis=1)
    source = np.full(n, -1, dtype=np.int64)
    source[usable] = np.nanargmax(sigmas[usable], axis=1)
    place = np.maximum(source, 0)[:, None]
    picked = [np.where(usable, np.take_along_axis(array, place, axis=1)[:, 0], np.nan) for array in (deviation, sigmas)]
    return OddOnes(source, *picked)
