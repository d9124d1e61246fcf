"""How far out a quantity is, by a law learned from many normal stars and laid on an atlas's own quantiles."""

from __future__ import annotations

import numpy as np
import pytest

from specclip_search.queries.anomalies.local_quantities import NAMES
from specclip_search.queries.anomalies.scoring import quantity_parts
from specclip_search.queries.anomalies.weights import load_tails, load_weights
from specclip_search.queries.statistics.tail_shape import TailModel, learn_tail


@pytest.fixture(scope="module")
def law() -> TailModel:
    found = learn_tail(np.random.default_rng(1).standard_t(4, 200_000))
    assert found is not None
    return found


def test_the_law_gives_the_share_of_normal_stars_beyond(law: TailModel) -> None:
    rng = np.random.default_rng(2)
    new = rng.standard_t(4, 200_000)
    surprise = law.of(new, rng.standard_t(4, 3000))
    for decades in (1, 2, 3):
        assert (surprise > decades).mean() == pytest.approx(10.0**-decades, rel=0.5)


def test_it_is_laid_on_the_atlas_whose_odd_stars_do_not_hide(law: TailModel) -> None:
    rng = np.random.default_rng(3)
    clean = rng.standard_t(4, 3000)
    odd = np.array([12.0, 20.0, 40.0])
    expected = law.of(odd, clean)
    np.testing.assert_allclose(law.of(1 + 2 * odd, 1 + 2 * clean), expected, rtol=0.05)
    assert law.of(np.array([20.0]), 20 * clean)[0] < 1.0
    spoilt = np.concatenate([clean, rng.uniform(10, 50, 60)])
    np.testing.assert_allclose(law.of(odd, spoilt), expected, rtol=0.15)
    assert (np.diff(law.of(np.linspace(-5, 200, 500), clean)) >= 0).all()
    assert law.of(np.array([1e9]), clean)[0] == 30.0
    # an atlas in which a quantity varies less is not thereby odder
    np.testing.assert_allclose(law.of(odd, 0.3 * clean), expected, rtol=0.05)


def test_a_law_survives_json_and_few_stars_have_none(law: TailModel) -> None:
    again = TailModel.from_json(law.as_json())
    np.testing.assert_allclose(again.z, law.z, atol=1e-4)
    assert learn_tail(np.arange(60.0)) is None
    assert learn_tail(np.zeros(5000)) is None


def test_shipped_laws_belong_to_the_quantities() -> None:
    tails, weights = load_tails(NAMES), load_weights(NAMES)
    assert len(tails) == len(weights) == len(NAMES)
    assert all(tail is not None for name, tail in zip(NAMES, tails, strict=True) if weights[name] > 0)
    assert all((np.diff(tail.z) > 0).all() for tail in tails if tail is not None)


def test_parts_follow_the_law_where_there_is_one(law: TailModel) -> None:
    rng = np.random.default_rng(4)
    z = rng.standard_t(4, (4000, 2))
    source_id = np.arange(4000, dtype=np.int64) * 128 + (1 << 55)
    z[0] = 30.0
    parts = quantity_parts(z, source_id, [law, None])
    assert parts[0, 0] == pytest.approx(law.of(z[:, 0], z[:, 0])[0], rel=0.1)
    assert parts[0].min() > parts[1:].max(axis=0).min()
    np.testing.assert_array_equal(parts[:, 1], quantity_parts(z, source_id)[:, 1])
