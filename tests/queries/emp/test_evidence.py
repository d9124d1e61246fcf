"""Parts of the EMP probability: networks on XP flux, how they are taught, and how parts are put together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from specclip_search.keys import split_of
from specclip_search.queries.emp import combination
from specclip_search.queries.emp.combination import Combination, combination_for, learn, plain, to_json
from specclip_search.queries.emp.estimates import log_odds
from specclip_search.queries.emp.probability import logistic
from specclip_search.queries.emp.scores import combined_feh, together
from specclip_search.training.xp_metallicity.networks import XpNetwork, load_network, pack, unpack
from specclip_search.training.xp_metallicity.train_networks import (
    SIMULATED_BELOW,
    Stars,
    draw_weights,
    principal_axes,
    train,
)
from specclip_search.training.xp_metallicity.variation import variation

FIRST = 5_853_418_002_145_112_704


@pytest.fixture(scope="module")
def stars() -> Stars:
    """Spectra with one line for iron and one for carbon, on a slope that dust changes."""
    rng = np.random.default_rng(3)
    n = 3000
    feh = np.concatenate([rng.normal(-0.5, 0.5, n - 600), rng.uniform(-4, -1, 600)])
    made = np.arange(n) >= n - 300
    c_fe = np.where(rng.random(n) < 0.3, 1.5, 0.1)
    axis = np.linspace(-1, 1, 343)
    iron, carbon = (np.exp(-0.5 * ((axis - at) / 0.05) ** 2) for at in (-0.5, 0.3))
    depth = 0.1 * (4.5 + feh)
    flux = np.exp(-depth[:, None] * iron - 0.2 * c_fe[:, None] * carbon + 0.3 * rng.normal(size=(n, 1)) * axis)
    flux = flux / flux[:, [107]] + rng.normal(0, 0.01, flux.shape)
    source_id = FIRST + np.arange(n, dtype=np.int64) * 128
    return Stars(flux.astype(np.float32), np.full(flux.shape, 0.01, np.float32), source_id, made, feh, c_fe)


@pytest.fixture(scope="module")
def network(stars: Stars) -> XpNetwork:
    return train(stars, seed=1, steps=150, hidden=32, members=1)


def test_networks_learn_iron_and_carbon(stars: Stars, network: XpNetwork) -> None:
    unseen = np.flatnonzero(split_of(stars.source_id) == 9)
    found = network.estimate(stars.flux[unseen], stars.source_id[unseen])
    poor = stars.feh[unseen] < -2
    assert np.corrcoef(found["feh"], stars.feh[unseen])[0, 1] > 0.9
    rich = stars.c_fe[unseen] > 1
    assert np.median(found["c_fe"][poor & rich]) > np.median(found["c_fe"][poor & ~rich]) + 0.3
    # errors are of the size of the residuals
    pull = (found["feh"] - stars.feh[unseen])[stars.feh[unseen] < -1] / found["feh_err"][stars.feh[unseen] < -1]
    assert 0.4 < np.quantile(np.abs(pull), 0.683) < 2.0


def test_a_star_is_judged_by_networks_that_never_saw_it(stars: Stars, network: XpNetwork) -> None:
    factor = np.where(network.group == 1, 2.0, 1.0).astype(np.float32)[:, None, None]
    other = replace(network, weights=tuple((weight * factor, bias) for weight, bias in network.weights))
    before = network.estimate(stars.flux, stars.source_id)["feh"]
    changed = other.estimate(stars.flux, stars.source_id)["feh"] != before
    group = split_of(stars.source_id) // 2
    np.testing.assert_array_equal(changed, (group == 1) | (group == 4))
    nameless = network.estimate(stars.flux[:5], np.full(5, -1))
    everyone = network.estimate(stars.flux[:5], np.full(5, 8 << 7))
    np.testing.assert_array_equal(nameless["feh"], everyone["feh"])


def test_networks_survive_their_file(stars: Stars, network: XpNetwork) -> None:
    again = unpack(pack(network, "a note"))
    old, new = (one.estimate(stars.flux[:50], stars.source_id[:50]) for one in (network, again))
    for name in old:
        np.testing.assert_allclose(new[name], old[name], atol=0.02)


def test_spectra_that_are_not_finite_have_no_estimate(stars: Stars, network: XpNetwork) -> None:
    flux = stars.flux[:3].copy()
    flux[1, 7] = np.nan
    found = network.estimate(flux, stars.source_id[:3])
    assert np.isfinite(found["feh"]).tolist() == [True, False, True]


def test_who_teaches_and_how_often(stars: Stars) -> None:
    taught = split_of(stars.source_id) < 6
    weight = draw_weights(stars, taught)
    made = stars.simulated
    assert (weight[~taught] == 0).all()
    assert (weight[made & (stars.feh >= SIMULATED_BELOW)] == 0).all()
    assert 0.02 < weight[made].sum() / weight.sum() < 0.1
    real = weight > 0
    real &= ~made
    assert weight[real & (stars.feh < -2)].mean() > 4 * weight[real & (stars.feh > -1)].mean()


def test_poor_stars_change_by_dust_and_their_own_noise(stars: Stars) -> None:
    from specclip_search.simulation.spectra.reddening import xp_extinction

    may = ~stars.simulated & (stars.feh < -1)
    _, axes = principal_axes(stars.flux, 20)
    changes = variation(stars.flux, stars.error, may, axes)
    assert (changes.noise[~may] == 0).all()
    assert (changes.noise[may] > 0).all()
    # dust adds in ln flux: the same shift as of the dimmed spectrum itself
    ratio = 10.0 ** (-0.4 * 0.3 * (xp_extinction() - xp_extinction()[107]))
    np.testing.assert_allclose(np.log(ratio) @ axes, 0.3 * changes.dust, rtol=1e-4, atol=1e-3)
    # as large as noise drawn pixel by pixel
    star = np.flatnonzero(may)[0]
    rng = np.random.default_rng(2)
    kernel = np.exp(-0.5 * (np.arange(-4, 5) / 1.5) ** 2)
    kernel /= np.sqrt(np.sum(kernel**2))
    drawn = np.stack([np.convolve(row, kernel, "same") for row in rng.normal(size=(2000, 343))])
    spread = ((stars.error[star] / stars.flux[star] * drawn) @ axes).std(axis=0)
    np.testing.assert_allclose(changes.noise[star], spread, rtol=0.1)
    rows = np.arange(len(may))
    middle = np.zeros((len(may), 20))
    moved = changes.applied(middle, rows, rng)
    assert (moved[~may] == 0).all()
    assert 0.7 < (moved[may] != 0).any(axis=1).mean() < 0.9


def test_shipped_networks_know_poor_from_rich() -> None:
    from specclip_search.simulation.spectra.emulator import Emulator
    from specclip_search.simulation.spectra.gaia_xp import model_xp

    shipped = load_network()
    assert shipped is not None
    flux = model_xp(Emulator.load(), np.array([[5000, 2.4, feh, 0.3, 0.1] for feh in (-0.5, -1.5, -2.5, -3.3)]))
    found = shipped.estimate(flux / flux[:, [107]], np.full(4, -1))
    assert (np.diff(found["feh"]) < -0.2).all()
    assert found["feh"][0] > -1.2
    assert found["feh"][3] < -2.2


def simulated_voices(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two voices' odds of being below -2, one good, one of no use; the truth; who is simulated."""
    feh = np.concatenate([rng.normal(-1, 0.6, n), rng.uniform(-4, -1, n // 4)])
    made = np.arange(len(feh)) >= n
    good = (-2 - feh - rng.normal(0, 0.15, len(feh))) / 0.1
    return np.stack([good, rng.normal(0, 3, len(feh))]), feh < -2, made


def test_combination_learns_whom_to_believe_and_stays_calibrated() -> None:
    odds, truth, made = simulated_voices(np.random.default_rng(0), 8000)
    below = np.full(len(truth), -2.0)
    found = learn(("xp_estimator", "neighbours"), odds, below, truth, made)
    assert found.weights[0] > 10 * found.weights[1] >= 0
    fresh, fresh_truth, fresh_made = simulated_voices(np.random.default_rng(1), 8000)
    probability = found.predict(fresh[:, ~fresh_made], -2.0)
    assert probability.sum() == pytest.approx(fresh_truth[~fresh_made].sum(), rel=0.1)
    for low, high in ((0.05, 0.3), (0.3, 0.7), (0.7, 0.95)):
        inside = (probability > low) & (probability < high)
        assert fresh_truth[~fresh_made][inside].mean() == pytest.approx(probability[inside].mean(), abs=0.12)


def test_where_nothing_was_learned_log_odds_are_averaged() -> None:
    one = plain(("xp_network", "neighbours"))
    np.testing.assert_allclose(one.predict(np.array([[2.0], [0.0]]), -3.0), logistic(np.array([1.0])))
    assert (one.stars, one.positives) == (0, 0)


def test_shipped_combinations_are_found_by_parts_and_model(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Combination(("xp_network", "neighbours"), (0.7, 0.2), (0.9, 0.0), -0.5, 0.3, 900, 30)
    content: dict[str, Any] = to_json([kept], "sha256:a", {})
    monkeypatch.setattr(combination, "_shipped", lambda: content)
    assert combination_for(kept.parts, "sha256:a") == (kept, "")
    found, note = combination_for(kept.parts, "sha256:b")
    assert found == kept
    assert "another model" in note
    assert "equally" in combination_for(("lrs_estimator", "neighbours"), "sha256:a")[1]
    assert combination_for(("neighbours",), "sha256:a")[1] == ""
    # below -3 nobody can check: the constant stays
    odds = np.zeros((2, 1))
    assert kept.predict(np.array([[1.0], [1.0]]), -2.5) == pytest.approx(logistic(np.array(-0.5 - 0.15 + 0.8 + 0.1)))
    assert kept.predict(odds, -4.0) == kept.predict(odds, -3.0) < kept.predict(odds, -2.0)


def test_estimates_put_together() -> None:
    feh = np.array([[-2.0, -2.0, np.nan], [-3.0, np.nan, np.nan]])
    error = np.array([[0.1, 0.1, np.nan], [0.2, np.nan, np.nan]])
    with np.errstate(all="raise"):
        mean, sigma = together(feh, error)
    np.testing.assert_allclose(mean, [-2.2, -2.0, np.nan])
    # two that disagree by a whole dex are worth less than either
    assert sigma[0] > 0.3
    np.testing.assert_allclose(sigma[1:], [0.1, np.nan])


def test_labelled_neighbours_do_not_hold_a_poor_star_up() -> None:
    others = np.array([-1.0, -2.5, -3.4, np.nan])
    feh = np.stack([np.full(4, np.nan), others, others, np.array([-1.2, -2.2, -2.3, -2.2])])
    found, error = combined_feh(feh, np.where(np.isfinite(feh), 0.2, np.nan))
    # all weight above -2, half of it at -2.5, none at -3.4, all where there is nothing else
    np.testing.assert_allclose(found, [-3.2 / 3, (-5.0 - 1.1) / 2.5, -3.4, -2.2], atol=0.002)
    assert np.isfinite(error).all()


def test_log_odds_are_bounded() -> None:
    np.testing.assert_allclose(logistic(log_odds(np.array([0.0, 0.3, 1.0]))), [1e-4, 0.3, 1 - 1e-4])
