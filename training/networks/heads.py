"""Alignment heads: from a backbone's output to the vector that two instruments share.

The published heads end with an unrestricted squeeze, so that a batch of one loses its batch axis.
These keep it; the numbers are otherwise the same.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


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
        Number of learned queries; their answers are concatenated. Published: 1.
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
        """Keep the backbone as it is from now on, or train it too."""
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
