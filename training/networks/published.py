"""The published SpecCLIP architectures at their published sizes.

Architecture: Zhao et al. 2025, arXiv 2507.01939. Parameter names are those of the published
checkpoint files, so that `load_state_dict` accepts their `state_dict` unchanged. Built from the
same parts as our own recipes; only the sizes differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from specclip_search.errors import CheckpointError

from .aligned import AlignedModel
from .autoencoder import AutoEncoder
from .heads import AttentionHead, Decoder, MlpHead, SplitAttentionHead, SplitDecoder, SplitMlpHead
from .tokens import lrs_tokens, xp_tokens
from .transformer import MaskedTransformer

XP_PIXELS, LRS_PIXELS = 343, 1462

BACKBONES = ("lrs_mt", "xp_mt", "xp_oae")
ALIGNED = ("base", "base_xpmt", "pr", "split")
KINDS = BACKBONES + ALIGNED


@dataclass(frozen=True)
class PublishedSizes:
    """Table `[published]` of a recipe: sizes of the published kinds; the published ones by default."""

    width: int = 768
    """Width of transformers, of the auto-encoder's latent vector and of the vectors of `base` and `pr`."""
    layers: int = 6
    """Blocks of a transformer."""
    heads: int = 6
    """Attention heads of a transformer."""
    xp_hidden: int = 1290
    """Width of the XP auto-encoder."""
    feature: int = 1160
    """Inner width of the XP head's feature perceptron."""
    shared: int = 512
    """Shared vector of `split`."""
    private: int = 256
    """Private vector of `split`."""
    to_xp: tuple[int, ...] = ()
    """Hidden widths of decoders to XP; none named: 3072, 1536, 768 (`pr`) or 2048, 1024, 512 (`split`)."""
    to_lrs: tuple[int, ...] = ()
    """Hidden widths of decoders to LRS; none named: three of 3072 (`pr`) or of 2048 (`split`)."""

    def __post_init__(self) -> None:
        for name, value, heads in (("width", self.width, self.heads), ("width", self.width, 4),
                                   ("shared", self.shared, 4), ("private", self.private, 2)):
            if value < 1 or heads < 1 or value % heads:
                raise CheckpointError(f"[published] {name} = {value} cannot be shared by {heads} attention heads.",
                                      f"Make it a multiple of {heads}.")


def build(kind: str, device: str | torch.device | None = None, sizes: PublishedSizes | None = None) -> nn.Module:
    """A module of a published kind with random weights.

    Parameters
    ----------
    kind
        `lrs_mt`, `xp_mt` (masked transformers), `xp_oae` (auto-encoder), `base` (contrastive),
        `base_xpmt` (contrastive, XP by transformer), `pr` (with reconstruction and prediction,
        one vector), `split` (the same with a shared and a private vector).
    device
        Device of the parameters; "meta" allocates none, for loading weights.
    sizes
        Other sizes than the published ones.

    Raises
    ------
    CheckpointError
        If `kind` is none of these.
    """
    makers: dict[str, Callable[[PublishedSizes], nn.Module]] = {
        "lrs_mt": lrs_transformer, "xp_mt": xp_transformer, "xp_oae": xp_autoencoder, "base": _base,
        "base_xpmt": _base_xpmt, "pr": _pr, "split": _split,
    }
    if kind not in makers:
        raise CheckpointError(
            f"'{kind}' is not a published kind of model; expected one of {', '.join(KINDS)}.",
            "Choose one of these, or load a trained model by name with load_model.",
        )
    with torch.device(device or "cpu"):
        return makers[kind](sizes or PublishedSizes())


def lrs_transformer(sizes: PublishedSizes) -> MaskedTransformer:
    """LAMOST LRS: 146 tokens of 21 features; mask 6 runs of 10."""
    return MaskedTransformer(lrs_tokens, features=21, dim=sizes.width, layers=sizes.layers, heads=sizes.heads,
                             max_len=150, mask_width=10)


def xp_transformer(sizes: PublishedSizes) -> MaskedTransformer:
    """Gaia XP: 344 tokens of 3 features; mask 6 runs of 20."""
    return MaskedTransformer(xp_tokens, features=3, dim=sizes.width, layers=sizes.layers, heads=sizes.heads,
                             max_len=350, mask_width=20)


def xp_autoencoder(sizes: PublishedSizes) -> AutoEncoder:
    """Gaia XP: 343 pixels, their mean and their standard deviation, to a latent vector and back."""
    return AutoEncoder(XP_PIXELS, sizes.xp_hidden, sizes.width)


def _attention_head(backbone: MaskedTransformer, sizes: PublishedSizes) -> AttentionHead:
    return AttentionHead(backbone, token_dim=sizes.width, dim=sizes.width)


def _mlp_head(sizes: PublishedSizes) -> MlpHead:
    return MlpHead(xp_autoencoder(sizes), sizes.width, sizes.width, sizes.feature)


def _base(sizes: PublishedSizes) -> AlignedModel:
    return AlignedModel(_mlp_head(sizes), _attention_head(lrs_transformer(sizes), sizes))


def _base_xpmt(sizes: PublishedSizes) -> AlignedModel:
    return AlignedModel(_attention_head(xp_transformer(sizes), sizes), _attention_head(lrs_transformer(sizes), sizes))


def _pr(sizes: PublishedSizes) -> AlignedModel:
    to_xp = partial(Decoder, (sizes.width, *(sizes.to_xp or (3072, 1536, 768)), XP_PIXELS))
    to_lrs = partial(Decoder, (sizes.width, *(sizes.to_lrs or (3072, 3072, 3072)), LRS_PIXELS))
    decoders = {"gaia_xp_decoder": to_xp(), "lamost_lrs_decoder": to_lrs(),
                "gaia_xp_cross_decoder": to_xp(), "lamost_lrs_cross_decoder": to_lrs()}
    return AlignedModel(_mlp_head(sizes), _attention_head(lrs_transformer(sizes), sizes), decoders)


def _split(sizes: PublishedSizes) -> AlignedModel:
    shared, private = sizes.shared, sizes.private
    decoders = {
        "lamost_lrs_decoder": SplitDecoder(LRS_PIXELS, shared, private),
        "gaia_xp_decoder": SplitDecoder(XP_PIXELS, shared, private),
        "lamost_lrs_cross_decoder": Decoder((shared, *(sizes.to_lrs or (2048, 2048, 2048)), LRS_PIXELS)),
        "gaia_xp_cross_decoder": Decoder((shared, *(sizes.to_xp or (2048, 1024, 512)), XP_PIXELS)),
    }
    return AlignedModel(SplitMlpHead(xp_autoencoder(sizes), sizes.width, shared, private, sizes.feature),
                        SplitAttentionHead(lrs_transformer(sizes), sizes.width, shared, private), decoders)
