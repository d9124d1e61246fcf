"""A batch taken in parts gives the gradient of the whole; a run killed at any moment goes on bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from specclip_search.errors import CheckpointError
from specclip_search.training.checkpoints.folder import new_card
from specclip_search.training.fit.distributed import Ranks
from specclip_search.training.fit.gradients import StepGradients
from specclip_search.training.fit.objective import Objective
from specclip_search.training.fit.pairs import ArrayPairs
from specclip_search.training.fit.recipe import Recipe
from specclip_search.training.fit.start import compile_parts, fresh_module
from specclip_search.training.fit.train import train
from specclip_search.training.networks.published import PublishedSizes, build

from .together import CPU, NOISY, PLAIN, first_step

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("contrast", ["clip", "sigmoid"])
@pytest.mark.parametrize("parts", [4, 5, pytest.param(64, marks=pytest.mark.slow)])
def test_parts_give_the_gradient_of_the_whole(contrast: str, parts: int) -> None:
    recipe = replace(PLAIN, model=replace(PLAIN.model, contrast=contrast))
    terms, whole = first_step(recipe, Ranks())
    terms_of_parts, found = first_step(recipe, Ranks(), parts)
    assert terms_of_parts == pytest.approx(terms, rel=1e-5)
    assert set(found) == set(whole)
    for name, tensor in whole.items():
        assert float((found[name] - tensor).abs().max()) < 5e-4 * (float(tensor.abs().max()) + 1e-6), name


def test_dropout_is_the_same_both_times(pairs: ArrayPairs) -> None:
    """With dropout the gradient by vectors belongs to the vectors of the second pass only if its draws repeat."""
    recipe = replace(PLAIN, model=replace(PLAIN.model, dropout=0.5))
    module = fresh_module(recipe, new_card("tiny", "mini", recipe.model)).train()
    objective = Objective(module, new_card("tiny", "mini", recipe.model), recipe, CPU)
    seen: list[torch.Tensor] = []
    module.lamost_lrs_encoder.register_forward_hook(lambda m, x, y: seen.append(y["shared"].detach().clone()))
    StepGradients(objective, 4).fill(objective.on_device(next(pairs.batches("train", 64, 1, 0))))
    assert len(seen) == 8
    assert all(torch.equal(first, second) for first, second in zip(seen[:4], seen[4:], strict=True))
    assert not torch.equal(seen[0], seen[1])


def test_an_encoder_alone_in_parts(pairs: ArrayPairs) -> None:
    sizes = PublishedSizes(width=24, layers=1, heads=2, xp_hidden=32)
    recipe = Recipe("oae", "xp_oae", published=sizes, optimiser=replace(PLAIN.optimiser))
    found = []
    for parts in (1, 3):
        torch.manual_seed(0)
        card = new_card("oae", "xp_oae", published=sizes)
        module = fresh_module(recipe, card)
        gradients = StepGradients(Objective(module, card, recipe, CPU), parts)
        terms = gradients.fill(gradients.objective.on_device(next(pairs.batches("train", 32, 1, 0))))
        found.append((terms["total"], [p.grad for p in module.parameters()]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-7)


def test_a_run_in_parts_goes_on_bit_for_bit(pairs: ArrayPairs, tmp_path: Path) -> None:
    recipe = replace(NOISY, optimiser=replace(NOISY.optimiser, accumulate=3, precision="bf16"))
    whole = train(recipe, pairs, tmp_path / "whole")
    train(recipe, pairs, tmp_path / "parts", stop_after=1)
    parts = train(recipe, pairs, tmp_path / "parts")
    assert (whole / "weights.safetensors").read_bytes() == (parts / "weights.safetensors").read_bytes()


def test_killed_by_the_system_it_goes_on_bit_for_bit_and_counts_patience_on(
    tmp_path: Path,
) -> None:
    # each run in a process of its own: what earlier tests did to a process's threads may change a last bit
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    code = ("import sys; sys.path[:0] = ['.', 'tests/training/fit']\n"
            "from dataclasses import replace\nfrom together import NOISY, made_up_pairs, train\n"
            "recipe = replace(NOISY, optimiser=replace(NOISY.optimiser, epochs=40, patience=3, min_delta=0.5))\n"
            "train(recipe, made_up_pairs(), sys.argv[1])")
    command, environment = [sys.executable, "-c", code], os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*command, str(whole)], cwd=REPOSITORY, env=environment, check=True)
    process = subprocess.Popen([*command, str(killed)], cwd=REPOSITORY, env=environment)
    deadline = time.monotonic() + 600
    while not list((tmp_path / "killed" / "state").glob("epoch-0*")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    record = json.loads((whole / "metrics.json").read_text())["training"]
    assert len(list((tmp_path / "killed" / "state").glob("epoch-0*"))) >= 1
    subprocess.run([*command, str(killed)], cwd=REPOSITORY, env=environment, check=True)
    assert (whole / "weights.safetensors").read_bytes() == (killed / "weights.safetensors").read_bytes()
    resumed = json.loads((killed / "metrics.json").read_text())["training"]
    assert (resumed["epochs"], resumed["best_epoch"]) == (record["epochs"], record["best_epoch"])
    assert record["epochs"] == record["best_epoch"] + 3 < 40


def test_a_run_begun_before_a_setting_existed_goes_on(pairs: ArrayPairs, tmp_path: Path) -> None:
    run = train(NOISY, pairs, tmp_path, stop_after=1)
    record = (run / "run.toml").read_text()
    assert "accumulate = 1\n" in record
    (run / "run.toml").write_text(record.replace("accumulate = 1\n", ""))
    train(NOISY, pairs, tmp_path)
    with pytest.raises(CheckpointError, match=r"another recipe: optimiser\.accumulate differs"):
        train(replace(NOISY, optimiser=replace(NOISY.optimiser, accumulate=2)), pairs, tmp_path)


def test_curves_for_tensorboard(pairs: ArrayPairs, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(NOISY, pairs, tmp_path, stop_after=1, tensorboard=True)
    train(NOISY, pairs, tmp_path, tensorboard=True)
    curves = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    steps = pairs.stars("train") // NOISY.data.batch_size
    assert [event.step for event in curves.Scalars("step/loss")] == list(range(1, 2 * steps + 1))
    history = json.loads((tmp_path / "metrics.json").read_text())["training"]["history"]
    told = [event.value for event in curves.Scalars("validation/total")]
    assert told == pytest.approx([epoch["validation_total"] for epoch in history], rel=1e-6)


def test_no_curves_unless_asked_for_and_threads_end(pairs: ArrayPairs, tmp_path: Path) -> None:
    train(NOISY, pairs, tmp_path, stop_after=1)
    assert not (tmp_path / "tensorboard").exists()
    assert not [thread for thread in threading.enumerate() if thread.name == "read-ahead"]


def test_compiled_parts_keep_their_keys() -> None:
    sizes = PublishedSizes(width=24, layers=1, heads=2, xp_hidden=32, feature=16, to_xp=(16,), to_lrs=(16,))
    for kind in ("pr", "lrs_mt", "xp_oae"):
        module = build(kind, "meta", sizes)
        keys = list(module.state_dict())
        assert not compile_parts(module, "auto", CPU)
        assert compile_parts(module, "on", CPU)
        assert list(module.state_dict()) == keys


def test_no_parts_are_refused() -> None:
    with pytest.raises(CheckpointError, match="accumulate is 0"):
        replace(PLAIN, optimiser=replace(PLAIN.optimiser, accumulate=0))
