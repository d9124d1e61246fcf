"""The published architectures against reference numbers and the published parameter tables."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from specclip_search.errors import CheckpointError
from specclip_search.training.networks.losses import clip_logits, clip_loss
from specclip_search.training.networks.published import KINDS, build

TOLERANCE = 1e-10
SOME = 3
# parameters, trainable parameters, state_dict entries, SHA-256 of sorted "key shape" lines
TABLE = {
    "lrs_mt": (42_677_013, 42_677_013, 91, "3566d685914e26e2"),
    "xp_mt": (42_802_947, 42_802_947, 91, "5107c430ee39fcaa"),
    "xp_oae": (42_846_129, 42_846_129, 34, "d58c037408d4e09e"),
    "base": (99_710_814, 14_187_672, 150, "fad09b8c9e7afe86"),
    "base_xpmt": (99_654_168, 14_174_208, 204, "3b404c3c4c070e88"),
    "pr": (168_293_752, 82_770_610, 242, "df29444196fbdbd1"),
    "split": (126_229_506, 40_706_364, 241, "63e18503629ac060"),
}


def differ(result: torch.Tensor, expected: np.ndarray) -> float:
    assert tuple(result.shape) == expected.shape
    return float(np.abs(result.numpy() - expected).max())


@pytest.mark.parametrize("kind", KINDS)
def test_keys_and_shapes_are_those_of_the_checkpoints(kind: str) -> None:
    module = build(kind, "meta")
    lines = sorted(f"{key} {'x'.join(map(str, v.shape)) or 'scalar'}" for key, v in module.state_dict().items())
    parameters = list(module.parameters())
    found = (sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad), len(lines),
             hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16])
    assert found == TABLE[kind]


def test_unknown_kind_lists_the_choices() -> None:
    with pytest.raises(CheckpointError, match=r"'predrecon' is not a published kind.*lrs_mt.*split"):
        build("predrecon")


@torch.no_grad()
def test_lrs_transformer(make_filled_model: Callable[..., nn.Module], golden: Callable, spectra: dict) -> None:
    model, expected = make_filled_model("lrs_mt"), golden("lrs_mt")
    # the layers by three spectra of the eight, the loss by all
    lrs, chosen = spectra["lamost_lrs"][:SOME], expected["tok_idx"]
    tokens = model.tokenise(lrs)
    assert tuple(model.tokenise(spectra["lamost_lrs"]).shape) == tuple(expected["pre_shape"])
    assert differ(tokens[:, chosen], expected["pre_tokens"][:SOME]) < TOLERANCE
    embedded = model.data_embed(tokens) + model.position_embed.weight[: tokens.shape[1]]
    assert differ(embedded[:, chosen], expected["embed_in_tokens"][:SOME]) < TOLERANCE
    block = model.blocks[0]
    assert differ(block.attention(block.ln1(embedded))[:, chosen], expected["block0_attn_tokens"][:SOME]) < TOLERANCE
    assert differ(block(embedded)[:, chosen], expected["block0_out_tokens"][:SOME]) < TOLERANCE
    out = model(lrs)
    assert differ(out["embedding"][:, chosen], expected["embedding_tokens"][:SOME]) < TOLERANCE
    assert differ(out["embedding"].mean(1), expected["embedding_mean"][:SOME]) < TOLERANCE
    assert differ(out["reconstruction"][:, chosen], expected["reconstructions_tokens"][:SOME]) < TOLERANCE
    assert differ(out["reconstruction"].sum((1, 2)), expected["recon_sum"][:SOME]) < 1e-8
    hidden = torch.zeros(8, 146, dtype=torch.bool)
    for start, stop in ((5, 15), (30, 40), (55, 65), (78, 88), (100, 110), (125, 135)):
        hidden[:, start:stop] = True
    assert abs(model.losses(spectra["lamost_lrs"], hidden)["total"].item() - 2.118362707950522) < TOLERANCE


@torch.no_grad()
def test_xp_transformer_masked_loss(make_filled_model: Callable[..., nn.Module], spectra: dict) -> None:
    hidden = torch.zeros(8, 344, dtype=torch.bool)
    for k in range(6):
        hidden[:, 20 + 57 * k : 40 + 57 * k] = True
    loss = make_filled_model("xp_mt").losses(spectra["gaia_xp"], hidden)["total"].item()
    assert abs(loss - 0.9621263098931526) < TOLERANCE


@torch.no_grad()
def test_xp_autoencoder(make_filled_model: Callable[..., nn.Module], golden: Callable, spectra: dict) -> None:
    model, expected = make_filled_model("xp_oae"), golden("xp_oae")
    out = model(spectra["gaia_xp"])
    assert differ(out["latent"], expected["latent"]) < TOLERANCE
    assert differ(out["reconstruction"], expected["reconstructions"]) < TOLERANCE
    assert abs(model.losses(spectra["gaia_xp"])["total"].item() - 1.2094909306728676) < TOLERANCE


@pytest.fixture(scope="module")
def pr(make_filled_model: Callable[..., nn.Module]) -> nn.Module:
    return make_filled_model("pr")


@pytest.fixture(scope="module")
def base(pr: nn.Module) -> nn.Module:
    """The purely contrastive kind: its keys, and so its documented weights, are a part of `pr`'s."""
    module = build("base", "meta")
    module.load_state_dict({key: pr.state_dict()[key] for key in module.state_dict()}, assign=True)
    return module.eval()


@torch.no_grad()
def test_pr(pr: nn.Module, golden: Callable, spectra: dict) -> None:
    expected, xp, lrs = golden("pr"), spectra["gaia_xp"], spectra["lamost_lrs"]
    a, b = pr.encode("gaia_xp", xp)["shared"], pr.encode("lamost_lrs", lrs)["shared"]
    assert differ(a, expected["xp_embed"]) < TOLERANCE
    assert differ(b, expected["lrs_embed"]) < TOLERANCE
    assert differ(clip_logits(a, b), expected["logits_xp_to_lrs"]) < TOLERANCE
    assert abs(clip_loss(a, b, 1.0).item() - expected["clip_loss_scale1.0"]) < TOLERANCE
    few_xp, few_lrs = xp[:SOME], lrs[:SOME]
    assert differ(pr.reconstruct("gaia_xp", few_xp), expected["xp_recon"][:SOME]) < TOLERANCE
    assert differ(pr.reconstruct("lamost_lrs", few_lrs), expected["lrs_recon_standardised"][:SOME]) < TOLERANCE
    assert differ(pr.translate("lamost_lrs", few_lrs), expected["xp_from_lrs"][:SOME]) < TOLERANCE
    assert differ(pr.translate("gaia_xp", few_xp), expected["lrs_from_xp"][:SOME]) < TOLERANCE
    losses = pr.losses(xp, lrs)
    assert set(losses) == {"clip", "recon_xp", "recon_lrs", "pred_xp", "pred_lrs", "total"}
    for name, value in losses.items():
        assert abs(value.item() - expected[f"loss_{name}"]) < TOLERANCE


@torch.no_grad()
def test_base_in_both_precisions(base: nn.Module, golden: Callable, spectra: dict) -> None:
    expected = golden("base")
    single = copy.deepcopy(base).float()
    for modality, name in (("gaia_xp", "xp_embed"), ("lamost_lrs", "lrs_embed")):
        few = spectra[modality][:SOME]
        assert differ(base.encode(modality, few)["shared"], expected[name][:SOME]) < TOLERANCE
        assert differ(single.encode(modality, few.float())["shared"], expected[name][:SOME]) < 2e-5
    losses = base.losses(spectra["gaia_xp"], spectra["lamost_lrs"])
    assert set(losses) == {"clip", "total"}
    assert abs(losses["total"].item() - expected["clip_loss_scale15.5"]) < TOLERANCE
    with pytest.raises(AttributeError, match="no decoders"):
        base.translate("gaia_xp", spectra["gaia_xp"])


@torch.no_grad()
def test_a_batch_of_one_is_a_row_of_the_batch(base: nn.Module, spectra: dict) -> None:
    for modality, x in spectra.items():
        whole = base.encode(modality, x[1:4])["shared"]
        single = base.encode(modality, x[3:4])["shared"]
        assert single.shape == (1, 768)
        assert (single - whole[2:]).abs().max() < 1e-12


@torch.no_grad()
def test_split(make_filled_model: Callable[..., nn.Module], spectra: dict) -> None:
    model = make_filled_model("split")
    losses = model.losses(spectra["gaia_xp"], spectra["lamost_lrs"])
    assert abs(losses["clip"].item() - 2.0950490633266083) < TOLERANCE
    assert abs(losses["total"].item() - 5.198266294446839) < TOLERANCE
    halves = losses["clip"] + 0.5 * (losses["total"] - losses["clip"])
    assert abs(halves.item() - 3.646657678886723) < TOLERANCE
    encoded = model.encode("lamost_lrs", spectra["lamost_lrs"][:1])
    assert (encoded["shared"].shape, encoded["private"].shape) == ((1, 512), (1, 256))
