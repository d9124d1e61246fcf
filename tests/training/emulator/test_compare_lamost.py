"""Emulated spectra beside real ones: MILES stars and LAMOST's own."""

import json

import numpy as np
import pytest

from specclip_search.simulation.spectra.emulator import Emulator
from specclip_search.simulation.spectra.labels import SimulationError
from specclip_search.training.emulator import compare_lamost as compare_real
from specclip_search.training.emulator.compare_lamost import (
    Comparison,
    broadened,
    compare_lamost,
    compare_miles,
    halves,
)


@pytest.fixture(scope="module")
def emulator():
    return Emulator.load()


@pytest.fixture(scope="module")
def miles(emulator, shared_data):
    return compare_miles(emulator, shared_data / "libraries" / "miles.npz")


def test_miles_stars_look_like_the_emulated_ones(miles):
    """The models' own validation gave a correlation of 0.96 in 4000-5600 A; wrong wavelengths give far less."""
    teff, feh = miles.labels[:, 0], miles.labels[:, 2]
    assert len(teff) > 300
    warm = teff > 5500
    assert np.median(miles.correlation()) > 0.94
    assert np.median(miles.rms()[warm]) < 0.025
    assert np.median(miles.rms()[warm & (feh < -1.3)]) < 0.015


def test_each_star_resembles_its_own_model_more_than_anothers(miles):
    """A nearest-model search in the preprocessed spectra finds a model of a similar temperature and metallicity."""
    distance = ((miles.real[:, None, ::3] - miles.emulated[None, :, ::3]) ** 2).mean(axis=2)
    found = miles.labels[np.argmin(distance, axis=1)]
    assert np.median(np.abs(found[:, 0] / miles.labels[:, 0] - 1)) < 0.04
    assert np.median(np.abs(found[:, 2] - miles.labels[:, 2])) < 0.25


def test_lamost_differs_from_its_models_by_little_more_than_noise(emulator, shared_data):
    comparison, snr = compare_lamost(emulator, shared_data / "lamost")
    warm = comparison.labels[:, 0] > 4500
    assert warm.sum() >= 6
    # the preprocessed window is 4000-5599 A, where S/N a pixel is that of g: the rms in units of the noise
    assert np.median(comparison.rms()[warm] * snr[warm]) < 1.5


def test_broadening_adds_widths_in_quadrature():
    wave = np.arange(4000.0, 4100.0, 0.25)
    narrow = np.exp(-0.5 * ((wave - 4050.0) / (3.0 / 2.3548)) ** 2)
    wide = broadened(wave, narrow[None], np.full_like(wave, 3.0), np.full_like(wave, 5.0))[0]
    sigma = np.sqrt(((wave - 4050.0) ** 2 * wide).sum() / wide.sum())
    assert sigma * 2.3548 == pytest.approx(5.0, rel=0.01)
    assert wide.sum() == pytest.approx(narrow.sum(), rel=1e-6)
    same = broadened(wave, narrow[None], np.full_like(wave, 5.0), np.full_like(wave, 3.0))[0]
    np.testing.assert_allclose(same, narrow, atol=1e-12)


def test_rms_and_correlation_of_known_spectra():
    real = np.array([[1.0, 2.0, 3.0, 4.0]])
    comparison = Comparison(np.zeros((1, 5)), real, real + 0.5)
    assert comparison.rms()[0] == pytest.approx(0.5)
    assert comparison.correlation()[0] == pytest.approx(1.0)


def test_the_command_prints_the_table_and_draws_the_picture(shared_data, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "img" / "miles.png"
    compare_real.main(["--miles", str(shared_data / "libraries" / "miles.npz"), "--picture", str(picture)])
    table = json.loads(capsys.readouterr().out)["miles"]
    assert sum(row["n"] for row in table["by_teff"]) == table["stars"]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_file_that_is_not_miles_is_refused(emulator, tmp_path):
    path = tmp_path / "other.npz"
    np.savez(path, flux=np.ones((2, 3)))
    with pytest.raises(SimulationError, match="lacks feh, logg, teff, wave_air"):
        compare_miles(emulator, path)
    (tmp_path / "labels.csv").write_text("obsid,teff,logg,feh,rv\n1,3000,5,0,0\n")
    with pytest.raises(SimulationError, match="No star"):
        compare_lamost(emulator, tmp_path)


def test_a_correction_learned_from_one_half_is_judged_by_the_other():
    rng = np.random.default_rng(5)
    labels = np.column_stack(
        [rng.uniform(4500, 6500, 300), rng.uniform(2, 4.5, 300), rng.uniform(-2, 0.3, 300), *np.zeros((2, 300))]
    )
    emulated = np.ones((300, 40))
    smooth = 0.1 * (labels[:, 2:3] + 1.0) * np.linspace(-1, 1, 40)
    noise = rng.normal(0.0, 0.01, (300, 40))
    left = halves(Comparison(labels, emulated + smooth + noise, emulated))
    assert np.median(left) == pytest.approx(0.01, rel=0.1)
    # what is not systematic is not taken away
    alone = Comparison(labels, emulated + noise, emulated)
    assert np.median(halves(alone)) > np.median(alone.rms())
