"""The masked transformer used by the token encoders of both instruments."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .tokens import chunk_mask, masked_loss


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """softmax(scale q k^T) v.

    Under bfloat16 autocast on a CPU this part stays in float32: its backward pass in
    bfloat16 was measured to be ten times slower, half of a training step.
    """
    if q.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):
            return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), scale=scale)
    return F.scaled_dot_product_attention(q, k, v, scale=scale)


class SelfAttention(nn.Module):
    """Self-attention with one projection for queries and one for keys and values.

    Parameters
    ----------
    dim, heads
        Width of the tokens and number of heads; heads are contiguous blocks of the width.
    double_scale
        The published code multiplies queries by 1/sqrt(d) and then calls an attention that does
        so again: scores are scaled by 1/d, d = dim / heads. Its weights were trained that way
        and need it. False gives the usual 1/sqrt(d).
    """

    def __init__(self, dim: int, heads: int, double_scale: bool = True) -> None:
        super().__init__()
        self.heads = heads
        head_dim = dim // heads
        self.scale = 1.0 / head_dim if double_scale else head_dim**-0.5
        self.q_proj = nn.Linear(dim, dim)
        self.kv_proj = nn.Linear(dim, 2 * dim)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, dim) to (B, T, dim); no mask, not causal."""
        batch, length, dim = x.shape
        k, v = self.kv_proj(x).chunk(2, dim=-1)
        q, k, v = (t.reshape(batch, length, self.heads, -1).transpose(1, 2) for t in (self.q_proj(x), k, v))
        out = attend(q, k, v, self.scale)
        return self.out_proj(out.transpose(1, 2).reshape(batch, length, dim))


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(ln1 x), then x + mlp(ln2 x); exact GELU."""

    def __init__(self, dim: int, heads: int, expansion: int = 4, double_scale: bool = True) -> None:
        super().__init__()
        self.attention = SelfAttention(dim, heads, double_scale)
        self.ln1 = nn.LayerNorm(dim)
        self.ln2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, expansion * dim), nn.GELU(), nn.Linear(expansion * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, dim) to (B, T, dim)."""
        x = x + self.attention(self.ln1(x))
        return x + self.mlp(self.ln2(x))


class MaskedTransformer(nn.Module):
    """Tokens in, contextual embeddings and reconstructed tokens out.

    Parameters
    ----------
    tokenise
        Turns (B, n) spectra into (B, T, features) tokens.
    features, dim, layers, heads, max_len
        Sizes; the position table has `max_len` rows, of which the first T are used.
    mask_chunks, mask_width
        Of the masks drawn in pretraining, see `chunk_mask`.
    double_scale
        See `SelfAttention`.
    """

    def __init__(self, tokenise: Callable[[Tensor], Tensor], features: int, dim: int, layers: int, heads: int,
                 max_len: int, mask_chunks: int = 6, mask_width: int = 10, expansion: int = 4,
                 double_scale: bool = True) -> None:
        super().__init__()
        self.tokenise = tokenise
        self.dim = dim
        self.mask_chunks = mask_chunks
        self.mask_width = mask_width
        self.data_embed = nn.Linear(features, dim)
        self.position_embed = nn.Embedding(max_len, dim)
        self.blocks = nn.ModuleList(Block(dim, heads, expansion, double_scale) for _ in range(layers))
        self.final_layernorm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, features)

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """(B, T, features) tokens to (B, T, dim) contextual embeddings."""
        x = self.data_embed(tokens) + self.position_embed.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.final_layernorm(x)

    def embed(self, x: Tensor) -> Tensor:
        """(B, n) spectra to (B, T, dim) contextual embeddings."""
        return self.embed_tokens(self.tokenise(x))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(B, n) spectra to `embedding` (B, T, dim) and `reconstruction` (B, T, features)."""
        embedding = self.embed(x)
        return {"embedding": embedding, "reconstruction": self.head(embedding)}

    def losses(self, x: Tensor, hidden: Tensor | None = None, generator: torch.Generator | None = None,
               ) -> dict[str, Tensor]:
        """Masked-reconstruction loss of (B, n) spectra, as `total`.

        Parameters
        ----------
        hidden
            (B, T) bool, which tokens to hide; drawn by `chunk_mask` when not given.
        generator
            Random generator of the mask.
        """
        tokens = self.tokenise(x)
        if hidden is None:
            batch, length = tokens.shape[:2]
            hidden = chunk_mask(batch, length, self.mask_chunks, self.mask_width, generator).to(x.device)
        seen = tokens.masked_fill(hidden[:, :, None], 0.0)
        return {"total": masked_loss(self.head(self.embed_tokens(seen)), tokens, hidden)}
