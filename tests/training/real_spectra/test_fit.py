"""The contrast of real spectra with stars of like labels, and what is learned from real spectra before training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from specclip_search.errors import CheckpointError
from specclip_search.simulation.spectra.emulator import Emulator
from specclip_search.surveys import LAMOST_LRS
from specclip_search.training.real_spectra.fit import (
    dust_kernel,
    label_kernel,
    multi_instance_loss,
    rare_chance,
    read_adapt_recipe,
)
from specclip_search.training.real_spectra.line_correction import BRIDGE_A, bridged, learn_correction, twins
from specclip_search.training.real_spectra.ship import RECIPE
from specclip_search.training.real_spectra.spectra import read_lamost, read_real


def test_weight_on_stars_of_like_labels_costs_nothing_and_elsewhere_much() -> None:
    labels = np.array([[5000.0, 3.0, -0.5]])
    others = np.array([[5000.0, 3.0, -0.5], [5040.0, 3.05, -0.45], [6500.0, 4.0, 0.0], [np.nan, 3.0, 0.0]])
    kernel = torch.from_numpy(label_kernel(labels, others).astype(np.float32))
    assert kernel[0, 0] == 1.0
    assert 0.6 < kernel[0, 1] < 1.0
    assert kernel[0, 2] < 1e-6
    assert kernel[0, 3] == 0.0
    like = multi_instance_loss(torch.tensor([[20.0, 20.0, 0.0, 0.0]]), kernel)
    unlike = multi_instance_loss(torch.tensor([[0.0, 0.0, 20.0, 0.0]]), kernel)
    assert like < 0.3 < 15 < unlike
    # a star with nobody like it teaches nothing
    assert multi_instance_loss(torch.zeros(1, 4), torch.full((1, 4), 0.01)) == 0.0


def test_dust_tells_stars_apart_only_where_it_was_seen() -> None:
    kernel = dust_kernel(np.array([0.5, np.nan]), np.array([100.0, 100.0]), np.array([0.5, 0.0, np.nan]))
    assert kernel[0, 0] == 1.0
    assert kernel[0, 1] < 0.01
    assert kernel[0, 2] < 1e-4
    assert (kernel[1] == 1.0).all()


def test_rare_stars_are_drawn_more_often() -> None:
    chance = rare_chance(np.array([[5800.0, 4.4, 0.0], [5800.0, 4.4, -2.0], [7500.0, 4.0, 0.0], [np.nan] * 3]), 1.0)
    assert chance.sum() == pytest.approx(1.0)
    assert chance[1] == pytest.approx(4 * chance[0])
    assert chance[2] == pytest.approx(3 * chance[0])
    assert chance[3] == pytest.approx(chance[0])


def test_recipe_names_what_it_does_not_know(tmp_path: Path) -> None:
    assert read_adapt_recipe(RECIPE).average == ("close",)
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('average = ["plian"]\n[phases.plain]\nsteps = 10\n')
    with pytest.raises(CheckpointError, match="names a phase 'plian'"):
        read_adapt_recipe(wrong)
    wrong.write_text('average = ["plain"]\n[phases.plain]\nstep = 10\n')
    with pytest.raises(CheckpointError, match="has no setting 'step'"):
        read_adapt_recipe(wrong)
    with pytest.raises(CheckpointError, match="there is no such file"):
        read_real(tmp_path)


def test_correction_brings_models_nearer_to_plates_never_seen(shared_data: Path) -> None:
    if not (shared_data / "lamost_real").is_dir():
        pytest.skip("the real LAMOST spectra are not here")
    real, emulator = read_lamost(shared_data / "lamost_real"), Emulator.load()
    correction = learn_correction(emulator, real)
    held = real.take(real.held & real.labelled & (real.labels[:, 0] < 7000) & (real.snr > 20))
    model, known = twins(emulator, held.labels)
    left = held.inputs[known] - model[known]
    before = np.sqrt((left**2).mean(axis=1))
    after = np.sqrt(((left - correction.at(held.labels[known])) ** 2).mean(axis=1))
    assert np.median(after) < 0.9 * np.median(before)
    wave = LAMOST_LRS.wavelength
    inside = (wave > BRIDGE_A[0]) & (wave < BRIDGE_A[1])
    rows = np.ones((1, len(wave))) + inside
    assert bridged(rows)[0, inside] == pytest.approx(1.0)
