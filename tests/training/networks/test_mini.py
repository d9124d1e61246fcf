"""Labels that guide training, and stars that one instrument alone has seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from specclip_search.errors import CheckpointError
from specclip_search.keys import split_of
from specclip_search.surveys import LRS, XP
from specclip_search.training.checkpoints.folder import new_card
from specclip_search.training.fit.augment import Augmentation, augment
from specclip_search.training.fit.objective import Objective
from specclip_search.training.fit.pairs import ArrayPairs
from specclip_search.training.fit.recipe import DataSettings, LossSettings, OptimiserSettings, Recipe
from specclip_search.training.networks.label_scale import LABELS
from specclip_search.training.networks.losses import label_loss
from specclip_search.training.networks.mini import LabelGuide, MiniModel, MiniSizes

SMALL = MiniSizes(dim=48, lrs_encoder="perceptron", lrs_hidden=32, lrs_blocks=1, lrs_latent=16, lrs_feature=16,
                  xp_hidden=32, xp_blocks=1, xp_latent=16, xp_feature=16, decoder_hidden=(16, 16), label_hidden=8)
IDS = (np.arange(60, dtype=np.int64) * 128) + 2**53


def source(alone_share: float = 0.5) -> ArrayPairs:
    rng = np.random.default_rng(0)
    flux = {XP: 1 + rng.normal(0, 0.1, (80, 343)), LRS: 1 + rng.normal(0, 0.1, (60, 1462))}
    labels = {name: np.full((len(f), len(LABELS)), np.nan, np.float32) for name, f in flux.items()}
    labels[XP][:, :3] = (5000.0, 2.0, -1.0)
    alone_ids = (np.arange(100, 120, dtype=np.int64) * 128) + 2**53
    return ArrayPairs(flux, IDS, labels=labels, alone={XP: (np.arange(60, 80), alone_ids)}, alone_share=alone_share)


def test_unknown_labels_count_for_nothing_and_known_ones_by_their_scale():
    mean, scale = torch.zeros(2, 2), torch.zeros(2, 2, requires_grad=True)
    target = torch.tensor([[0.0, float("nan")], [1.0, float("nan")]])
    loss = label_loss(mean, scale, target)
    # residual 0 and 1 - 0.05 (rounded near zero), ln scale 0
    assert loss.item() == pytest.approx(0.95 / 2)
    loss.backward()
    assert scale.grad is not None
    assert torch.all(scale.grad[:, 1] == 0)
    assert label_loss(mean, scale, torch.full((2, 2), float("nan"))).item() == 0.0


def test_a_guide_learns_labels_from_directions_alone():
    torch.manual_seed(0)
    guide, vectors = LabelGuide(16, 8), torch.randn(256, 16)
    labels = torch.full((256, len(LABELS)), float("nan"))
    labels[:, 2] = -1.0 + torch.nn.functional.normalize(vectors, dim=-1)[:, 0]
    assert guide.loss(vectors, labels).item() == pytest.approx(guide.loss(3 * vectors, labels).item(), rel=1e-5)
    before, optimiser = guide.loss(vectors, labels).item(), torch.optim.Adam(guide.parameters(), 0.02)
    for _ in range(100):
        optimiser.zero_grad()
        guide.loss(vectors, labels).backward()
        optimiser.step()
    assert guide.loss(vectors, labels).item() < before - 0.5


def test_stars_of_one_instrument_ride_along_and_never_from_kept_splits():
    pairs = source()
    batch = next(iter(pairs.batches("train", 16, seed=1, epoch=0)))
    assert batch.inputs[XP].shape == (24, 343)
    assert batch.inputs[LRS].shape == (16, 1462)
    assert batch.labels[XP].shape == (24, len(LABELS))
    kept = set(np.flatnonzero(split_of((np.arange(100, 120, dtype=np.int64) * 128) + 2**53) >= 8))
    drawn = {int(np.flatnonzero((pairs.flux[XP][60:].astype(np.float32) == row).all(axis=1))[0])
             for b in pairs.batches("train", 16, seed=1, epoch=0) for row in b.inputs[XP][16:]}
    assert drawn
    assert not drawn & kept
    validation = next(iter(pairs.batches("validation", 16, seed=1, epoch=0)))
    assert len(validation.inputs[XP]) == len(validation.inputs[LRS])


def test_terms_with_riders_are_those_of_pairs_and_everyone():
    recipe = Recipe(name="r", kind="mini", model=SMALL, data=DataSettings(batch_size=16, alone=0.5),
                    loss=LossSettings(label=2.0), optimiser=OptimiserSettings(precision="float32"))
    torch.manual_seed(0)
    module = MiniModel(SMALL).eval()
    objective = Objective(module, new_card("r", "mini", SMALL), recipe, torch.device("cpu"))
    batch = objective.on_device(next(iter(source().batches("train", 16, seed=1, epoch=0))))
    terms = objective.terms(batch)
    xp, lrs = (module.encode(name, batch.inputs[name])["shared"] for name in (XP, LRS))
    assert terms["clip"].item() == pytest.approx(module.contrast(xp[:16], lrs).item(), rel=1e-5)
    assert terms["recon_xp"].item() == pytest.approx(
        (module.decode(XP, {"shared": xp}, True) - batch.targets[XP]).abs().mean().item(), rel=1e-5)
    assert terms["label_lrs"].item() == 0.0
    assert terms["label_xp"].item() == pytest.approx(module.gaia_xp_labels.loss(xp, batch.labels[XP]).item(), rel=1e-5)
    whole = {name: v for name, v in terms.items() if name != "total"}
    assert terms["total"].item() == pytest.approx(sum(v.item() * (2 if "label" in n else 1) for n, v in whole.items()))


def test_an_unknown_encoder_is_named():
    with pytest.raises(CheckpointError, match=r"must be 'transformer' or 'perceptron'; found 'convolution'"):
        MiniModel(MiniSizes(lrs_encoder="convolution"))


def test_line_strengths_change_lines_and_leave_the_continuum():
    rng = np.random.default_rng(0)
    flux = np.ones((400, 1462), np.float32)
    flux[:, 700] = 0.5
    seen, target = augment(LRS, flux, None, Augmentation(probability=1.0, line_strength=0.2), rng)
    np.testing.assert_array_equal(target, flux)
    assert np.all(np.delete(seen, 700, axis=1) == 1.0)
    spread = np.log((1 - seen[:, 700]) / 0.5).std()
    # shares .4, .5, .8 in quadrature are 1.02; between knots the field is narrower
    assert 0.12 < spread < 0.21
