"""Conversion of spectra to transformer tokens, and masks for pretraining.

Masks set runs of tokens to zero, one run in each region of the token axis.
"""

from __future__ import annotations

import torch
from torch import Tensor


def mean_and_std(x: Tensor, floor: float = 0.0) -> tuple[Tensor, Tensor]:
    """Mean and unbiased (N - 1) standard deviation over the pixels.

    Parameters
    ----------
    x
        (B, n) spectra.
    floor
        Smallest standard deviation returned. The published models use none, so a constant
        spectrum divides by zero there; `specclip_search.training.model.Model` refuses such spectra.

    Returns
    -------
    mean, std
        (B, 1) each.
    """
    std = x.std(dim=-1, keepdim=True)
    return x.mean(dim=-1, keepdim=True), std.clamp_min(floor) if floor > 0 else std


def lrs_tokens(x: Tensor, slice_length: int = 20, stride: int = 10, floor: float = 0.0) -> Tensor:
    """Overlapping slices of the standardised spectrum after a statistics token.

    Token 0 is (log10 std, 0, ..., 0): the mean is discarded. Token i + 1 is (0, slice i).
    Only complete slices are used, so with the published 20 by 10 the last two of 1462 pixels enter
    through mean and std alone.

    Returns
    -------
    Tensor
        (B, 1 + n_slices, 1 + slice_length).
    """
    mean, std = mean_and_std(x, floor)
    slices = ((x - mean) / std).unfold(-1, slice_length, stride)
    tokens = x.new_zeros(x.shape[0], slices.shape[1] + 1, slice_length + 1)
    tokens[:, 0, 0] = std[:, 0].log10()
    tokens[:, 1:, 1:] = slices
    return tokens


def xp_tokens(x: Tensor) -> Tensor:
    """One token per pixel after a statistics token: (mean, std, 0), then (0, 0, z_i).

    Returns
    -------
    Tensor
        (B, 1 + n, 3). Unlike the LRS tokens the mean is kept and nothing is a logarithm.
    """
    mean, std = mean_and_std(x)
    tokens = x.new_zeros(x.shape[0], x.shape[1] + 1, 3)
    tokens[:, 0, 0] = mean[:, 0]
    tokens[:, 0, 1] = std[:, 0]
    tokens[:, 1:, 2] = (x - mean) / std
    return tokens


def vector_with_statistics(x: Tensor, floor: float = 0.0) -> Tensor:
    """(B, n) spectra to (B, n + 2): mean, std, then the standardised pixels."""
    mean, std = mean_and_std(x, floor)
    return torch.cat([mean, std, (x - mean) / std], dim=-1)


def lrs_token_count(pixels: int, slice_length: int, stride: int) -> int:
    """Number of tokens of `lrs_tokens` for a spectrum of `pixels` points."""
    return 2 + (pixels - slice_length) // stride


def chunk_mask(batch: int, tokens: int, chunks: int, width: int, generator: torch.Generator | None = None) -> Tensor:
    """Mask of hidden tokens: in each of `chunks` equal regions one run of `width`.

    Region i begins at (i * tokens) // chunks; the run's offset in it is uniform in
    [0, tokens // chunks - width), the upper end excluded as in the published training.

    Returns
    -------
    Tensor
        (batch, tokens) bool, True where hidden.

    Raises
    ------
    ValueError
        If (2 * chunks - 1) * width > tokens: the runs would not fit.
    """
    if (2 * chunks - 1) * width > tokens:
        raise ValueError(
            f"{chunks} masked runs of {width} need at least {(2 * chunks - 1) * width} tokens; there are {tokens}"
        )
    region = torch.arange(chunks) * tokens // chunks
    offset = torch.randint(0, tokens // chunks - width, (batch, chunks), generator=generator)
    start = (region + offset)[:, :, None]
    index = torch.arange(tokens)
    return ((index >= start) & (index < start + width)).any(dim=1)


def masked_loss(reconstruction: Tensor, tokens: Tensor, hidden: Tensor) -> Tensor:
    """Mean squared error over the entries changed by masking.

    Entries whose true value is zero, such as the padding feature, are not changed by
    masking and are ignored.

    Parameters
    ----------
    reconstruction, tokens
        (B, T, d) the model's output and the tokens before hiding.
    hidden
        (B, T) bool.
    """
    changed = hidden[:, :, None] & (tokens != 0)
    return ((reconstruction - tokens) ** 2 * changed).sum() / changed.sum().clamp_min(1)
