"""Label estimators: they learn, their errors cover, and they are bound to the weights of their model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from specclip_search.errors import CheckpointError, QueryError
from specclip_search.training.estimators.calibration import calibrate
from specclip_search.training.estimators.data import LabelledVectors
from specclip_search.training.estimators.estimators import (
    CARD,
    TENSORS,
    Estimators,
    InstrumentEstimator,
    load_estimators,
    read_estimators,
    save_estimators,
)
from specclip_search.training.estimators.metrics import measured
from specclip_search.training.estimators.network import Mixture
from specclip_search.training.estimators.train import (
    EstimatorRecipe,
    fit_instrument,
    star_weights,
    with_hot_compositions,
)
from specclip_search.training.networks.label_scale import CARBON_GUESSED, ERROR_FLOOR, FAR, LOW_SNR, SNR_UNKNOWN

LRS, XP = "lamost_lrs", "gaia_xp"
SMALL = EstimatorRecipe(xp_axes=16, lrs_axes=16, hidden=32, epochs=12, members=1)


def made_up(count: int = 4000, seed: int = 0, labels: int = 5) -> LabelledVectors:
    """Vectors that tell [Fe/H] with an error of 0.1 and Teff of 60 K, worse at low S/N."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(count, 24)) / np.arange(1, 25)
    vectors = hidden @ np.linalg.qr(np.random.default_rng(9).normal(size=(32, 24)))[0].T
    vectors += np.array([2.0, *np.zeros(31)])
    snr = rng.uniform(5, 300, count)
    noise = np.where(snr < 50, 2.0, 1.0)
    y = np.full((count, labels), np.nan)
    y[:, 0] = 5000 * np.exp(0.1 * hidden[:, 0]) + 60 * noise * rng.normal(size=count)
    y[:, 1] = 3 + hidden[:, 1] + 0.1 * rng.normal(size=count)
    y[:, 2] = -1 + hidden[:, 0] + 0.1 * noise * rng.normal(size=count)
    y[::5, 2] = np.nan
    y[:, 3] = 0.2 + 0.2 * hidden[:, 3] + 0.05 * rng.normal(size=count)
    rich = y[:, 2] < -1
    y[rich, 4] = hidden[rich, 2]
    if labels == 6:
        y[:, 5] = 100 * hidden[:, 5]
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)
    return LabelledVectors(vectors, y, snr, np.arange(count, dtype=np.int64) << 7, np.zeros(count, bool))


@pytest.fixture(scope="module")
def trained() -> tuple[InstrumentEstimator, LabelledVectors]:
    data = made_up(10_000)
    return fit_instrument(XP, data, SMALL), data


@pytest.fixture(scope="module")
def folder(trained: tuple[InstrumentEstimator, LabelledVectors], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("estimators")
    lrs = fit_instrument(LRS, made_up(labels=6), SMALL)
    save_estimators(path, "sha256:a", {XP: trained[0], LRS: lrs}, {"seen": 1})
    return path


@pytest.fixture
def estimators(folder: Path) -> Estimators:
    return read_estimators(folder, "sha256:a")


def test_mixtures_agree_with_samples() -> None:
    rng = np.random.default_rng(0)
    weights, means, sigmas = np.array([0.7, 0.3]), np.array([0.0, 2.0]), np.array([1.0, 0.5])
    one = Mixture(weights[None, None], means[None, None], sigmas[None, None])
    which = rng.choice(2, size=400_000, p=weights)
    drawn = rng.normal(means[which], sigmas[which])
    assert one.mean[0, 0] == pytest.approx(drawn.mean(), abs=0.01)
    assert one.below(np.array(1.0))[0, 0] == pytest.approx((drawn < 1).mean(), abs=0.005)
    low, high = np.quantile(drawn, [0.1585, 0.8415])
    assert one.sigma[0, 0] == pytest.approx((high - low) / 2, abs=0.01)
    moved = one.stretched(np.array(2.0), np.array(0.5), np.array(0.3))
    wide = drawn.mean() + 2 * (drawn - drawn.mean()) - 0.5 + rng.normal(0, 0.3, len(drawn))
    assert moved.mean[0, 0] == pytest.approx(wide.mean(), abs=0.02)
    assert moved.quantile(0.9)[0, 0] == pytest.approx(np.quantile(wide, 0.9), abs=0.03)
    edges = np.linspace(-6, 8, 4001)
    many = Mixture(*(np.repeat(array, len(edges), 0) for array in (one.weights, one.means, one.sigmas)))
    density = np.exp(many.log_density(edges[:, None]))
    assert np.trapezoid(density[:, 0], edges) == pytest.approx(1, abs=1e-3)


def test_they_learn_and_their_errors_cover(estimators: Estimators) -> None:
    new = made_up(seed=5)
    got = estimators.estimate(XP, new.vectors, new.snr)
    known = np.isfinite(new.labels[:, 2])
    assert 1.4826 * np.median(np.abs(got["teff"] - new.labels[:, 0])) < 100
    for label, column in (("teff", 0), ("feh", 2), ("logg", 1)):
        pull = (np.abs(got[label] - new.labels[:, column]) / got[label + "_err"])[known]
        assert 0.62 < np.mean(pull < 1) < 0.75, label
        assert np.mean(pull < 2) > 0.9, label
    low = new.snr < 50
    assert np.median(got["feh_err"][low]) > 1.4 * np.median(got["feh_err"][~low])
    assert np.isnan(got["rv"]).all()
    assert np.isnan(got["rv_err"]).all()


def test_probabilities_are_calibrated_and_agree_with_values(estimators: Estimators) -> None:
    new = made_up(seed=6)
    below = estimators.probability_below(XP, new.vectors, "feh", -1.5, new.snr)
    known = np.isfinite(new.labels[:, 2])
    assert below[known].mean() == pytest.approx((new.labels[known, 2] < -1.5).mean(), abs=0.02)
    middle = known & (below > 0.3) & (below < 0.7)
    assert 0.35 < (new.labels[middle, 2] < -1.5).mean() < 0.65
    whole = estimators.estimate_all(XP, new.vectors, new.snr)
    assert np.array_equal(whole["feh_p_below_m2"], estimators.probability_below(XP, new.vectors, "feh", -2, new.snr))
    assert (whole["feh_p_below_m3"] <= whole["feh_p_below_m2"]).all()
    with pytest.raises(QueryError, match="No estimator gives 'rv' from gaia_xp"):
        estimators.probability_below(XP, new.vectors, "rv", 0)


def test_flags_say_what_cannot_be_trusted(estimators: Estimators) -> None:
    new = made_up(400, seed=7)
    got = estimators.estimate(XP, new.vectors, new.snr)
    assert np.mean(got["flag"] & FAR > 0) < 0.05
    assert not (got["flag"] & (SNR_UNKNOWN | LOW_SNR)).any()
    assert np.array_equal(got["flag"] & CARBON_GUESSED > 0, got["feh"] > -0.8)
    strange = np.random.default_rng(1).normal(size=(50, 32))
    strange /= np.linalg.norm(strange, axis=1, keepdims=True)
    far = estimators.estimate(XP, strange)
    assert (far["flag"] & FAR > 0).all()
    assert (far["flag"] & SNR_UNKNOWN > 0).all()
    assert far["distance"].min() > np.median(got["distance"])
    faint = estimators.estimate(XP, new.vectors, np.full(400, 0.5))
    assert (faint["flag"] & LOW_SNR > 0).all()


def test_lrs_errors_have_the_floor_of_real_spectra(estimators: Estimators) -> None:
    new = made_up(400, seed=8, labels=6)
    got = estimators.estimate(LRS, new.vectors, new.snr)
    for label, floor in ERROR_FLOOR[LRS].items():
        assert got[label + "_err"].min() > 0.99 * floor, label
    assert np.corrcoef(got["rv"], new.labels[:, 5])[0, 1] > 0.9


def test_files_keep_every_number_and_are_bound_to_weights(
    trained: tuple[InstrumentEstimator, LabelledVectors], folder: Path, estimators: Estimators, tmp_path: Path
) -> None:
    one, data = trained
    before = one.posterior(XP, data.vectors[:50], data.snr[:50])[1]
    after = estimators.instruments[XP].posterior(XP, data.vectors[:50], data.snr[:50])[1]
    assert np.abs(before.mean - after.mean).max() < 1e-4
    assert np.abs(before.sigma - after.sigma).max() < 1e-4
    with pytest.raises(CheckpointError, match="belong to the weights sha256:a; these are sha256:b"):
        read_estimators(folder, "sha256:b")
    for name in (CARD, TENSORS):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with open(tmp_path / TENSORS, "r+b") as file:
        file.seek(-5, 2)
        file.write(b"?")
    with pytest.raises(CheckpointError, match=r"does not match estimators\.json"):
        read_estimators(tmp_path, "sha256:a")
    (tmp_path / CARD).write_text("{}")
    with pytest.raises(CheckpointError, match="not a readable card"):
        read_estimators(tmp_path, "sha256:a")
    stale = SimpleNamespace(folder=folder, digest="sha256:b", name="m")
    with pytest.raises(CheckpointError, match="belong to the weights"):
        load_estimators(stale)  # type: ignore[arg-type]
    nothing = SimpleNamespace(folder=tmp_path / "no", digest="sha256:other", name="m")
    assert load_estimators(nothing) is None  # type: ignore[arg-type]


def test_wrong_arrays_are_refused(estimators: Estimators) -> None:
    with pytest.raises(QueryError, match=r"shape \(N, 32\); found \(3, 7\)"):
        estimators.estimate(XP, np.ones((3, 7)))
    with pytest.raises(QueryError, match=r"snr must have shape \(3,\)"):
        estimators.estimate(XP, np.ones((3, 32)), np.ones(2))
    with pytest.raises(QueryError, match="found 'gaia'"):
        estimators.estimate("gaia", np.ones((3, 32)))
    assert estimators.estimate(XP, np.empty((0, 32)))["teff"].shape == (0,)


def test_calibration_mends_offset_and_width() -> None:
    rng = np.random.default_rng(2)
    truth = rng.normal(size=(6000, 1))
    snr = rng.uniform(10, 150, 6000)
    noise = np.where(snr < 50, 0.4, 0.1)[:, None]
    mean = truth + 0.3 + noise * rng.normal(size=truth.shape)
    mixture = Mixture(np.ones((6000, 1, 1)), mean[..., None], np.full((6000, 1, 1), 0.2))
    learned = calibrate(XP, mixture, truth, snr)
    assert np.abs(learned.offsets - 0.3).max() < 0.12
    assert learned.factors[0, 0] == pytest.approx(2.0, rel=0.12)
    assert learned.factors[1, 0] == pytest.approx(0.5, rel=0.12)
    mended = learned.apply(mixture, snr)
    assert np.median(mended.mean - truth) == pytest.approx(0, abs=0.02)


def test_metrics_and_weights(trained: tuple[InstrumentEstimator, LabelledVectors]) -> None:
    figures = measured(XP, *trained)
    assert figures["real"]["feh"]["sigma"] < 0.25
    assert {row["label"] for row in figures["coverage"]} >= {"teff", "feh"}
    assert all(0.5 < row["within_68"] < 0.85 for row in figures["coverage"])
    feh = np.concatenate([np.zeros(1000), np.full(100, -3.0)])
    weight = star_weights(feh, feh < -2, np.arange(1100), EstimatorRecipe(made_weight=0.5, balance=1.0))
    assert weight[-1] / weight[0] == pytest.approx(0.5 * 10)
    assert weight.mean() == pytest.approx(1)


def test_hot_stars_have_the_composition_of_young_ones() -> None:
    labels = np.full((4000, 5), np.nan)
    labels[:, 0] = np.where(np.arange(4000) < 2000, 12_000, 5000)
    labels[:500, 2] = -2.0
    drawn = with_hot_compositions(labels, ("teff", "logg", "feh", "alpha_fe", "c_fe"), seed=1)
    assert (drawn[:500, 2] == -2).all()
    assert np.isnan(drawn[2000:, 2:]).all()
    assert drawn[500:2000, 2].mean() == pytest.approx(-0.1, abs=0.03)
    assert drawn[500:2000, 2].std() == pytest.approx(0.3, abs=0.03)
    assert np.isnan(labels[500:, 2]).all()
