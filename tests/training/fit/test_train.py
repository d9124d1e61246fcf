"""Training: it learns, it stops and goes on bit for bit, and it refuses what does not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from specclip_search.errors import AtlasError, CheckpointError
from specclip_search.training.fit.augment import Augmentation
from specclip_search.training.fit.pairs import ArrayPairs, Batch
from specclip_search.training.fit.recipe import Backbones, LossSettings, Recipe
from specclip_search.training.fit.start import rate_at
from specclip_search.training.fit.train import Event, train
from specclip_search.training.model import load_model


def weights(run: Path) -> bytes:
    return (run / "weights.safetensors").read_bytes()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_stopping_and_going_on_gives_the_same_bytes(
    tiny_recipe: Recipe, pairs: ArrayPairs, tmp_path: Path, precision: str
) -> None:
    recipe = replace(tiny_recipe, augment=Augmentation(0.5, noise=1.0, rv_kms=50.0, xp_tilt=0.02, mask_pixels=9),
                     optimiser=replace(tiny_recipe.optimiser, precision=precision),
                     loss=LossSettings(error_weighted=True))
    events: list[Event] = []
    whole = train(recipe, pairs, tmp_path / "whole", progress=events.append)
    train(recipe, pairs, tmp_path / "parts", stop_after=2)
    parts = train(recipe, pairs, tmp_path / "parts", resume=True)
    assert weights(whole) == weights(parts)
    history = [json.loads((run / "metrics.json").read_text())["training"]["history"] for run in (whole, parts)]
    for epoch in (*history[0], *history[1]):
        del epoch["seconds"]
    assert history[0] == history[1]
    steps = pairs.stars("train") // 64
    assert [e.step for e in events if e.metrics is None] == list(range(1, steps + 1)) * 4
    assert [e.epoch for e in events if e.metrics] == [1, 2, 3, 4]


def test_a_run_killed_in_the_middle_of_an_epoch_goes_on(tiny_recipe: Recipe, pairs: ArrayPairs, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def kill(event: Event) -> None:
        if (event.epoch, event.step) == (3, 2):
            raise Killed

    whole = train(tiny_recipe, pairs, tmp_path / "whole")
    with pytest.raises(Killed):
        train(tiny_recipe, pairs, tmp_path / "killed", progress=kill)
    assert load_model(tmp_path / "killed").dim == 24  # the best model so far can be used meanwhile
    assert weights(train(tiny_recipe, pairs, tmp_path / "killed")) == weights(whole)


def test_it_learns(tiny_recipe: Recipe, pairs: ArrayPairs, tmp_path: Path) -> None:
    recipe = replace(tiny_recipe, optimiser=replace(tiny_recipe.optimiser, epochs=25, patience=0))
    run = train(recipe, pairs, tmp_path)
    history = json.loads((run / "metrics.json").read_text())["training"]["history"]
    chance = 10 / pairs.stars("validation")
    assert history[-1]["r10_xp_to_lrs"] > 3 * chance
    assert history[-1]["validation_pred_lrs"] < 0.75 * history[0]["validation_pred_lrs"]
    model = load_model(run)
    rows = model.embed("gaia_xp", pairs.flux["gaia_xp"])
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_patience_stops_and_the_best_weights_are_kept(tiny_recipe: Recipe, pairs: ArrayPairs, tmp_path: Path) -> None:
    recipe = replace(tiny_recipe, optimiser=replace(tiny_recipe.optimiser, epochs=40, patience=2, min_delta=0.5))
    run = train(recipe, pairs, tmp_path)
    record = json.loads((run / "metrics.json").read_text())["training"]
    assert record["epochs"] == record["best_epoch"] + 2 < 40
    again = train(recipe, pairs, tmp_path)
    assert json.loads((again / "metrics.json").read_text())["training"]["epochs"] == record["epochs"]


def test_what_does_not_fit_is_refused(tiny_recipe: Recipe, pairs: ArrayPairs, tmp_path: Path) -> None:
    run = train(tiny_recipe, pairs, tmp_path / "run", stop_after=1)
    with pytest.raises(CheckpointError, match="already holds a training run"):
        train(tiny_recipe, pairs, run, resume=False)
    with pytest.raises(CheckpointError, match="another recipe: seed differs"):
        train(replace(tiny_recipe, seed=6), pairs, run)
    fewer = ArrayPairs({k: v[:400] for k, v in pairs.flux.items()}, pairs.source_id[:400], error=pairs.error)
    with pytest.raises(CheckpointError, match="started with other data"):
        train(tiny_recipe, fewer, run)
    with pytest.raises(CheckpointError, match="no run to resume"):
        train(tiny_recipe, pairs, tmp_path / "none", resume=True)
    few = ArrayPairs({k: v[:60] for k, v in pairs.flux.items()}, pairs.source_id[:60])
    with pytest.raises(CheckpointError, match="at least 64 train stars; the data have 48"):
        train(tiny_recipe, few, tmp_path / "few")
    with pytest.raises(CheckpointError, match="needs lamost_lrs and gaia_xp spectra; the data have no lamost_lrs"):
        train(tiny_recipe, ArrayPairs({"gaia_xp": pairs.flux["gaia_xp"]}, pairs.source_id), tmp_path / "one")
    with pytest.raises(CheckpointError, match="takes no pretrained backbones"):
        train(replace(tiny_recipe, backbones=Backbones(gaia_xp="x")), pairs, tmp_path / "backbones")


def test_a_published_encoder_trains_alone_and_an_aligned_one_needs_it(
    tiny_recipe: Recipe, pairs: ArrayPairs, tmp_path: Path
) -> None:
    few = ArrayPairs({"gaia_xp": pairs.flux["gaia_xp"][:20]}, pairs.source_id[:20])
    recipe = replace(tiny_recipe, name="xp_oae", kind="xp_oae", data=replace(tiny_recipe.data, batch_size=8),
                     optimiser=replace(tiny_recipe.optimiser, rate=1e-4, epochs=2))
    run = train(recipe, few, tmp_path / "oae")
    history = json.loads((run / "metrics.json").read_text())["training"]["history"]
    assert history[1]["train_total"] < history[0]["train_total"]
    assert load_model(run).modalities == ("gaia_xp",)
    aligned = replace(recipe, name="base", kind="base", backbones=Backbones(gaia_xp=str(run)))
    with pytest.raises(CheckpointError, match="names no pretrained one for lamost_lrs"):
        train(aligned, pairs, tmp_path / "base")
    with pytest.raises(CheckpointError, match=r"\(kind 'xp_oae'\) is no lamost_lrs backbone of kind 'base'"):
        train(replace(aligned, backbones=Backbones(str(run), str(run))), pairs, tmp_path / "base")


def test_a_loss_that_is_no_number_stops_the_run(tiny_recipe: Recipe, pairs: ArrayPairs, tmp_path: Path) -> None:
    flux = {k: v.copy() for k, v in pairs.flux.items()}
    flux["gaia_xp"][0, 5] = np.nan
    with pytest.raises(CheckpointError, match="The loss became nan in epoch 1"):
        train(tiny_recipe, ArrayPairs(flux, pairs.source_id), tmp_path)


def test_a_second_writer_is_refused(tiny_recipe: Recipe, pairs: ArrayPairs, tmp_path: Path) -> None:
    def second(event: Event) -> None:
        with pytest.raises(AtlasError, match="only one writer"):
            train(tiny_recipe, pairs, tmp_path)

    train(tiny_recipe, pairs, tmp_path, progress=second, stop_after=1)


def test_acceptance_stars_never_reach_a_step(pairs: ArrayPairs) -> None:
    seen: set[int] = set()
    for split in ("train", "validation"):
        for epoch in range(3):
            batches: list[Batch] = list(pairs.batches(split, 32, 1, epoch))
            seen |= {int(i) for b in batches for i in b.source_id}
    assert {(i >> 7) % 10 for i in seen} == set(range(9))
    assert pairs.excluded == 48


def test_rate() -> None:
    assert rate_at(0, 100, 10, 1.0, 0.0) == pytest.approx(0.1)
    assert rate_at(9, 100, 10, 1.0, 0.0) == rate_at(10, 100, 10, 1.0, 0.0) == 1.0
    assert rate_at(55, 100, 10, 1.0, 0.1) == pytest.approx(0.55)
    assert rate_at(100, 100, 10, 1.0, 0.1) == rate_at(500, 100, 10, 1.0, 0.1) == pytest.approx(0.1)
