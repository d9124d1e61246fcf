"""Stars spread over all that the models cover: labels, ids above every Gaia id, and shards that resume."""

from __future__ import annotations

import numpy as np
import pytest

from specclip_search import Atlas
from specclip_search.keys import ACCEPTANCE_SPLIT, split_of
from specclip_search.simulation.samples.spread import draw_labels, simulate_spread, spread_ids
from specclip_search.simulation.spectra.emulator import Emulator
from specclip_search.simulation.spectra.labels import SimulationError


def test_labels_are_covered_and_reach_everywhere():
    emulator = Emulator.load()
    labels = draw_labels(emulator, 2000, np.random.default_rng(1))
    assert emulator.covers(labels).all()
    assert 0.18 < np.mean(labels[:, 2] < -1.2) < 0.32
    assert np.mean(labels[:, 0] > 7000) > 0.08
    assert np.ptp(labels[:, 1]) > 3.5


def test_ids_are_unique_large_and_never_acceptance_stars():
    ids = spread_ids(1000)
    assert ids.dtype == np.int64
    assert len(np.unique(ids)) == 1000
    assert ids.min() > 6 * 10**18 > 2**53
    assert ACCEPTANCE_SPLIT not in split_of(ids)
    assert set(split_of(ids)) == set(range(9))


def test_the_same_seed_gives_the_same_shards_and_a_second_run_nothing(tmp_path):
    first, second = Atlas.create(tmp_path / "a"), Atlas.create(tmp_path / "b")
    report = simulate_spread(first, 12, seed=3)
    assert (report.read, report.shards_written) == (12, 1)
    assert report.kept + sum(report.rejected.values()) == 12
    simulate_spread(second, 12, seed=3)
    assert first.spectra("lamost_lrs").digest == second.spectra("lamost_lrs").digest
    again = simulate_spread(first, 12, seed=3)
    assert (again.shards_current, again.shards_written) == (1, 0)
    truth, spectra = first.catalog("truth_spread").read(), first.spectra("lamost_lrs").read(["source_id"])
    assert set(spectra["source_id"].to_pylist()) <= set(truth["source_id"].to_pylist())
    assert simulate_spread(first, 12, seed=4).shards_written == 1
    assert len(first.spectra("lamost_lrs").parts()) == 1


def test_no_stars_is_an_error(tmp_path):
    with pytest.raises(SimulationError, match="at least 1; found 0"):
        simulate_spread(Atlas.create(tmp_path / "a"), 0)
