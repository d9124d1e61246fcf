"""Robust statistics against slow truths."""

from __future__ import annotations

import numpy as np
from scipy import stats

from specclip_search.queries.statistics.robust_trend import (
    fit_trend,
    local_location_scale,
    median_and_sigma,
    weighted_quantile,
)


def test_weighted_median_of_equal_weights_is_the_median() -> None:
    values = np.random.default_rng(0).normal(size=(50, 9))
    np.testing.assert_allclose(weighted_quantile(values, np.ones_like(values)), np.median(values, axis=1), rtol=1e-12)


def test_weighted_median_follows_weights_and_ignores_what_has_none() -> None:
    values = np.array([[1.0, 2.0, 100.0, np.nan], [1.0, 2.0, 3.0, 4.0], [5.0, 1.0, 1.0, 1.0]])
    weights = np.array([[1.0, 1.0, 0.0, 5.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 2.0]])
    result = weighted_quantile(values, weights)
    assert result[0] == 1.5
    assert np.isnan(result[1])
    assert result[2] == 1.0


def test_trend_and_its_scatter_are_taken_out_whatever_the_outliers() -> None:
    rng = np.random.default_rng(1)
    x = rng.uniform(0, 2, (20_000, 2))
    scatter = np.exp(0.7 * x[:, 0])
    clean = 3 * np.sin(2 * x[:, 0]) + x[:, 1] ** 2 + scatter * rng.normal(size=len(x))
    values = np.where(rng.random(len(x)) < 0.05, clean + 50, clean)
    z = fit_trend(values, x).standardise(clean, x)
    for column in range(2):
        assert abs(stats.spearmanr(z, x[:, column]).statistic) < 0.03
        assert abs(stats.spearmanr(np.abs(z), x[:, column]).statistic) < 0.05
    assert abs(median_and_sigma(z)[1] - 1) < 0.08


def test_trend_of_too_few_or_constant_data_is_harmless() -> None:
    trend = fit_trend(np.full(10, 2.0), np.full((10, 1), 3.0))
    assert np.isfinite(trend.standardise(np.array([2.0, 5.0]), np.array([[3.0], [np.nan]]))).all()
    empty = fit_trend(np.full(4, np.nan), np.zeros((4, 2)))
    assert np.isfinite(empty.standardise(np.zeros(4), np.zeros((4, 2)))).all()


def test_few_neighbours_are_trusted_less_than_many() -> None:
    values = np.array([[5.0] * 32, [5.0] * 2 + [np.nan] * 30, [np.nan] * 32])
    location, scale = local_location_scale(values, np.ones_like(values), 1.0)
    assert location[0] > location[1] > location[2] == 0.0
    assert scale[2] == 1.0
    assert np.isfinite(scale).all()
