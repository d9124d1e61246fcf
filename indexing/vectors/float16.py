"""Conversion between float16 and float32, many times faster than NumPy's.

NumPy converts one float16 at a time; the same bits can be obtained by integer shifts, or from torch
if it is already imported. All methods give identical results.
"""

from __future__ import annotations

import sys

import numpy as np

_BLOCK_ROWS = 64
_WORTH_TORCH = 1_000_000
_EXPONENT_SHIFT = np.float32(2.0**112)
_SIGN_AND_MANTISSA = np.int32(~0x70000000)


def to_single(half: np.ndarray) -> np.ndarray:
    """(N, d) finite float16 to float32, exactly."""
    torch = sys.modules.get("torch")
    if torch is not None and half.flags.writeable and half.flags.c_contiguous:
        return torch.from_numpy(half).float().numpy()
    out = np.empty(half.shape, np.float32)
    bits = np.empty((min(_BLOCK_ROWS, len(half)), half.shape[1]), np.int32)
    for start in range(0, len(half), _BLOCK_ROWS):
        block = half[start : start + _BLOCK_ROWS]
        convert_into(block, bits[: len(block)], out[start : start + len(block)])
    return out


def convert_into(half: np.ndarray, bits: np.ndarray, out: np.ndarray) -> None:
    """Finite float16 to float32 in `out`, with `bits` (int32, same shape) as scratch; nothing is allocated."""
    # shift the sign-extended bits to their float32 position; the factor corrects the exponent bias
    np.left_shift(half.view(np.int16), 13, out=bits, dtype=np.int32)
    np.bitwise_and(bits, _SIGN_AND_MANTISSA, out=bits)
    np.multiply(bits.view(np.float32), _EXPONENT_SHIFT, out=out)


def to_half(single: np.ndarray) -> np.ndarray:
    """(N, d) float32 to float16, rounded to nearest even."""
    if single.size < _WORTH_TORCH and "torch" not in sys.modules:
        return single.astype(np.float16)
    import torch

    return torch.from_numpy(np.require(single, np.float32, ["C", "W"])).half().numpy()


def unit_rows(matrix: np.ndarray) -> np.ndarray:
    """(N, d) float32 with every row normalised to unit length; zero rows stay zero."""
    norms = np.sqrt(np.einsum("ij,ij->i", matrix, matrix))
    norms[norms == 0] = 1
    return matrix / norms[:, None]
