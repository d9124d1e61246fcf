"""Several processes train as one: the same loss, gradients and weights as one with the whole batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from specclip_search.atlas import Atlas
from specclip_search.errors import CheckpointError
from specclip_search.training.fit.distributed import Ranks, share_of
from specclip_search.training.fit.pairs import ArrayPairs
from specclip_search.training.fit.train import train
from specclip_search.training.model import load_model

from .together import NOISY, PLAIN, first_step

REPOSITORY = Path(__file__).resolve().parents[3]


def launch(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Two processes by torch's launcher."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run([*command, *map(str, arguments)], cwd=REPOSITORY, env=os.environ | {"OMP_NUM_THREADS": "1"},
                          capture_output=True, text=True, timeout=1800)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    done = launch(Path(__file__).with_name("together.py"), folder)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.mark.parametrize("contrast", ["clip", "sigmoid"])
@pytest.mark.parametrize("parts", [1, 2])
def test_loss_and_gradients_are_those_of_one_process(two: Path, contrast: str, parts: int) -> None:
    found = load_file(two / f"{contrast}-{parts}.safetensors")
    terms, tensors = first_step(replace(PLAIN, model=replace(PLAIN.model, contrast=contrast)), Ranks())
    assert set(found) == set(tensors) | {f"term {name}" for name in terms}
    for name, value in terms.items():
        assert float(found[f"term {name}"]) == pytest.approx(value, rel=1e-5), name
    for name, tensor in tensors.items():
        scale = float(tensor.abs().max()) + 1e-6
        # float32: what stands before a batch norm is the small difference of large numbers
        assert float((found[name] - tensor).abs().max()) < 5e-4 * scale, name


def test_weights_after_epochs_are_those_of_one_process(two: Path, pairs: ArrayPairs, tmp_path: Path) -> None:
    alone = train(PLAIN, pairs, tmp_path)
    one, other = (load_file(run / "weights.safetensors") for run in (alone, two / "plain"))
    start = train(replace(PLAIN, optimiser=replace(PLAIN.optimiser, rate=1e-12, epochs=1)), pairs, tmp_path / "start")
    begun = load_file(start / "weights.safetensors")
    moved = np.sqrt(sum(float(((one[k] - begun[k]).double() ** 2).sum()) for k in one if "num" not in k))
    apart = np.sqrt(sum(float(((one[k] - other[k]).double() ** 2).sum()) for k in one if "num" not in k))
    assert apart < 1e-2 * moved
    history = [json.loads((run / "metrics.json").read_text())["training"]["history"] for run in (alone, two / "plain")]
    for mine, theirs in zip(*history, strict=True):
        assert theirs["train_total"] == pytest.approx(mine["train_total"], rel=1e-4)
        assert theirs["validation_total"] == pytest.approx(mine["validation_total"], rel=1e-3)


def test_a_run_of_two_processes_goes_on_bit_for_bit(two: Path) -> None:
    whole, parts = ((two / name / "weights.safetensors").read_bytes() for name in ("whole", "parts"))
    assert whole == parts
    assert load_model(two / "whole").dim == NOISY.model.dim
    assert not torch.equal(*(load_file(two / name / "weights.safetensors")["log_scale"] for name in ("whole", "plain")))


@pytest.mark.slow
def test_the_command_under_the_launcher(pairs: ArrayPairs, tmp_path: Path) -> None:
    from .test_pairs import write_spectra

    atlas = Atlas.create(tmp_path / "atlas")
    for name in pairs.modalities:
        write_spectra(atlas, name, 0, pairs, np.arange(480), pairs.source_id + 1, pairs.source_id)
    recipe = tmp_path / "mine.toml"
    recipe.write_text('name = "mine"\nkind = "mini"\n[model]\ndim = 24\nlrs_slice = 86\nlrs_width = 8\nlrs_layers = 1\n'
                      'lrs_heads = 2\nlrs_queries = 3\nxp_hidden = 16\nxp_latent = 8\n[data]\nbatch_size = 64\n'
                      '[optimiser]\nepochs = 1\naccumulate = 2\n')
    arguments = ["-m", "specclip_search", "train", recipe, "--atlas", tmp_path / "atlas", "--output"]
    done = launch(*arguments, tmp_path / "run")
    assert done.returncode == 0, done.stderr[-4000:]
    assert (done.stdout + done.stderr).count("The model is") == 1
    assert load_model(tmp_path / "run").name == "mine"


def test_batches_that_cannot_be_shared_are_refused() -> None:
    assert share_of(64, Ranks()) is None
    assert share_of(64, Ranks(1, 4)) == (1, 4)
    with pytest.raises(CheckpointError, match="64 stars cannot be shared equally by 3 processes"):
        share_of(64, Ranks(0, 3))
