"""Local density: the same factor as scikit-learn's, and stars beside a crowd are told from sparse regions."""

from __future__ import annotations

import numpy as np
import pytest

from specclip_search.queries.statistics.local_density import (
    fit_local_density,
    joined,
    local_density,
    matched_percentile,
)
from specclip_search.queries.statistics.p_values import surprise


def cloud(rng: np.random.Generator, axes: int) -> np.ndarray:
    """A dense and a sparse cluster of stars."""
    return np.concatenate([rng.normal(0, 0.1, (900, axes)), rng.normal(4, 0.5, (300, axes))]).astype(np.float32)


def test_factor_is_the_published_one() -> None:
    neighbors = pytest.importorskip("sklearn.neighbors")
    rng = np.random.default_rng(1)
    vectors = cloud(rng, 8)
    made = fit_local_density(vectors, k=20, axes=8)
    assert made is not None
    whitened = (vectors - made.center) @ made.whiten
    expected = -neighbors.LocalOutlierFactor(n_neighbors=20).fit(whitened).negative_outlier_factor_
    found = np.exp(made.log_factor(vectors, np.ones(len(vectors), bool)))
    np.testing.assert_allclose(found, expected, rtol=2e-3)


def test_a_star_beside_a_crowd_is_odd_and_a_sparse_region_is_not() -> None:
    rng = np.random.default_rng(2)
    vectors = np.concatenate([cloud(rng, 2), np.array([[0.8, -0.8]], np.float32)])
    factor = local_density(lambda rows: vectors[rows], np.arange(len(vectors)), np.ones(len(vectors), bool))
    assert (factor > factor[-1]).mean() < 0.01
    assert np.median(factor[900:1200]) < 0.5 < 1.0 < factor[-1]
    # what may not teach is judged all the same
    learn = np.arange(len(vectors)) % 2 == 0
    again = local_density(lambda rows: vectors[rows], np.arange(len(vectors)), learn)
    assert (again > again[-1]).mean() < 0.01
    assert not local_density(lambda rows: vectors[rows], np.arange(len(vectors)), np.zeros(len(vectors), bool)).any()


def test_any_of_three_grounds_leads_and_controls_are_alike() -> None:
    rng = np.random.default_rng(3)
    density, patterns, others = rng.normal(size=1000), rng.normal(size=(1000, 2)), rng.normal(size=1000)
    isolation = rng.normal(size=1000)
    density[1], patterns[2, 1], others[3] = 9.0, 9.0, 9.0
    named = surprise(patterns.max(axis=1), patterns.max(axis=1))
    score = joined(density, isolation, named, others)
    assert set(np.argsort(-score)[:25]) >= {1, 2, 3}
    like = np.column_stack([rng.normal(12, 2, 1000), rng.normal(0.8, 0.2, 1000)])
    assert (matched_percentile(score, np.array([1, 2, 3]), like, (0.5, 0.1)) > 0.95).all()
    like[5] = np.nan
    assert np.isfinite(matched_percentile(score, np.array([1]), like, (0.5, 0.1))).all()
