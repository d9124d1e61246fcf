"""The factor that makes the models' lines as deep as real ones: learned again from stars whose lines are changed."""

from __future__ import annotations

import numpy as np
import pytest

from specclip_search.simulation.spectra.emulator import Emulator
from specclip_search.simulation.spectra.line_depths import (
    KNOTS_A,
    LineDepths,
    label_terms,
    real_lrs,
    shipped_line_depths,
)
from specclip_search.training.emulator.line_depths import Stars, errors, learn, main

SUN = np.array([[5777.0, 4.4, 0.0, 0.0, 0.0]])
COOL = np.array([[4200.0, 1.6, -0.1, 0.05, 0.0]])


def test_lines_get_shallower_and_the_continuum_stays():
    emulator = Emulator.load()
    plain, real = emulator.lrs(COOL)[0], real_lrs(emulator, COOL)[0]
    continuum = emulator.continuum(COOL)[0]
    blue = (emulator.wavelength > 4000) & (emulator.wavelength < 4200)
    assert (continuum - real)[blue].sum() < 0.9 * (continuum - plain)[blue].sum()
    red = emulator.wavelength > KNOTS_A[-1] + 200
    np.testing.assert_allclose(real[red], plain[red], rtol=1e-12)
    assert np.all(real > 0)


def test_labels_beyond_the_library_use_its_edge():
    poorer = np.array([[5000.0, 2.0, -2.5, 0.3, 0.0], [5000.0, 2.0, -4.0, 0.3, 0.0]])
    first, second = shipped_line_depths().factor(Emulator.load().wavelength, poorer)
    np.testing.assert_array_equal(first, second)


def test_a_known_factor_is_learned_again():
    rng = np.random.default_rng(3)
    labels = np.column_stack([rng.uniform(4200, 7000, 80), rng.uniform(1, 4.6, 80), rng.uniform(-2, 0.3, 80),
                              np.zeros(80), np.zeros(80)])  # fmt: skip
    slopes = rng.normal(0.0, 0.05, (80, len(KNOTS_A), 300))
    true = np.zeros((len(KNOTS_A), 6))
    true[:, 0] = -0.1
    true[:, 1] = np.linspace(-0.1, 0.0, len(KNOTS_A))
    model = np.full((80, 300), 0.8)
    real = model + np.einsum("nk,nkp->np", label_terms(labels) @ true.T, slopes) + rng.normal(0, 0.002, (80, 300))
    stars = Stars(labels, real, model, slopes)
    half, others = np.arange(0, 80, 2), np.arange(1, 80, 2)
    found = learn(stars, half)
    assert np.median(errors(stars, others, found)) < 0.2 * np.median(errors(stars, others, None))
    assert found.factor(np.array([4500.0]), SUN) == pytest.approx(LineDepths(true).factor(np.array([4500.0]), SUN),
                                                                  abs=0.03)  # fmt: skip


def test_the_shipped_factor_holds_for_stars_it_was_not_learned_from(shared_data, tmp_path, capsys):
    import json

    assert main([str(shared_data / "libraries" / "miles.npz"), "--output", str(tmp_path / "depths.json")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rms_learned_from_others"] < 0.85 * told["rms_without"]
    made = json.loads((tmp_path / "depths.json").read_text(encoding="utf-8"))
    np.testing.assert_allclose(made["coefficients"], shipped_line_depths().coefficients, atol=1e-3)
