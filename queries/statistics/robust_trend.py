"""Robust location, scale and trend, the basis of all scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# the MAD of a normal distribution is 0.6745 sigma
MAD_TO_SIGMA = 1.4826


def median_and_sigma(values: np.ndarray, axis: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Median and 1.4826 x MAD along `axis`, NaN ignored; NaN if nothing is finite."""
    with np.errstate(all="ignore"):
        middle = _nanmedian(values, axis)
        spread = _nanmedian(np.abs(values - np.expand_dims(middle, axis)), axis)
    return middle, MAD_TO_SIGMA * spread


def _nanmedian(values: np.ndarray, axis: int) -> np.ndarray:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmedian(values, axis=axis)


def weighted_quantile(values: np.ndarray, weights: np.ndarray, quantile: float = 0.5) -> np.ndarray:
    """Weighted quantile of each row.

    Parameters
    ----------
    values, weights
        (N, k); members with a weight of 0 or a NaN value are ignored.
    quantile
        Between 0 and 1.

    Returns
    -------
    np.ndarray
        (N,) float64; NaN for rows without any weight. Interpolated between the midpoints of
        the members' weights, so that it varies smoothly with them.
    """
    good = np.isfinite(values) & (weights > 0)
    order = np.argsort(np.where(good, values, np.inf), axis=1)
    sorted_values = np.take_along_axis(np.where(good, values, 0.0), order, axis=1)
    sorted_weights = np.take_along_axis(np.where(good, weights, 0.0), order, axis=1)
    total = sorted_weights.sum(axis=1)
    position = np.cumsum(sorted_weights, axis=1) - 0.5 * sorted_weights
    aim = quantile * total
    count = good.sum(axis=1)
    upper = np.clip((position < aim[:, None]).sum(axis=1), 0, np.maximum(count - 1, 0))
    lower = np.maximum(upper - 1, 0)
    rows = np.arange(len(values))
    gap = position[rows, upper] - position[rows, lower]
    share = np.where(gap > 0, (aim - position[rows, lower]) / np.where(gap > 0, gap, 1.0), 0.0)
    share = np.clip(share, 0.0, 1.0)
    result = sorted_values[rows, lower] * (1 - share) + sorted_values[rows, upper] * share
    return np.where(total > 0, result, np.nan)


def local_location_scale(
    values: np.ndarray, weights: np.ndarray, prior_scale: np.ndarray | float, prior_weight: float = 8.0
) -> tuple[np.ndarray, np.ndarray]:
    """Location and scale of each row's neighbours, shrunk to location 0 and `prior_scale`.

    The MAD of a few neighbours is noisy: it is weighted by their effective number
    (sum w)^2 / sum w^2 against a prior of `prior_weight` members of the whole population.

    Returns
    -------
    tuple of np.ndarray
        (N,) location and (N,) scale, finite everywhere.
    """
    usable = np.where(np.isfinite(values), weights, 0.0)
    total, squares = usable.sum(axis=1), (usable**2).sum(axis=1)
    effective = np.where(squares > 0, total**2 / np.where(squares > 0, squares, 1.0), 0.0)
    middle = weighted_quantile(values, usable)
    spread = MAD_TO_SIGMA * weighted_quantile(np.abs(values - middle[:, None]), usable)
    middle, spread = np.nan_to_num(middle), np.nan_to_num(spread)
    location = middle * effective / (effective + prior_weight)
    variance = (effective * spread**2 + prior_weight * np.square(prior_scale)) / (effective + prior_weight)
    return location, np.sqrt(np.maximum(variance, 1e-12))


@dataclass(frozen=True, slots=True)
class Trend:
    """Smooth additive dependence of a quantity and its scatter on a few covariates."""

    knots: tuple[np.ndarray, ...]
    centres: tuple[np.ndarray, ...]
    offset: float
    scale_knots: tuple[np.ndarray, ...]
    log_scales: tuple[np.ndarray, ...]

    def location(self, covariates: np.ndarray) -> np.ndarray:
        """(N,) expected value at (N, c) covariates; constant outside the learned range."""
        return self.offset + _additive(self.knots, self.centres, covariates)

    def scale(self, covariates: np.ndarray) -> np.ndarray:
        """(N,) robust sigma at (N, c) covariates."""
        return np.exp(np.clip(_additive(self.scale_knots, self.log_scales, covariates), -20, 20))

    def standardise(self, values: np.ndarray, covariates: np.ndarray) -> np.ndarray:
        """(values - location) / scale."""
        return (values - self.location(covariates)) / self.scale(covariates)


def _additive(knots: tuple[np.ndarray, ...], heights: tuple[np.ndarray, ...], covariates: np.ndarray) -> np.ndarray:
    total = np.zeros(len(covariates))
    for column, (x, y) in enumerate(zip(knots, heights, strict=True)):
        if len(x):
            values = covariates[:, column]
            unknown = ~np.isfinite(values)
            total += np.interp(np.nan_to_num(values, nan=float(np.median(x))) if unknown.any() else values, x, y)
    return total


class Covariates:
    """(N, c) covariates with the order of each, which many quantities' trends share.

    Parameters
    ----------
    values
        (N, c); non-finite ones are replaced by the median where a trend is evaluated.
    """

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self._columns: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def column(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of one covariate's finite values, in their order, and these values."""
        if number not in self._columns:
            x = self.values[:, number]
            known = np.flatnonzero(np.isfinite(x))
            rows = known[np.argsort(x[known], kind="stable")]
            self._columns[number] = (rows, x[rows])
        return self._columns[number]

    def of(self, good: np.ndarray) -> Covariates:
        """Those of some rows."""
        return self if good.all() else Covariates(self.values[good])


def fit_trend(
    values: np.ndarray, covariates: np.ndarray | Covariates, bins: int = 20, min_per_bin: int = 25, rounds: int = 3
) -> Trend:
    """Learn the median and the scatter of a quantity as functions of covariates such as log S/N.

    Backfitting of running medians in bins of equal numbers (Hastie & Tibshirani 1990, with
    medians instead of means), so that a few per cent of anomalies do not affect it.

    Parameters
    ----------
    values
        (N,) quantity; non-finite values are ignored.
    covariates
        (N, c); non-finite covariates are replaced by the median. Give the same `Covariates` for several quantities.
    """
    good = np.isfinite(values)
    ordered = covariates if isinstance(covariates, Covariates) else Covariates(covariates)
    ordered = ordered.of(good)
    x, y = ordered.values, values[good].astype(np.float64)
    if len(y) == 0:
        empty = tuple(np.empty(0) for _ in range(x.shape[1]))
        return Trend(empty, empty, 0.0, empty, empty)
    offset = float(np.median(y))
    knots, centres = _backfit(y - offset, ordered, bins, min_per_bin, rounds)
    residual = np.abs(y - offset - _additive(knots, centres, x))
    floor = 1e-3 * max(float(np.median(residual)), 1e-9)
    # the median of log|r| of a normal distribution is log(0.6745 sigma)
    log_scale = np.log(np.maximum(residual, floor)) + np.log(MAD_TO_SIGMA)
    middle = float(np.median(log_scale))
    scale_knots, log_scales = _backfit(log_scale - middle, ordered, max(bins // 2, 1), 2 * min_per_bin, rounds)
    return Trend(knots, centres, offset, *_with_constant(scale_knots, log_scales, middle))


def _with_constant(
    knots: tuple[np.ndarray, ...], heights: tuple[np.ndarray, ...], constant: float
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    if len(knots) == 0 or len(knots[0]) == 0:
        first_knots, first = np.zeros(1), np.full(1, constant)
        return (first_knots, *knots[1:]), (first, *heights[1:])
    return knots, (heights[0] + constant, *heights[1:])


def _backfit(
    values: np.ndarray, covariates: Covariates, bins: int, min_per_bin: int, rounds: int
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    count = covariates.values.shape[1]
    knots: list[np.ndarray] = [np.empty(0)] * count
    heights: list[np.ndarray] = [np.empty(0)] * count
    fitted = np.zeros((count, len(values)))
    for _ in range(rounds if count > 1 else 1):
        for column in range(count):
            partial = values - fitted.sum(axis=0) + fitted[column]
            knots[column], heights[column] = _running_median(covariates, column, partial, bins, min_per_bin)
            fitted[column] = _additive((knots[column],), (heights[column],), covariates.values[:, [column]])
    return tuple(knots), tuple(heights)


def _running_median(
    covariates: Covariates, column: int, y: np.ndarray, bins: int, min_per_bin: int
) -> tuple[np.ndarray, np.ndarray]:
    rows, x = covariates.column(column)
    number = min(bins, len(rows) // min_per_bin)
    if number < 2 or x[0] == x[-1]:
        return np.empty(0), np.empty(0)
    knots = _chunk_medians(x, number)
    heights = _chunk_medians(y[rows], number)
    knots, first = np.unique(knots, return_index=True)
    return knots, heights[first]


def _chunk_medians(values: np.ndarray, number: int) -> np.ndarray:
    """(number,) medians of the chunks of `np.array_split`: two calls for two sizes of chunk, not one a chunk."""
    size, longer = divmod(len(values), number)
    cut = longer * (size + 1)
    first = [np.median(values[:cut].reshape(longer, size + 1), axis=1)] if longer else []
    return np.concatenate([*first, np.median(values[cut:].reshape(-1, size), axis=1)])
