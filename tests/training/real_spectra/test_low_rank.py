"""Low-rank adapters bring the shipped model to a catalogue of real LAMOST stars, and keep to their base."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from specclip_search.errors import CheckpointError
from specclip_search.training.model import Model, load_model
from specclip_search.training.real_spectra.low_rank import (
    ADAPTER,
    TENSORS,
    Adapter,
    AdaptSettings,
    LabelledSpectra,
    adapt,
    applied,
    compare,
    load_adapted,
    read_adapter,
    save_adapter,
    unit,
)
from specclip_search.training.real_spectra.spectra import LAMOST, RealSpectra, read_lamost

LRS = "lamost_lrs"
QUICK = AdaptSettings(steps=40, batch_size=48)


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("mini", threads=1)


@pytest.fixture(scope="module")
def real(shared_data: Path) -> RealSpectra:
    if not (shared_data / "lamost_real").is_dir():
        pytest.skip("the real LAMOST spectra are not here")
    return read_lamost(shared_data / "lamost_real")


def spectra(real: RealSpectra, rows: np.ndarray) -> LabelledSpectra:
    return LabelledSpectra(real.inputs[rows], real.errors[rows], real.labels[rows, :3], ("teff", "logg", "feh"))


def test_plates_and_stars_lie_on_one_side(real: RealSpectra) -> None:
    assert (real.origin == LAMOST).all()
    assert 0.1 < real.held.mean() < 0.4
    assert not set(real.plate[real.held & real.labelled]) <= set(real.plate[~real.held])
    mixed = set(real.plate[real.held]) & set(real.plate[~real.held])
    # a plate is on both sides only where a star of it was seen on a held-out one
    assert len(mixed) < 0.2 * len(set(real.plate))
    assert np.isfinite(real.inputs).all()


def test_an_adapter_does_better_on_held_out_stars_and_names_its_base(
        model: Model, real: RealSpectra, tmp_path: Path) -> None:
    chosen = np.flatnonzero(real.labelled & (real.snr > 20) & (real.labels[:, 0] < 7000))
    train, held = (spectra(real, chosen[real.held[chosen] == side][:200]) for side in (False, True))
    # a scale of its own, as catalogues have, that the base cannot know
    moved = np.array([300.0, 0.5, -0.4])
    own = replace(train, labels=train.labels + moved), replace(held, labels=held.labels + moved)
    adapter = adapt(model, LRS, own[0], QUICK)
    rows = {row["what"]: row for row in compare(model, adapter, *own)}
    assert rows["teff"]["after_sigma"] < 1.1 * rows["teff"]["before_sigma"]
    assert abs(rows["teff"]["after_bias"]) < 60
    assert abs(rows["feh"]["after_bias"]) < 0.06
    save_adapter(tmp_path / "mine", adapter, {"rows": list(rows.values())})
    assert sum(file.stat().st_size for file in (tmp_path / "mine").iterdir()) < 1_000_000
    assert tomllib.loads((tmp_path / "mine" / ADAPTER).read_text())["base_digest"] == model.digest
    mine = load_adapted(tmp_path / "mine")
    assert mine.digest != model.digest
    with applied(model.module, adapter):
        inside = unit(model.module, LRS, held.inputs[:4])
    np.testing.assert_allclose(mine.embed(LRS, held.inputs[:4]), inside, atol=1e-5)
    # the base is as it was
    assert np.abs(model.embed(LRS, held.inputs[:4]) - inside).max() > 1e-3
    found = read_adapter(tmp_path / "mine").estimate(inside)
    assert np.abs(found["teff"] - own[1].labels[:4, 0]).max() < 1000


def test_what_is_wrong_is_said(model: Model, real: RealSpectra, tmp_path: Path) -> None:
    few = spectra(real, np.flatnonzero(real.labelled)[:10])
    with pytest.raises(CheckpointError, match="10 of 10 spectra have labels; 20 are needed"):
        adapt(model, LRS, few, QUICK)
    with pytest.raises(CheckpointError, match="at most 50 were expected"):
        adapt(model, LRS, spectra(real, np.flatnonzero(real.labelled)[:30]), replace(QUICK, budget_kb=50))
    with pytest.raises(CheckpointError, match="rank must lie between 1 and 256"):
        AdaptSettings(rank=0)
    layer = "lamost_lrs_encoder.projection"
    made = Adapter("other", LRS, "mini", "sha256:0", QUICK, {layer: (torch.zeros(768, 2), torch.zeros(2, 256))},
                   np.zeros((769, 1)), ("teff",))
    save_adapter(tmp_path / "other", made)
    with pytest.raises(CheckpointError, match="belongs to weights sha256:0"):
        load_adapted(tmp_path / "other")
    (tmp_path / "other" / TENSORS).write_bytes(b"cut short")
    with pytest.raises(CheckpointError, match="not the file it was written for"):
        read_adapter(tmp_path / "other")
