"""Decoders: from vectors back to spectra."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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
