"""XP trees of the EMP search: the same answers as the library that grew them, and their share of the odds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from specclip_search.keys import split_of
from specclip_search.training.xp_metallicity.networks import load_network
from specclip_search.training.xp_metallicity.train_networks import Stars
from specclip_search.training.xp_metallicity.train_trees import _arrays, train
from specclip_search.training.xp_metallicity.trees import SHARE, XpTrees, features, load_trees, pack, unpack, with_trees

FIRST = 5_853_418_002_145_112_704


@pytest.fixture(scope="module")
def stars() -> Stars:
    """Spectra whose one line deepens with [Fe/H]."""
    rng = np.random.default_rng(3)
    n = 2400
    feh = rng.uniform(-2.5, 0.4, n)
    axis = np.linspace(-1, 1, 343)
    line = np.exp(-0.5 * ((axis + 0.5) / 0.05) ** 2)
    flux = np.exp(-0.1 * (4.5 + feh)[:, None] * line + 0.3 * rng.normal(size=(n, 1)) * axis)
    flux = (flux / flux[:, [107]] + rng.normal(0, 0.005, flux.shape)).astype(np.float32)
    source_id = FIRST + np.arange(n, dtype=np.int64) * 128
    nothing = np.full(n, np.nan)
    return Stars(flux, np.full_like(flux, 0.005), source_id, np.zeros(n, bool), feh, nothing)


@pytest.fixture(scope="module")
def trees(stars: Stars) -> XpTrees:
    pytest.importorskip("sklearn")
    return train(stars, seed=0, trees=40, rate=0.15, bins=32)


def test_same_answers_as_the_library(stars: Stars) -> None:
    ensemble: Any = pytest.importorskip("sklearn.ensemble")
    mean, axes = np.zeros(343), np.eye(343)[:, ::60]
    values = features(stars.flux, mean, axes)
    model = ensemble.HistGradientBoostingRegressor(max_iter=30, max_leaf_nodes=15, early_stopping=False)
    model.fit(values, stars.feh)
    one = {name: np.stack([column] * 4) for name, column in _arrays(model).items()}
    mine = XpTrees(mean, axes, **one).estimate(stars.flux, stars.source_id)
    np.testing.assert_allclose(mine, model.predict(values), atol=1e-5)


def test_trees_judge_stars_they_never_saw(stars: Stars, trees: XpTrees) -> None:
    found = trees.estimate(stars.flux, stars.source_id)
    unseen = split_of(stars.source_id) >= 8
    for chosen in (unseen, ~unseen):
        assert np.corrcoef(found[chosen], stars.feh[chosen])[0, 1] > 0.9
    # as good for stars that taught other groups as for those that taught none
    error = [np.std((found - stars.feh)[chosen]) for chosen in (~unseen, unseen)]
    assert error[0] > 0.9 * error[1]
    assert found.min() > -2.7
    # unknown stars ask all groups, as those of the splits 8 and 9 do
    np.testing.assert_array_equal(
        trees.estimate(stars.flux[:5], np.full(5, -1)), trees.estimate(stars.flux[:5], np.full(5, 8 << 7))
    )


def test_trees_survive_their_file_and_bad_spectra(stars: Stars, trees: XpTrees) -> None:
    flux = stars.flux[:4].copy()
    flux[2, 9] = np.nan
    again = unpack(pack(trees, "a note")).estimate(flux, stars.source_id[:4])
    np.testing.assert_array_equal(again, trees.estimate(flux, stars.source_id[:4]))
    assert np.isfinite(again).tolist() == [True, True, False, True]


def test_share_fades_where_no_real_star_taught() -> None:
    odds, feh = np.array([2.0, 2.0, -1.0]), np.array([-1.0, -3.0, np.nan])
    np.testing.assert_array_equal(with_trees(odds, feh, -3.0), odds)
    at_two = with_trees(odds, feh, -2.0)
    np.testing.assert_allclose(at_two, [2.0 - SHARE * 8.0, 2.0 + SHARE * 4.0, -1.0])
    half = with_trees(odds, feh, -2.5)
    np.testing.assert_allclose(half[0], 2.0 + 0.5 * SHARE * (-9.0 - 2.0))


def test_shipped_trees_keep_a_very_red_spectrum_from_looking_poor() -> None:
    from specclip_search.simulation.spectra.emulator import Emulator
    from specclip_search.simulation.spectra.gaia_xp import model_xp
    from specclip_search.simulation.spectra.reddening import xp_extinction

    shipped, network = load_trees(), load_network()
    assert shipped is not None
    assert network is not None
    flux = model_xp(Emulator.load(), np.array([[4900, 2.0, feh, 0.3, 0.1] for feh in (-0.5, -1.4, -2.3)]))
    found = shipped.estimate(flux / flux[:, [107]], np.full(3, -1))
    assert (np.diff(found) < -0.2).all()
    red = flux[:1] * 10.0 ** (-0.4 * 4.0 * xp_extinction())
    assert shipped.estimate(red / red[:, [107]], np.full(1, -1))[0] > -1.6
