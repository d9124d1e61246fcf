"""Exact search, k-means and assignment by torch, on any of its devices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from ..vectors.float16 import to_single
from .engines import DeviceLists, Held, Take, reranked
from .exact import Block

if TYPE_CHECKING:
    import torch

    from .lists import InvertedLists

_SLACK = 32
_CODE_ROWS = 4096
_ROOM_FOR_SCORES = 1.25
# bytes of scores held at a time: few large products keep a GPU busy, and a small card must hold them
_SCORE_BYTES = 1 << 30
_SHARE_OF_ROOM = 0.25
_HELD_ROWS = 1 << 20


class TorchEngine:
    """torch on a device; on a GPU the blocks are multiplied in float16 and the best re-ranked in float32."""

    def __init__(self, device: str) -> None:
        import torch

        self.name = device
        self._torch = torch
        self._device = torch.device(device)
        self._type = torch.float16 if self._device.type == "cuda" else torch.float32
        self._lists: WeakKeyDictionary[InvertedLists, tuple[torch.Tensor, torch.Tensor]] = WeakKeyDictionary()

    def top_k(self, queries: np.ndarray, blocks: Iterable[Block], k: int, take: Take) -> tuple[np.ndarray, np.ndarray]:
        torch = self._torch
        wanted = k + _SLACK
        asked = self._on_device(queries)
        best, best_rows = [], []
        for rows, vectors in blocks:
            numbers, block = torch.as_tensor(rows).to(self._device), self._on_device(vectors)
            step = self._score_rows(len(queries))
            for part, own in zip(block.split(step), numbers.split(step), strict=True):
                values, places = self._products(asked, part).topk(min(wanted, len(part)), dim=1)
                best.append(values)
                best_rows.append(own[places])
        if not best:
            return reranked(queries, np.empty((len(queries), 0), np.int64), k, take)
        values, found = torch.cat(best, 1), torch.cat(best_rows, 1)
        order = values.topk(min(wanted, values.shape[1]), dim=1).indices
        return reranked(queries, found.gather(1, order).cpu().numpy(), k, take)

    def _products(self, asked: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        """(Q, n) float32 inner products: float16 results would tie where cosines are near 1."""
        if self._type == self._torch.float32:
            return asked @ vectors.T
        try:
            return self._torch.mm(asked, vectors.T, out_dtype=self._torch.float32)
        except TypeError:  # torch before 2.8
            return asked.float() @ vectors.T.float()

    def _score_rows(self, queries: int) -> int:
        """Vectors whose scores against all queries are held at a time."""
        room = self._room()
        allowed = min(_SCORE_BYTES, int(room * _SHARE_OF_ROOM)) if room else _SCORE_BYTES
        return max(1024, allowed // (4 * max(queries, 1)))

    def centroids(self, sample: np.ndarray, count: int, iterations: int, seed: int) -> np.ndarray:
        torch = self._torch
        first = np.sort(np.random.default_rng(seed).choice(len(sample), count, replace=False))
        points = torch.from_numpy(np.ascontiguousarray(sample, np.float32)).to(self._device)
        centres = points[torch.from_numpy(first).to(self._device)].clone()
        for _ in range(iterations):
            nearest = self._nearest(points, centres)
            counts = torch.bincount(nearest, minlength=count)
            # sums in the order of the points: atomic additions would differ between runs with one seed
            ordered = points[nearest.argsort(stable=True)]
            sums = torch.segment_reduce(ordered, "sum", lengths=counts, unsafe=True)
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
        centres, books = self._uploaded(lists)
        points = torch.from_numpy(lists.project(vectors)).to(self._device)
        lengths = (books * books).sum(dim=2)
        halves = [(lengths - 2 * torch.einsum("nmd,mkd->nmk", part, books)).argmin(dim=2).to(torch.uint8)
                  for part in points.reshape(len(points), len(books), -1).split(_CODE_ROWS)]
        return lists.joined(self._nearest(points, centres).cpu().numpy(), torch.cat(halves).cpu().numpy())

    def _uploaded(self, lists: InvertedLists) -> tuple[torch.Tensor, torch.Tensor]:
        """Centroids and codebooks on the device; sent once for each set of lists."""
        if lists not in self._lists:
            arrays = (np.ascontiguousarray(lists.centroids(), np.float32), lists.codebooks())
            centres, books = (self._torch.from_numpy(array).to(self._device) for array in arrays)
            self._lists[lists] = (centres, books)
        return self._lists[lists]

    def resident(self, blocks: Iterable[Block], size: int) -> Held | None:
        if self._room() < size * _ROOM_FOR_SCORES:
            return None
        held: Held = []
        waiting: list[tuple[Any, Any]] = []
        for rows, vectors in blocks:
            waiting.append((self._torch.from_numpy(rows).to(self._device), self._on_device(vectors)))
            if sum(len(numbers) for numbers, _ in waiting) >= _HELD_ROWS:
                held.append(_joined(self._torch, waiting))
        return held + ([_joined(self._torch, waiting)] if waiting else [])

    def _room(self) -> int:
        """Free bytes of a GPU; on a CPU vectors are read from the store, which the page cache holds."""
        return self._torch.cuda.mem_get_info(self._device)[0] if self._device.type == "cuda" else 0

    def device_lists(self, lists: InvertedLists) -> DeviceLists | None:
        # without a GPU build of FAISS the device does exact search; lists are searched on the CPU
        return None

    def _nearest(self, points: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
        """Nearest centroid by |c|^2 - 2 p.c, one block of points at a time."""
        lengths = (centres * centres).sum(dim=1)
        step = self._score_rows(2 * len(centres))
        return self._torch.cat([(lengths - 2 * part @ centres.T).argmin(dim=1) for part in points.split(step)])

    def _on_device(self, vectors: Any) -> torch.Tensor:
        torch = self._torch
        if isinstance(vectors, torch.Tensor):
            return vectors.to(self._device).to(self._type)
        if self._type == torch.float32 and vectors.dtype == np.float16:
            vectors = to_single(vectors)
        writeable = vectors if vectors.flags.writeable else vectors.copy()
        return torch.from_numpy(writeable).to(self._device).to(self._type)


def _joined(torch: Any, waiting: list[Any]) -> tuple[Any, Any]:
    """Blocks as one, and none of them waiting any more."""
    numbers, vectors = (torch.cat(parts) for parts in zip(*waiting, strict=True))
    waiting.clear()
    return numbers, vectors


def _split_largest(centres: torch.Tensor, counts: torch.Tensor) -> None:
    """Move each empty centroid next to that of the largest cluster so that both split it, in place."""
    for empty in (counts == 0).nonzero()[:, 0].tolist():
        largest = int(counts.argmax())
        centres[empty] = centres[largest] * (1 + 1e-4)
        centres[largest] *= 1 - 1e-4
        counts[empty] = counts[largest] // 2
        counts[largest] -= counts[empty]
