"""p-values are uniform on what is normal, and small on what is not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from specclip_search.queries.statistics.p_values import benjamini_hochberg, calibrate, surprise, without_odd


@pytest.mark.parametrize("law", ["norm", "expon", "t"])
def test_p_values_of_normal_stars_are_uniform(law: str) -> None:
    draw = {"norm": stats.norm(), "expon": stats.expon(), "t": stats.t(4)}[law]
    rng = np.random.default_rng(3)
    calibration = calibrate(draw.rvs(4000, random_state=rng))
    p = calibration.p_value(draw.rvs(4000, random_state=rng))
    assert stats.kstest(p, "uniform").pvalue > 1e-3
    # beyond the ranks, too: a thousandth of normal stars lies below p = 0.001, within a factor of three
    many = calibration.p_value(draw.rvs(200_000, random_state=rng))
    assert 1 / 3 < (many < 1e-3).mean() / 1e-3 < 3


def test_tail_goes_on_falling_beyond_the_largest_reference_score() -> None:
    calibration = calibrate(np.random.default_rng(0).normal(size=2000))
    p = calibration.p_value(np.array([3.0, 5.0, 8.0, 20.0]))
    assert (np.diff(p) < 0).all()
    assert p[-1] > 0


def test_few_reference_stars_claim_no_more_than_their_ranks() -> None:
    calibration = calibrate(np.arange(50.0))
    assert calibration.p_value(np.array([1e9]))[0] == pytest.approx(1 / 51)


def test_benjamini_hochberg_against_scipy() -> None:
    p = np.random.default_rng(1).uniform(size=300) ** 2
    np.testing.assert_allclose(benjamini_hochberg(p), stats.false_discovery_control(p), rtol=1e-12)


def test_benjamini_hochberg_keeps_the_rate_it_promises() -> None:
    rng = np.random.default_rng(2)
    rates = []
    for _ in range(60):
        p = np.concatenate([rng.uniform(size=900), stats.norm.sf(rng.normal(4, 1, 100))])
        found = benjamini_hochberg(p) < 0.1
        rates.append(found[:900].sum() / max(found.sum(), 1))
    assert np.mean(rates) < 0.1


def test_surprise_is_capped_and_ordered() -> None:
    reference = np.random.default_rng(0).normal(size=1000)
    value = surprise(np.array([-1.0, 0.0, 2.0, 1e6]), reference)
    assert (np.diff(value) > 0).all()
    assert value[-1] <= 30


def test_surprise_is_not_hidden_by_odd_stars_in_the_reference() -> None:
    rng = np.random.default_rng(1)
    clean = rng.normal(size=2000)
    spoilt = np.concatenate([clean, rng.normal(20, 3, 100)])
    odd = np.array([6.0, 12.0, 20.0])
    assert (surprise(odd, spoilt) > 2.5).all()
    np.testing.assert_allclose(surprise(odd, spoilt), surprise(odd, clean), rtol=0.3)
    common = rng.normal(size=4000)
    p = 10 ** -surprise(common, clean)
    assert 0.7 < (p < 0.05).mean() / 0.05 < 1.6


def test_odd_stars_are_left_out_of_the_reference_and_normal_ones_are_not() -> None:
    rng = np.random.default_rng(2)
    clean = rng.exponential(size=2000)
    assert (~without_odd(clean)).sum() <= 4
    spoilt = np.concatenate([clean, rng.uniform(12, 30, 80)])
    kept = without_odd(spoilt)
    assert kept[:2000].mean() > 0.995
    assert kept[2000:].mean() < 0.1
    p = calibrate(spoilt[kept]).p_value(rng.exponential(size=20_000))
    for level, tolerance in ((0.2, 0.2), (0.05, 0.35), (0.01, 0.8)):
        assert (p < level).mean() == pytest.approx(level, rel=tolerance)
