"""Exact search, k-means and assignment by torch, on any of its devices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..vectors.float16 import to_single
from .engines import DeviceLists, Held, Take, reranked
from .exact import Block

if TYPE_CHECKING:
    import torch

    from .lists import InvertedLists

_SLACK = 32
_ASSIGN_ROWS = 65_536
_CODE_ROWS = 4096
_ROOM_FOR_SCORES = 1.25


class TorchEngine:
    """torch on a device; on a GPU the blocks are multiplied in float16 and the best re-ranked in float32."""

    def __init__(self, device: str) -> None:
        import torch

        self.name = device
        self._torch = torch
        self._device = torch.device(device)
        self._type = torch.float16 if self._device.type == "cuda" else torch.float32

    def top_k(self, queries: np.ndarray, blocks: Iterable[Block], k: int, take: Take) -> tuple[np.ndarray, np.ndarray]:
        torch = self._torch
        wanted = k + _SLACK
        asked = self._on_device(queries)
        best = torch.empty((len(queries), 0), dtype=torch.float32, device=self._device)
        best_rows = torch.empty((len(queries), 0), dtype=torch.int64, device=self._device)
        for rows, vectors in blocks:
            similarity = (asked @ self._on_device(vectors).T).float()
            block_best, places = similarity.topk(min(wanted, len(rows)), dim=1)
            block_rows = torch.as_tensor(rows).to(self._device)[places]
            merged, order = torch.cat([best, block_best], 1).topk(min(wanted, best.shape[1] + places.shape[1]), dim=1)
            best_rows = torch.cat([best_rows, block_rows], 1).gather(1, order)
            best = merged
        return reranked(queries, best_rows.cpu().numpy(), k, take)

    def centroids(self, sample: np.ndarray, count: int, iterations: int, seed: int) -> np.ndarray:
        torch = self._torch
        first = np.sort(np.random.default_rng(seed).choice(len(sample), count, replace=False))
        points = torch.from_numpy(np.ascontiguousarray(sample, np.float32)).to(self._device)
        centres = points[torch.from_numpy(first).to(self._device)].clone()
        for _ in range(iterations):
            nearest = self._nearest(points, centres)
            counts = torch.bincount(nearest, minlength=count)
            sums = torch.zeros_like(centres).index_add_(0, nearest, points)
            centres = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centres)
            _split_largest(centres, counts)
        return centres.cpu().numpy()

    def assign(self, vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
        torch = self._torch
        centres = torch.from_numpy(np.ascontiguousarray(centroids, np.float32)).to(self._device)
        points = torch.from_numpy(np.ascontiguousarray(vectors, np.float32)).to(self._device)
        return self._nearest(points, centres).cpu().numpy()

    def encode(self, lists: InvertedLists, vectors: np.ndarray) -> np.ndarray:
        torch = self._torch
        projected = lists.project(vectors)
        books = torch.from_numpy(lists.codebooks()).to(self._device)
        lengths = (books * books).sum(dim=2)
        points = torch.from_numpy(projected).to(self._device).reshape(len(projected), len(books), -1)
        codes = [(lengths - 2 * torch.einsum("nmd,mkd->nmk", part, books)).argmin(dim=2).to(torch.uint8)
                 for part in points.split(_CODE_ROWS)]
        return lists.joined(self.assign(projected, lists.centroids()), torch.cat(codes).cpu().numpy())

    def resident(self, blocks: Iterable[Block], size: int) -> Held | None:
        if self._room() < size * _ROOM_FOR_SCORES:
            return None
        return [(self._torch.from_numpy(rows).to(self._device), self._on_device(vectors)) for rows, vectors in blocks]

    def _room(self) -> int:
        """Free bytes of a GPU; on a CPU vectors are read from the store, which the page cache holds."""
        return self._torch.cuda.mem_get_info(self._device)[0] if self._device.type == "cuda" else 0

    def device_lists(self, lists: InvertedLists) -> DeviceLists | None:
        # without a GPU build of FAISS the device does exact search; lists are searched on the CPU
        return None

    def _nearest(self, points: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
        """Nearest centroid by |c|^2 - 2 p.c, one block of points at a time."""
        lengths = (centres * centres).sum(dim=1)
        blocks = [(lengths - 2 * part @ centres.T).argmin(dim=1) for part in points.split(_ASSIGN_ROWS)]
        return self._torch.cat(blocks)

    def _on_device(self, vectors: Any) -> torch.Tensor:
        torch = self._torch
        if isinstance(vectors, torch.Tensor):
            return vectors.to(self._device).to(self._type)
        if self._type == torch.float32 and vectors.dtype == np.float16:
            vectors = to_single(vectors)
        writeable = vectors if vectors.flags.writeable else vectors.copy()
        return torch.from_numpy(writeable).to(self._device).to(self._type)


def _split_largest(centres: torch.Tensor, counts: torch.Tensor) -> None:
    """Move each empty centroid next to that of the largest cluster so that both split it, in place."""
    for empty in (counts == 0).nonzero()[:, 0].tolist():
        largest = int(counts.argmax())
        centres[empty] = centres[largest] * (1 + 1e-4)
        centres[largest] *= 1 - 1e-4
        counts[empty] = counts[largest] // 2
        counts[largest] -= counts[empty]
