"""Masks for pretraining: runs of tokens set to zero, one run in each region of the token axis."""

from __future__ import annotations

import torch
from torch import Tensor


def chunk_mask(batch: int, tokens: int, chunks: int, width: int, generator: torch.Generator | None = None) -> Tensor:
    """Which tokens to hide: in each of `chunks` equal regions one run of `width`.

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
    """Mean squared error over the entries that hiding changed.

    Entries whose true value is already zero, such as the padding feature, are not changed by
    hiding and do not count.

    Parameters
    ----------
    reconstruction, tokens
        (B, T, d) the model's output and the tokens before hiding.
    hidden
        (B, T) bool.
    """
    changed = hidden[:, :, None] & (tokens != 0)
    return ((reconstruction - tokens) ** 2 * changed).sum() / changed.sum().clamp_min(1)
