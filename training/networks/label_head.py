"""The published label heads: one perceptron per label on a model's vector."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from specclip_search.errors import CheckpointError, QueryError

HIDDEN = (1024, 512, 64)


class LabelHead(nn.Module):
    """Per hidden layer Linear, BatchNorm, ReLU, Dropout; then one number in physical units."""

    def __init__(self, dim: int = 768, dropout: float = 0.1) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for wide_in, wide_out in zip((dim, *HIDDEN[:-1]), HIDDEN, strict=True):
            layers += [nn.Linear(wide_in, wide_out), nn.BatchNorm1d(wide_out), nn.ReLU(), nn.Dropout(dropout)]
        self.network = nn.Sequential(*layers, nn.Linear(HIDDEN[-1], 1))
        # plain tensors, not buffers: the published files have no such keys
        self.mean = torch.from_numpy(np.zeros(dim, np.float32))
        self.std = torch.from_numpy(np.ones(dim, np.float32))

    def forward(self, vectors: Tensor) -> Tensor:
        """(B, dim) encoder outputs, not of unit length, to (B,) labels."""
        return self.network((vectors - self.mean) / self.std)[:, 0]

    @torch.inference_mode()
    def predict(self, vectors: np.ndarray) -> np.ndarray:
        """(N, dim) vectors to (N,) float32 labels."""
        dim = len(self.mean)
        if vectors.ndim != 2 or vectors.shape[1] != dim:
            raise QueryError(f"This label head takes vectors of shape (N, {dim}); found {vectors.shape}.",
                             "Give the vectors of the model it was trained on; for 'split', shared then private.")
        return self.eval()(torch.from_numpy(np.ascontiguousarray(vectors, np.float32))).numpy()

    def use_statistics(self, path: Path) -> None:
        """Read mean and std of the training vectors from `{"mean": [...], "std": [...]}`.

        Raises
        ------
        CheckpointError
            If the file is unreadable, of another length, or a std is not positive.
        """
        dim = len(self.mean)
        try:
            table = json.loads(Path(path).read_text(encoding="utf-8"))
            mean, std = (torch.tensor(table[name], dtype=torch.float32) for name in ("mean", "std"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path} is not a file of vector statistics ({error}).",
                                  'Expected {"mean": [...], "std": [...]}.') from error
        if mean.shape != (dim,) or std.shape != (dim,) or not bool((std > 0).all()):
            raise CheckpointError(f"{path} must hold {dim} means and {dim} positive stds; found {tuple(mean.shape)} "
                                  f"and {tuple(std.shape)}.", "Take the file that belongs to this label head.")
        self.mean, self.std = mean, std
