"""Published kinds as a user trains them: encoders by masking, then pairs by alignment; sizes are small here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from specclip_search.errors import CheckpointError
from specclip_search.training.fit.pairs import ArrayPairs
from specclip_search.training.fit.recipe import Backbones, DataSettings, Recipe, load_recipe
from specclip_search.training.fit.train import train
from specclip_search.training.model import load_model
from specclip_search.training.networks.published import ALIGNED, PublishedSizes

SMALL = PublishedSizes(width=24, layers=1, heads=2, xp_hidden=32, feature=16, shared=16, private=8, to_xp=(32,),
                       to_lrs=(32,))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def small(name: str, rate: float = 3e-3, epochs: int = 2) -> Recipe:
    """A shipped recipe at small sizes."""
    recipe = load_recipe(name)
    return replace(recipe, published=SMALL, data=DataSettings(batch_size=48, validation_pairs=32),
                   optimiser=replace(recipe.optimiser, rate=rate, epochs=epochs, warmup_steps=2, total_steps=0))


@pytest.fixture(scope="module")
def encoders(pairs: ArrayPairs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run folders of the three encoders, each pretrained alone."""
    folder = tmp_path_factory.mktemp("encoders")
    found = {}
    for kind, modality in (("lrs_mt", "lamost_lrs"), ("xp_mt", "gaia_xp"), ("xp_oae", "gaia_xp")):
        alone = ArrayPairs({modality: pairs.flux[modality][:160]}, pairs.source_id[:160])
        found[kind] = train(small(kind, epochs=4), alone, folder / kind)
    return found


def history(run: Path) -> list[dict[str, float]]:
    return json.loads((run / "metrics.json").read_text())["training"]["history"]


def backbones(kind: str, encoders: dict[str, Path], frozen: bool = True) -> Backbones:
    return Backbones(str(encoders["xp_mt" if kind == "base_xpmt" else "xp_oae"]), str(encoders["lrs_mt"]), frozen)


def test_encoders_learn_alone(encoders: dict[str, Path], pairs: ArrayPairs) -> None:
    for kind, run in encoders.items():
        losses = history(run)
        assert losses[-1]["validation_total"] < losses[0]["validation_total"], kind
        model = load_model(run)
        assert model.dim == SMALL.width
        assert model.embed(model.modalities[0], pairs.flux[model.modalities[0]][:3]).shape == (3, SMALL.width)


@pytest.mark.parametrize("kind", ALIGNED)
def test_aligned_kinds_train_over_frozen_encoders(
    kind: str, encoders: dict[str, Path], pairs: ArrayPairs, tmp_path: Path
) -> None:
    run = train(replace(small(kind), backbones=backbones(kind, encoders)), pairs, tmp_path)
    assert history(run)[-1]["train_total"] < history(run)[0]["train_total"]
    trained, before = load_file(run / "weights.safetensors"), load_file(encoders["lrs_mt"] / "weights.safetensors")
    for key, value in before.items():
        assert torch.equal(trained[f"lamost_lrs_encoder.backbone.{key}"], value), key
    model = load_model(run)
    assert model.dim == (SMALL.shared if kind == "split" else SMALL.width)
    assert np.isfinite(model.embed("gaia_xp", pairs.flux["gaia_xp"][:2])).all()
    if kind in ("pr", "split"):
        assert model.translate("lamost_lrs", pairs.flux["lamost_lrs"][:2]).shape == (2, 343)


def test_backbones_may_be_trained_too(encoders: dict[str, Path], pairs: ArrayPairs, tmp_path: Path) -> None:
    recipe = small("base", epochs=1)
    run = train(replace(recipe, backbones=backbones("base", encoders, frozen=False)), pairs, tmp_path / "thawed")
    trained, before = load_file(run / "weights.safetensors"), load_file(encoders["lrs_mt"] / "weights.safetensors")
    name = "blocks.0.attention.q_proj.weight"
    assert not torch.equal(trained[f"lamost_lrs_encoder.backbone.{name}"], before[name])
    train(replace(recipe, backbones=Backbones(frozen=False)), pairs, tmp_path / "from nothing")
    with pytest.raises(CheckpointError, match="names no pretrained one for gaia_xp") as caught:
        train(recipe, pairs, tmp_path / "frozen")
    assert "or set frozen = false" in str(caught.value)


def test_sizes_that_heads_cannot_share_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "odd.toml"
    path.write_text('name = "odd"\nkind = "base"\n[published]\nwidth = 50\n')
    with pytest.raises(CheckpointError, match=r"\[published\] width = 50 cannot be shared by 6 attention heads"):
        load_recipe(path)
