"""Figures of merit against values that can be checked by hand."""

import numpy as np
import pyarrow as pa
import pytest

from specclip_search.queries.evaluation.anomalies import _limit, strangeness
from specclip_search.queries.evaluation.measures import average_precision, middle, rank_correlation, ranked, share
from specclip_search.queries.evaluation.parts import _listed, _ranks, label_errors
from specclip_search.queries.evaluation.truth import Truth
from specclip_search.training.fit.validation import pair_retrieval


def test_wilsons_interval():
    eight = share("m", "g", np.arange(10) < 8)
    assert (eight.value, eight.n) == (0.8, 10)
    # Wilson 1927; e.g. Newcombe 1998, method 3
    assert (eight.low, eight.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    none = share("m", "g", np.zeros(20, dtype=bool))
    assert none.low == 0.0
    assert 0.1 < none.high < 0.2
    assert np.isnan(share("m", "g", np.empty(0, dtype=bool)).value)


def test_the_medians_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(400):
        found = middle("m", "g", rng.exponential(size=101))
        inside += found.low <= np.log(2.0) <= found.high
    assert inside / 400 == pytest.approx(0.955, abs=0.03)


def test_average_precision_by_hand():
    score = np.array([9.0, 8.0, 7.0, 6.0, 5.0])
    positive = np.array([True, False, True, False, False])
    assert average_precision(score, positive) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(np.ones(4), np.array([True, False, False, False])) == 0.25
    found = ranked("m", "g", np.arange(100.0), np.arange(100) >= 90, seed=1)
    assert (found.value, found.low, found.high, found.n) == (1.0, 1.0, 1.0, 10)


def test_the_bootstrap_is_that_of_spectra_drawn_one_by_one():
    rng = np.random.default_rng(4)
    score = np.concatenate([rng.normal(1.5, 1.0, 40), rng.normal(0.0, 1.0, 3000)])
    positive = np.arange(3040) < 40
    found = ranked("m", "g", score, positive, seed=2)
    assert found.value == pytest.approx(average_precision(score, positive))
    drawn = [
        average_precision(np.concatenate([rng.choice(score[:40], 40), rng.choice(score[40:], 3000)]), positive)
        for _ in range(400)
    ]
    assert (found.low, found.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.03)
    level = ranked("m", "g", np.ones(4), np.arange(4) == 0, seed=0)
    assert level.value == average_precision(np.ones(4), np.arange(4) == 0) == 0.25
    assert ranked("m", "g", np.ones(2), np.ones(2, dtype=bool), seed=0).low == 1.0


def test_a_stars_own_spectra_count_as_one():
    candidates = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.8, 0.6]])
    owners = np.array([5, 5, 7, 9])
    rank, near = _ranks(np.array([[0.0, 1.0], [1.0, 0.0]]), candidates, np.array([5, 9]), owners)
    assert rank.tolist() == [2, 2]
    assert near[0].tolist() in ([2, 3], [3, 2])


def test_lists_and_best_visits():
    ids = np.arange(4, dtype=np.int64)
    truth = Truth(ids, {}, ids, np.arange(5), ids, np.array([5.0, 9.0, 3.0, 30.0, 2.0]), np.array([0, 0, 1, 3, 8]))
    assert truth.best_snr().tolist() == [9.0, 3.0, 0.0, 30.0]
    poor = np.array([False, True, False, True, False, False, False, False])
    rows = {(m.metric, m.group): m for m in _listed("poor", "all", -np.arange(8.0), poor, 0)}
    assert rows["poor completeness", "all, first 2 (1 x as many as there are)"].value == 0.5
    assert rows["poor purity", "all, first 4 (2 x as many as there are)"].value == 0.5
    assert rows["poor average precision", "all"].value == pytest.approx((1 / 2 + 2 / 4) / 2)


def test_estimates_against_the_truth():
    rng = np.random.default_rng(6)
    count = 3000
    ids = np.arange(count, dtype=np.int64) + 2**62
    seen = np.where(np.arange(count) < 100, "emission", "").astype(object)
    kind = np.where(seen == "", "", "astrophysical").astype(object)
    names = ("teff", "logg", "feh", "alpha_fe", "c_fe", "rv")
    numbers = {f"true_{name}": rng.uniform(-2.5, 0.5, count) for name in names}
    truth = Truth(ids, numbers, kind, ids, seen, np.full(count, 30.0), ids)
    columns = {"spec_id": ids, "source_id": ids}
    for name in names:
        # what is odd is far off and must not count
        off = np.where(seen == "", rng.normal(0.0, 0.1, count), 50.0)
        columns |= {name: numbers[f"true_{name}"] + off, f"{name}_err": np.full(count, 0.1)}
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    for short in ("LRS", "XP"):
        rows = {(m.metric, m.group): m for m in label_errors(table, short, truth)}
        for name, unit in (("feh", "dex"), ("teff", "K"), ("rv", "km/s")):
            off = rows[f"{short} estimate of {name} off by [{unit}]", "all"]
            assert (off.value, off.n) == (pytest.approx(0.0674, rel=0.1), count - 100)
            assert rows[f"{short} {name} within stated error", "all"].value == pytest.approx(0.683, abs=0.03)
        assert (f"{short} estimate of feh off by [dex]", "[Fe/H] -5 to -3") not in rows


def test_rank_correlation_and_its_interval():
    rng = np.random.default_rng(2)
    x = rng.normal(size=2000)
    found = rank_correlation("m", "g", x, 0.5 * x + rng.normal(size=2000))
    assert found.low < found.value < found.high
    # Spearman of a binormal sample: 6/pi asin(r/2)
    assert found.value == pytest.approx(6 / np.pi * np.arcsin(0.5 / np.sqrt(1.25) / 2), abs=0.05)
    assert np.isnan(rank_correlation("m", "g", x, np.ones(2000)).value)


def test_ranks_agree_with_the_retrieval_that_training_uses():
    rng = np.random.default_rng(3)
    a = rng.normal(size=(700, 12))
    b = a + rng.normal(size=a.shape)
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
    star = np.arange(700) + 2**60
    mixed = rng.permutation(700)
    rank, near = _ranks(a, b[mixed], star, star[mixed])
    truth = pair_retrieval(a, b, centre=False)
    assert ((rank < 1).mean(), (rank < 10).mean()) == (truth["r1_a"], truth["r10_a"])
    assert not (star[mixed][near] == star[:, None]).any()


def test_anomaly_rows():
    count = 1000
    obsid = np.arange(count, dtype=np.int64) + 2**62
    seen = np.full(count, "", dtype=object)
    seen[:10], seen[10:20] = "emission", "bad_join"
    numbers = {"true_rv": np.linspace(-300, 300, count), "ebv": np.linspace(0, 1, count)}
    truth = Truth(obsid, numbers, seen, obsid, seen, np.full(count, 30.0), obsid)
    score = np.random.default_rng(1).random(count)
    score[:10] += 2.0
    z = {"emission": -score, "join": np.where(seen == "bad_join", 5.0, score)}
    rows = {(m.metric, m.group): m for m in strangeness(truth, obsid, score, obsid, 0, z)}
    assert rows["anomaly average precision", "emission"].value == 1.0
    assert rows["anomaly average precision", "bad_join"].value < 0.1
    assert rows["anomaly recall in top 1.0%", "emission"].value == 1.0
    assert rows["anomaly recall in top 0.1%", "emission"].value == 0.1
    assert rows["anomaly recall in top 1.0%", "any oddity"].value == 0.5
    assert rows["anomaly average precision", "instrumental"].n == 10
    assert abs(rows["anomaly score's rank correlation with E(B-V)", "normal"].value) < 0.1
    assert ("anomaly average precision", "hot_subdwarf") not in rows
    assert rows["average precision of the list by join", "bad_join"].value == 1.0
    assert rows["average precision of the list by emission", "emission"].value < 0.1
    assert ("average precision of the list by identity", "wrong_match") not in rows
    assert rows["anomaly average precision", "emission, S/N 20-40"].value == 1.0
    assert ("anomaly average precision", "emission, S/N 40-80") not in rows


def test_the_limit_of_a_list():
    assert _limit(np.arange(1000.0), 0.01) == 990.0
    assert _limit(np.arange(10.0), 0.001) == 9.0
