"""Laws of residuals, matched filters and the match of two vectors do what their formulas say."""

from __future__ import annotations

import numpy as np
import pytest

from specclip_search.queries.anomalies.match_network import mismatch
from specclip_search.queries.evaluation.learn_weights import climb, worth
from specclip_search.queries.translation.double_lined import double_lined
from specclip_search.queries.translation.matched_filters import (
    LRS_PATTERNS,
    apply_filters,
    learn_scale,
    raw_filters,
    templates,
)
from specclip_search.queries.translation.nuisance_shapes import (
    amplitude,
    dust_shape,
    extinction,
    lrs_shapes,
    velocity_shape,
    xp_shapes,
)
from specclip_search.queries.translation.residual_covariance import ResidualModel, learn_residual_model, whiten
from specclip_search.surveys import GAIA_XP, LAMOST_LRS

WAVE = np.asarray(LAMOST_LRS.wavelength)
XP_WAVE = np.asarray(GAIA_XP.wavelength)


def lines(shift_km_s: float = 0.0) -> np.ndarray:
    """A spectrum of forty lines."""
    rng = np.random.default_rng(3)
    centres, depth = rng.uniform(4020, 5580, 40), rng.uniform(0.1, 0.5, 40)
    moved = centres * (1 + shift_km_s / 299792.458)
    return 1 - (depth * np.exp(-0.5 * ((WAVE[:, None] - moved) / 1.8) ** 2)).sum(axis=1)


def test_whitening_equals_the_plain_inverse() -> None:
    rng = np.random.default_rng(0)
    n, q, e = 30, 3, 2
    law = ResidualModel(rng.normal(size=n), rng.normal(size=(n, q)), rng.uniform(0.5, 1, n))
    noise = rng.uniform(0.2, 1, (4, n))
    noise[1, :5] = np.inf
    residual, own = rng.normal(size=(4, n)), rng.normal(size=(4, e, n))
    found = whiten(law, residual, noise, own)
    for i in range(4):
        good = np.isfinite(noise[i])
        shapes = np.concatenate([law.shapes.T, own[i]])[:, good]
        covariance = np.diag(noise[i, good] ** 2 + law.sigma[good] ** 2) + shapes.T @ shapes
        centred = (residual[i] - law.mean)[good]
        expected = np.linalg.solve(covariance, centred)
        np.testing.assert_allclose(found.weighted[i, good], expected, rtol=1e-4, atol=1e-5)
        assert (found.weighted[i, ~good] == 0).all()
        assert found.chi2[i] == pytest.approx(centred @ expected / good.sum(), rel=1e-5)


def test_law_frees_shared_shapes_and_not_others() -> None:
    rng = np.random.default_rng(1)
    shape, noise = np.sin(np.linspace(0, 9, 200)), np.full((600, 200), 0.1)
    residual = rng.normal(size=(600, 1)) * shape + 0.1 * rng.normal(size=(600, 200))
    law = learn_residual_model(residual, noise, 4)
    other = np.cos(np.linspace(0, 31, 200))
    along, across = (whiten(law, 1.5 * s[None], noise[:1]).chi2[0] for s in (shape, other))
    assert along < 1.0 < 20 < across


def test_dust_curve_is_the_published_one() -> None:
    parameter_averages = pytest.importorskip("dust_extinction.parameter_averages", reason="dust-extinction is missing")
    import astropy.units as u

    expected = parameter_averages.CCM89(Rv=3.1)(XP_WAVE * u.nm) * 3.1
    np.testing.assert_allclose(extinction(XP_WAVE), expected, rtol=1e-3)


def test_dust_and_velocity_are_measured_and_cost_nothing() -> None:
    predicted = np.exp(-((XP_WAVE - 600) / 300) ** 2)[None]
    reddened = predicted * 10 ** (-0.4 * 0.05 * (extinction(XP_WAVE) - np.interp(550, XP_WAVE, extinction(XP_WAVE))))
    noise = np.full_like(predicted, 0.003)
    assert amplitude(reddened - predicted, noise, dust_shape(predicted, XP_WAVE))[0] == pytest.approx(0.05, rel=0.05)
    law = ResidualModel(np.zeros(343), np.zeros((343, 0)), np.full(343, 0.002))
    free = whiten(law, reddened - predicted, noise, xp_shapes(predicted, XP_WAVE)).chi2[0]
    assert free < 0.05 * whiten(law, reddened - predicted, noise).chi2[0]
    spectrum, moved = lines()[None], lines(40.0)[None]
    noise = np.full_like(spectrum, 0.01)
    assert amplitude(moved - spectrum, noise, velocity_shape(spectrum, WAVE))[0] == pytest.approx(40, rel=0.1)
    law = ResidualModel(np.zeros(len(WAVE)), np.zeros((len(WAVE), 0)), np.full(len(WAVE), 0.01))
    free = whiten(law, moved - spectrum, noise, lrs_shapes(spectrum, WAVE)).chi2[0]
    assert free < 0.05 * whiten(law, moved - spectrum, noise).chi2[0]


def test_filters_name_what_was_planted() -> None:
    rng = np.random.default_rng(2)
    noise = np.full((400, len(WAVE)), 0.02)
    law = ResidualModel(np.zeros(len(WAVE)), np.zeros((len(WAVE), 0)), np.full(len(WAVE), 1e-3))
    chosen = templates("lrs", WAVE)
    assert chosen.names == LRS_PATTERNS
    residual = 0.02 * rng.normal(size=noise.shape)
    scale = learn_scale(raw_filters(whiten(law, residual, noise), chosen))
    residual[0] += 0.1 * np.exp(-0.5 * ((WAVE - 4862.7) / 3) ** 2)
    residual[1] -= 0.1 * np.exp(-0.5 * ((WAVE - 4078.9) / 2) ** 2) + 0.1 * np.exp(-0.5 * ((WAVE - 4555.3) / 2) ** 2)
    residual[2] -= 0.5 * (np.abs(WAVE - 5400) < 3)
    found = apply_filters(whiten(law, residual, noise), chosen, scale)
    assert LRS_PATTERNS[int(found.patterns[0].argmax())] == "emission"
    assert LRS_PATTERNS[int(found.patterns[1].argmax())] == "s_process"
    assert found.peak[2] < -10
    assert found.peak_at[2] == pytest.approx(5400, abs=4)
    assert np.abs(found.patterns[3:]).max() < 6


def test_double_lines_are_told_from_a_shift() -> None:
    rng = np.random.default_rng(4)
    single, moved = lines(), lines(90.0)
    double = (lines(-60.0) + 0.7 * lines(150.0)) / 1.7
    observed = np.array([single, moved, double]) + 0.01 * rng.normal(size=(3, len(WAVE)))
    noise = np.full_like(observed, 0.01)
    noise[:, 700:720] = np.inf
    observed[:, 700:720] = 9.0
    share = double_lined(observed, noise, np.tile(single, (3, 1)), WAVE)
    assert share[2] > 0.5
    assert max(share[0], share[1]) < 0.1
    # lines far outside the lags that are tried: the correlation still rises at the last of them
    far = np.array([lines(velocity) for velocity in (-900.0, 900.0, 1500.0)])
    share = double_lined(far, np.full_like(far, 0.01), np.tile(single, (3, 1)), WAVE)
    assert np.all((share >= -10.0) & (share < 0.1))


def test_pairs_that_do_not_belong_together_are_told() -> None:
    rng = np.random.default_rng(5)
    n = 3000
    hidden = rng.normal(size=(n, 4))
    lrs, xp = (np.tanh(hidden @ rng.normal(size=(4, 40))) + 0.1 * rng.normal(size=(n, 40)) for _ in range(2))
    source_id = np.arange(n, dtype=np.int64) * 128 + (1 << 55)
    xp[:60] = np.roll(xp[:60], 1, axis=0)
    both = lrs.astype(np.float32).__getitem__, xp.astype(np.float32).__getitem__
    found = mismatch(*both, np.full((n, 2), 1.6), source_id)
    assert found is not None
    assert (found[:60] > np.quantile(found[60:], 0.99)).mean() > 0.9
    again = mismatch(*both, np.full((n, 2), 1.6), source_id)
    np.testing.assert_array_equal(found, again)
    assert mismatch(*both, np.full((100, 2), 1.6), source_id[:100]) is None


def test_weights_climb_to_what_tells() -> None:
    rng = np.random.default_rng(6)
    powers = rng.exponential(1, (2000, 3))
    classes = np.full(2000, "", dtype="U10")
    classes[:40] = "odd"
    powers[:40, 1] += 8
    weights, reached = climb(powers, classes, ["a", "b", "c"])
    assert weights["b"] > max(weights["a"], weights["c"])
    assert reached > worth(powers @ np.full(3, 0.5), classes)


def test_weak_signs_of_a_wrong_match_add_up():
    from specclip_search.queries.anomalies.identity import IDENTITY, identity_sum

    z = np.zeros((4, len(IDENTITY)), np.float32)
    z[0] = 4.0
    z[1, 0] = 60.0
    z[2, 0] = 600.0
    alone, held = identity_sum(z)[1:3]
    assert identity_sum(z)[0] > alone > 0.0  # a little of everything says more than much of one
    assert held == alone
    assert identity_sum(z)[3] == 0.0


def test_identity_weights_are_those_of_the_law_that_made_the_data() -> None:
    from specclip_search.queries.evaluation.learn_weights import logistic_weights

    rng = np.random.default_rng(8)
    values = rng.normal(0, 1, (40_000, 3))
    chance = 1.0 / (1.0 + np.exp(5.0 - values @ [2.0, 0.5, 0.0]))
    found = logistic_weights(values, rng.random(len(values)) < chance)
    np.testing.assert_allclose(found, [2.0, 0.5, 0.0], atol=0.1)
