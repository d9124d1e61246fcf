"""The published SpecCLIP architectures at their published sizes.

Architecture: Zhao et al. 2025, arXiv 2507.01939. Parameter names are those of the published
checkpoint files, so that `load_state_dict` takes their `state_dict` as it is. Built from the
same parts as our own recipes; only the sizes differ.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from specclip_search.errors import CheckpointError

from .aligned import AlignedModel
from .autoencoder import AutoEncoder
from .decoders import Decoder, SplitDecoder
from .heads import AttentionHead, MlpHead, SplitAttentionHead, SplitMlpHead
from .tokens import lrs_tokens, xp_tokens
from .transformer import MaskedTransformer

WIDTH, SHARED, PRIVATE = 768, 512, 256
XP_PIXELS, LRS_PIXELS = 343, 1462

BACKBONES = ("lrs_mt", "xp_mt", "xp_oae")
ALIGNED = ("base", "base_xpmt", "pr", "split")
KINDS = BACKBONES + ALIGNED


def build(kind: str, device: str | torch.device | None = None) -> nn.Module:
    """A module of a published kind with freshly drawn weights.

    Parameters
    ----------
    kind
        `lrs_mt`, `xp_mt` (masked transformers), `xp_oae` (auto-encoder), `base` (contrastive),
        `base_xpmt` (contrastive, XP by transformer), `pr` (with reconstruction and prediction,
        one vector), `split` (the same with a shared and a private vector).
    device
        Where parameters live; "meta" makes none, for loading weights over it.

    Raises
    ------
    CheckpointError
        If `kind` is none of these.
    """
    makers: dict[str, Callable[[], nn.Module]] = {
        "lrs_mt": lrs_transformer, "xp_mt": xp_transformer, "xp_oae": AutoEncoder, "base": _base,
        "base_xpmt": _base_xpmt, "pr": _pr, "split": _split,
    }
    if kind not in makers:
        raise CheckpointError(
            f"'{kind}' is not a published kind of model; expected one of {', '.join(KINDS)}.",
            "Choose one of these, or load a trained model by name with load_model.",
        )
    with torch.device(device or "cpu"):
        return makers[kind]()


def lrs_transformer() -> MaskedTransformer:
    """LAMOST LRS: 146 tokens of 21 features; mask 6 runs of 10."""
    return MaskedTransformer(lrs_tokens, features=21, dim=WIDTH, layers=6, heads=6, max_len=150, mask_width=10)


def xp_transformer() -> MaskedTransformer:
    """Gaia XP: 344 tokens of 3 features; mask 6 runs of 20."""
    return MaskedTransformer(xp_tokens, features=3, dim=WIDTH, layers=6, heads=6, max_len=350, mask_width=20)


def _base() -> AlignedModel:
    return AlignedModel(MlpHead(AutoEncoder()), AttentionHead(lrs_transformer()))


def _base_xpmt() -> AlignedModel:
    return AlignedModel(AttentionHead(xp_transformer()), AttentionHead(lrs_transformer()))


def _pr() -> AlignedModel:
    to_xp = partial(Decoder, (WIDTH, 3072, 1536, 768, XP_PIXELS))
    to_lrs = partial(Decoder, (WIDTH, 3072, 3072, 3072, LRS_PIXELS))
    decoders = {"gaia_xp_decoder": to_xp(), "lamost_lrs_decoder": to_lrs(),
                "gaia_xp_cross_decoder": to_xp(), "lamost_lrs_cross_decoder": to_lrs()}
    return AlignedModel(MlpHead(AutoEncoder()), AttentionHead(lrs_transformer()), decoders)


def _split() -> AlignedModel:
    decoders = {"lamost_lrs_decoder": SplitDecoder(LRS_PIXELS), "gaia_xp_decoder": SplitDecoder(XP_PIXELS),
                "lamost_lrs_cross_decoder": Decoder((SHARED, 2048, 2048, 2048, LRS_PIXELS)),
                "gaia_xp_cross_decoder": Decoder((SHARED, 2048, 1024, 512, XP_PIXELS))}
    return AlignedModel(SplitMlpHead(AutoEncoder()), SplitAttentionHead(lrs_transformer()), decoders)
