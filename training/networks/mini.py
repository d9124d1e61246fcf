"""The small model that can be trained on a CPU, built from the published parts.

Small heads predict labels from the shared vector during training, so that the vector retains them.
They are used in training only; labels for users come from the estimators, which are trained on the
finished vectors and calibrated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from specclip_search.errors import CheckpointError

from .aligned import AlignedModel
from .autoencoder import AutoEncoder
from .heads import AttentionHead, Decoder, Encoder, MlpHead
from .label_scale import LABELS, TEFF_UNIT
from .losses import clip_loss, label_loss, sigmoid_loss
from .published import LRS_PIXELS, XP_PIXELS
from .tokens import lrs_token_count, lrs_tokens
from .transformer import MaskedTransformer

# centre and width of each label on the learned scale: ln(teff / 5000 K), dex, km/s
CENTRE = {"teff": 0.0, "logg": 3.0, "feh": -0.5, "alpha_fe": 0.1, "c_fe": 0.0, "rv": 0.0}
WIDTH = {"teff": 0.15, "logg": 1.0, "feh": 0.6, "alpha_fe": 0.13, "c_fe": 0.5, "rv": 80.0}


class LabelGuide(nn.Module):
    """A perceptron over the unit vector: mean and ln scale of every label."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.inner = nn.Linear(dim, hidden)
        self.outer = nn.Linear(hidden, 2 * len(LABELS))

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """(B, dim) vectors of any length to mean and ln scale (B, labels), standardised."""
        # unit vectors have components of size 1/sqrt(dim): scale them to 1
        unit = F.normalize(vectors.float(), dim=-1) * vectors.shape[-1] ** 0.5
        mean, log_scale = self.outer(F.gelu(self.inner(unit))).float().chunk(2, dim=-1)
        return mean, log_scale

    def loss(self, vectors: Tensor, labels: Tensor) -> Tensor:
        """`specclip_search.training.networks.losses.label_loss` of (B, labels) labels in their units, NaN where
        unknown."""
        learned = torch.cat([torch.log(labels[:, :1] / TEFF_UNIT), labels[:, 1:]], dim=1)
        centre = labels.new_tensor([CENTRE[name] for name in LABELS])
        width = labels.new_tensor([WIDTH[name] for name in LABELS])
        mean, log_scale = self(vectors)
        return label_loss(mean, log_scale, (learned - centre) / width)


STD_FLOOR = 1e-4
MAX_SCALE = 100.0


@dataclass(frozen=True)
class MiniSizes:
    """Sizes of a `mini` model, table `[model]` of its recipe."""

    dim: int = 768
    """Length of the shared vector."""
    lrs_encoder: str = "transformer"
    """Encoder of LRS spectra: `transformer`, or `perceptron`, residual blocks over all pixels at once."""
    lrs_slice: int = 34
    """Pixels in one LRS token; tokens do not overlap. 34 divides the 1462 pixels into 43."""
    lrs_width: int = 128
    """Width of the LRS transformer."""
    lrs_layers: int = 3
    """Blocks of the LRS transformer."""
    lrs_heads: int = 4
    """Attention heads of the LRS transformer."""
    lrs_expansion: int = 4
    """Inner width of its perceptrons over its width."""
    lrs_queries: int = 6
    """Number of learned queries whose outputs form the vector; must divide `dim`."""
    lrs_hidden: int = 384
    """Width of the perceptron that encodes LRS spectra."""
    lrs_blocks: int = 2
    """Blocks of it."""
    lrs_latent: int = 256
    """Length of its latent vector."""
    lrs_feature: int = 256
    """Inner width of its head's feature perceptron."""
    xp_hidden: int = 256
    """Width of the XP auto-encoder."""
    xp_blocks: int = 2
    """Blocks of it."""
    xp_expansion: int = 2
    """Inner width of these, and of the LRS perceptron's, over their width."""
    xp_latent: int = 128
    """Length of its latent vector."""
    xp_feature: int = 256
    """Inner width of the XP head's feature perceptron."""
    head_expansion: float = 0.25
    """Inner width of both heads' residual perceptron over `dim`."""
    decoder_hidden: tuple[int, ...] = (256, 384)
    """Hidden widths of every decoder."""
    dropout: float = 0.0
    """Dropout in heads and decoders."""
    temperature: float = 15.5
    """Initial factor of the cosines in the contrastive loss."""
    learn_temperature: bool = True
    """Whether this factor is trained."""
    contrast: str = "clip"
    """Contrastive loss: `clip` or `sigmoid`."""
    label_hidden: int = 0
    """Inner width of the label heads used during training (see
    `specclip_search.training.networks.mini`); 0: none."""


class MiniModel(AlignedModel):
    """Two small encoders and four small decoders, all trained together from the first step.

    Differs from the published models where it needs no compatibility: attention has the usual
    single scale, spectra are divided by at least 1e-4, the temperature is learned, nothing is frozen.
    """

    def __init__(self, sizes: MiniSizes) -> None:
        decoder = partial(Decoder, dropout=sizes.dropout)
        to_xp = (sizes.dim, *sizes.decoder_hidden, XP_PIXELS)
        to_lrs = (sizes.dim, *sizes.decoder_hidden, LRS_PIXELS)
        decoders = {"gaia_xp_decoder": decoder(to_xp), "lamost_lrs_decoder": decoder(to_lrs),
                    "gaia_xp_cross_decoder": decoder(to_xp), "lamost_lrs_cross_decoder": decoder(to_lrs)}
        for name, made in decoders.items():
            # all except the standardised reconstruction give spectra near one
            nn.init.constant_(made.last.bias, 0.0 if name == "lamost_lrs_decoder" else 1.0)
        super().__init__(_xp_encoder(sizes), _lrs_encoder(sizes), decoders, sizes.temperature)
        if sizes.label_hidden:
            self.gaia_xp_labels = LabelGuide(sizes.dim, sizes.label_hidden)
            self.lamost_lrs_labels = LabelGuide(sizes.dim, sizes.label_hidden)
        self.sigmoid = sizes.contrast == "sigmoid"
        self.log_scale = nn.Parameter(torch.tensor(math.log(sizes.temperature)), requires_grad=sizes.learn_temperature)
        if self.sigmoid:
            self.bias = nn.Parameter(torch.tensor(-sizes.temperature))

    def scale(self) -> Tensor:
        """The learned factor of the cosines, at most 100."""
        return self.log_scale.exp().clamp(max=MAX_SCALE)

    def contrast(self, xp: Tensor, lrs: Tensor) -> Tensor:
        """Contrastive loss of paired shared vectors, in full precision."""
        xp, lrs = xp.float(), lrs.float()
        return sigmoid_loss(xp, lrs, self.scale(), self.bias) if self.sigmoid else clip_loss(xp, lrs, self.scale())

    def floor(self) -> float:
        """Smallest standard deviation that spectra are divided by."""
        return STD_FLOOR


def _lrs_encoder(sizes: MiniSizes) -> Encoder:
    if sizes.lrs_encoder == "perceptron":
        pixels = AutoEncoder(LRS_PIXELS, sizes.lrs_hidden, sizes.lrs_latent, sizes.lrs_blocks, sizes.xp_expansion,
                             STD_FLOOR, decoder=False)
        return MlpHead(pixels, sizes.lrs_latent, sizes.dim, sizes.lrs_feature, sizes.head_expansion, frozen=False,
                       dropout=sizes.dropout)
    if sizes.lrs_encoder != "transformer":
        raise CheckpointError(f"lrs_encoder must be 'transformer' or 'perceptron'; found '{sizes.lrs_encoder}'.",
                              "Correct [model] lrs_encoder.")
    tokenise = partial(lrs_tokens, slice_length=sizes.lrs_slice, stride=sizes.lrs_slice, floor=STD_FLOOR)
    backbone = MaskedTransformer(
        tokenise, features=1 + sizes.lrs_slice, dim=sizes.lrs_width, layers=sizes.lrs_layers, heads=sizes.lrs_heads,
        max_len=lrs_token_count(LRS_PIXELS, sizes.lrs_slice, sizes.lrs_slice), expansion=sizes.lrs_expansion,
        double_scale=False,
    )
    nn.init.normal_(backbone.position_embed.weight, std=0.02)
    return AttentionHead(backbone, token_dim=sizes.lrs_width, dim=sizes.dim, heads=sizes.lrs_heads,
                         queries=sizes.lrs_queries, expansion=sizes.head_expansion, frozen=False,
                         dropout=sizes.dropout)


def _xp_encoder(sizes: MiniSizes) -> MlpHead:
    backbone = AutoEncoder(XP_PIXELS, sizes.xp_hidden, sizes.xp_latent, sizes.xp_blocks, sizes.xp_expansion, STD_FLOOR,
                           decoder=False)
    return MlpHead(backbone, sizes.xp_latent, sizes.dim, sizes.xp_feature, sizes.head_expansion, frozen=False,
                   dropout=sizes.dropout)
