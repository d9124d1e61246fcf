"""The fully connected auto-encoder of Gaia XP spectra."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .tokens import vector_with_statistics


class MlpBlock(nn.Module):
    """LayerNorm, then a two-layer perceptron of the same width; deliberately without a residual connection.

    The index 3 of the second layer leaves room for the dropout that the published module has.
    """

    def __init__(self, dim: int, expansion: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(dim, expansion * dim), nn.GELU(), nn.Dropout(dropout),
            nn.Linear(expansion * dim, dim), nn.Dropout(dropout),
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim) to (B, dim)."""
        return self.mlp(self.norm(x))


class AutoEncoder(nn.Module):
    """Auto-encoder of a spectrum given as [mean, std, z_0, ..., z_(n-1)].

    Parameters
    ----------
    pixels
        n, number of points of the spectrum.
    hidden, latent
        Widths; published 1290 and 768.
    blocks, expansion
        Number of `MlpBlock` on each side, and their inner width over `hidden`.
    floor
        Smallest standard deviation divided by; the published model has none.
    decoder
        False omits the decoder, which aligned models do not use. The published aligned
        files contain it anyway.
    """

    def __init__(self, pixels: int = 343, hidden: int = 1290, latent: int = 768, blocks: int = 2, expansion: int = 3,
                 floor: float = 0.0, decoder: bool = True) -> None:
        super().__init__()
        self.dim = latent
        self.floor = floor
        self.input_proj = nn.Linear(pixels + 2, hidden)
        self.encoder_blocks = nn.ModuleList(MlpBlock(hidden, expansion) for _ in range(blocks))
        self.bottleneck_down = nn.Linear(hidden, latent)
        self.bottleneck_norm = nn.LayerNorm(latent)
        if not decoder:
            return
        self.bottleneck_up = nn.Linear(latent, hidden)
        self.decoder_blocks = nn.ModuleList(MlpBlock(hidden, expansion) for _ in range(blocks))
        self.output_proj = nn.Linear(hidden, pixels + 2)

    def embed(self, x: Tensor) -> Tensor:
        """(B, n) spectra to (B, latent); the decoder does not run."""
        h = self.input_proj(vector_with_statistics(x, self.floor))
        for block in self.encoder_blocks:
            h = block(h)
        return self.bottleneck_norm(self.bottleneck_down(h))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(B, n) spectra to `latent` (B, latent) and `reconstruction` (B, n + 2)."""
        latent = self.embed(x)
        h = self.bottleneck_up(latent)
        for block in self.decoder_blocks:
            h = block(h)
        return {"latent": latent, "reconstruction": self.output_proj(h)}

    def losses(self, x: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Mean squared error over all n + 2 outputs, mean and std included, as `total`."""
        return {"total": F.mse_loss(self(x)["reconstruction"], vector_with_statistics(x, self.floor))}
