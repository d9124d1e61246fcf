"""Alignment heads, from a backbone's output to the shared vector, and decoders.

The published heads end with an unrestricted squeeze, so that a batch of one loses its batch axis.
These keep it; the numbers are otherwise the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ResidualMlp(nn.Module):
    """x + W2 gelu(W1 x): the last step of every head."""

    def __init__(self, dim: int, expansion: float = 4, dropout: float = 0.1) -> None:
        super().__init__()
        hidden = int(expansion * dim)
        self.encoder = nn.Linear(dim, hidden)
        self.activation = nn.GELU()
        self.decoder = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim) to (B, dim)."""
        return x + self.dropout(self.decoder(self.activation(self.encoder(x))))


class AttentionPool(nn.Module):
    """Learned queries attend over a backbone's tokens.

    Parameters
    ----------
    dim, token_dim, heads
        Width of the query, width of the tokens, number of heads. Scores have the usual single
        1/sqrt(dim / heads) scale, unlike the backbone's.
    queries
        Number of learned queries; their outputs are concatenated. Published: 1.
    """

    def __init__(self, dim: int, token_dim: int, heads: int, queries: int = 1, dropout: float = 0.1) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, queries, dim))
        nn.init.normal_(self.query, std=0.02)
        self.multihead_attn = nn.MultiheadAttention(dim, heads, kdim=token_dim, vdim=token_dim, batch_first=True)
        self.layernorm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, token_dim) to (B, queries * dim)."""
        query = self.query.expand(tokens.shape[0], -1, -1)
        pooled, _ = self.multihead_attn(query, tokens, tokens, need_weights=False)
        return self.layernorm(self.dropout(pooled)).flatten(1)


def feature_mlp(dim: int, hidden: int = 1160, dropout: float = 0.1) -> nn.Sequential:
    """Linear, LayerNorm, GELU, Linear, LayerNorm, Dropout: parameters at indices 0, 1, 3, 4."""
    return nn.Sequential(
        nn.Linear(dim, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Linear(hidden, dim), nn.LayerNorm(dim),
        nn.Dropout(dropout),
    )


class Encoder(nn.Module):
    """A backbone under a head. A frozen backbone runs without gradients."""

    def __init__(self, backbone: nn.Module, frozen: bool = True) -> None:
        super().__init__()
        self.backbone = backbone
        self.frozen = False
        if frozen:
            self.freeze(True)

    def freeze(self, frozen: bool) -> None:
        """Freeze or unfreeze the backbone."""
        self.frozen = frozen
        self.backbone.requires_grad_(not frozen)

    def features(self, x: Tensor) -> Tensor:
        """(B, n) spectra to the backbone's features."""
        features = self.backbone.embed(x)  # type: ignore[operator]
        return features.detach() if self.frozen else features


class AttentionHead(Encoder):
    """One attention pool and a residual perceptron over a transformer's tokens."""

    def __init__(self, backbone: nn.Module, token_dim: int = 768, dim: int = 768, heads: int = 4, queries: int = 1,
                 expansion: float = 4, frozen: bool = True, dropout: float = 0.1) -> None:
        super().__init__(backbone, frozen)
        self.cross_attention = AttentionPool(dim // queries, token_dim, heads, queries, dropout)
        self.mlp = ResidualMlp(dim, expansion, dropout)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(B, n) spectra to `shared` (B, dim), not of unit length."""
        return {"shared": self.mlp(self.cross_attention(self.features(x)))}


class SplitAttentionHead(Encoder):
    """Two attention pools over the same tokens: a shared and a private vector."""

    def __init__(self, backbone: nn.Module, token_dim: int = 768, shared: int = 512, private: int = 256,
                 shared_heads: int = 4, private_heads: int = 2) -> None:
        super().__init__(backbone)
        self.shared_attention = AttentionPool(shared, token_dim, shared_heads)
        self.private_attention = AttentionPool(private, token_dim, private_heads)
        self.shared_mlp = ResidualMlp(shared)
        self.private_mlp = ResidualMlp(private)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(B, n) spectra to `shared` and `private` vectors."""
        tokens = self.features(x)
        return {"shared": self.shared_mlp(self.shared_attention(tokens)),
                "private": self.private_mlp(self.private_attention(tokens))}


class MlpHead(Encoder):
    """Projection, feature perceptron and residual perceptron over an auto-encoder's latent."""

    def __init__(self, backbone: nn.Module, latent: int = 768, dim: int = 768, hidden: int = 1160, expansion: float = 4,
                 frozen: bool = True, dropout: float = 0.1) -> None:
        super().__init__(backbone, frozen)
        self.projection = nn.Linear(latent, dim)
        self.feature_mlp = feature_mlp(dim, hidden, dropout)
        self.mlp = ResidualMlp(dim, expansion, dropout)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(B, n) spectra to `shared` (B, dim), not of unit length."""
        return {"shared": self.mlp(self.feature_mlp(self.projection(self.features(x))))}


class SplitMlpHead(Encoder):
    """`MlpHead` twice: a shared and a private vector from one latent."""

    def __init__(self, backbone: nn.Module, latent: int = 768, shared: int = 512, private: int = 256,
                 hidden: int = 1160) -> None:
        super().__init__(backbone)
        self.shared_projection = nn.Linear(latent, shared)
        self.shared_feature_mlp = feature_mlp(shared, hidden)
        self.private_projection = nn.Linear(latent, private)
        self.private_feature_mlp = feature_mlp(private, hidden)
        self.shared_mlp = ResidualMlp(shared)
        self.private_mlp = ResidualMlp(private)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(B, n) spectra to `shared` and `private` vectors."""
        latent = self.features(x)
        return {"shared": self.shared_mlp(self.shared_feature_mlp(self.shared_projection(latent))),
                "private": self.private_mlp(self.private_feature_mlp(self.private_projection(latent)))}


class Decoder(nn.Module):
    """Blocks of Linear, GELU, BatchNorm, Dropout, then a last Linear.

    The norm stands after the activation, as in the published decoders.

    Parameters
    ----------
    widths
        Of the input, the hidden layers and the output, for example (768, 3072, 1536, 768, 343).
    """

    def __init__(self, widths: Sequence[int], dropout: float = 0.1) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for wide_in, wide_out in pairwise(widths[:-1]):
            layers += [nn.Linear(wide_in, wide_out), nn.GELU(), nn.BatchNorm1d(wide_out), nn.Dropout(dropout)]
        self.decoder = nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))

    @property
    def last(self) -> nn.Linear:
        """The layer that makes pixels."""
        layer = self.decoder[-1]
        assert isinstance(layer, nn.Linear)
        return layer

    def forward(self, vector: Tensor) -> Tensor:
        """(B, widths[0]) to (B, widths[-1]).

        Under autocast the last bias is added in float32: spectra lie near one, where bfloat16
        has steps of 0.008, while their differences from the bias are small.
        """
        if not torch.is_autocast_enabled(vector.device.type):
            return self.decoder(vector)
        for layer in list(self.decoder)[:-1]:
            vector = layer(vector)
        return F.linear(vector, self.last.weight).float() + self.last.bias


class SplitDecoder(nn.Module):
    """Reconstruction from the shared and the private vector of one spectrum; no norm, no dropout."""

    def __init__(self, pixels: int, shared: int = 512, private: int = 256) -> None:
        super().__init__()
        self.shared_proj = nn.Linear(shared, pixels)
        self.private_proj = nn.Linear(private, pixels)
        self.final_layer = nn.Sequential(nn.Linear(2 * pixels, 2 * pixels), nn.GELU(), nn.Linear(2 * pixels, pixels))

    def forward(self, shared: Tensor, private: Tensor) -> Tensor:
        """(B, shared) and (B, private) to (B, pixels)."""
        return self.final_layer(torch.cat([self.shared_proj(shared), self.private_proj(private)], dim=-1))
