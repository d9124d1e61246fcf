"""Where the heavy arithmetic of an index runs: the processor, torch on a device, or a GPU build of FAISS.

One interface and the same answers: exact search, k-means, assignment to the nearest centroid and
encoding. Whatever engine made it, an index is the same files and opens on a processor.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from specclip_search.errors import QueryError

from ..vectors.float16 import to_single
from .exact import Block, exact_top_k
from .faiss_library import load_faiss

if TYPE_CHECKING:
    import torch

    from .lists import InvertedLists

Take = Callable[[np.ndarray], np.ndarray]
"""Vectors of rows, (n, dim) float32."""

Held = list[tuple[Any, Any]]
"""Blocks whose arrays are the engine's own, on its device."""

_DEVICE = re.compile(r"auto|cpu|gpu|cuda(:\d+)?")
_SLACK = 32
_ASSIGN_ROWS = 65_536
_CODE_ROWS = 4096
_ROOM_FOR_SCORES = 1.25


class DeviceLists(Protocol):
    """Inverted lists held by a device; answers what `InvertedLists.candidates` does."""

    def fits(self, depth: int, nprobe: int) -> bool:
        """Whether the device can give that many candidates from that many lists."""
        ...

    def candidates(self, projected: np.ndarray, depth: int, nprobe: int) -> np.ndarray:
        """(Q, depth) int64 rows nearest by code to (Q, pca) projected queries; -1 where there are no more."""
        ...


class Engine(Protocol):
    """Exact search, k-means and assignment."""

    name: str

    def top_k(self, queries: np.ndarray, blocks: Iterable[Block], k: int, take: Take) -> tuple[np.ndarray, np.ndarray]:
        """The k rows of largest inner product; see `specclip_search.indexing.search.exact.exact_top_k`."""
        ...

    def centroids(self, sample: np.ndarray, count: int, iterations: int, seed: int) -> np.ndarray:
        """(count, d) float32 centroids of (n, d) vectors by Lloyd's k-means from `count` random ones."""
        ...

    def assign(self, vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
        """(n,) int64 number of the nearest centroid of each vector."""
        ...

    def encode(self, lists: InvertedLists, vectors: np.ndarray) -> np.ndarray:
        """List number and product code of (n, dim) centred vectors; see `InvertedLists.encode`."""
        ...

    def resident(self, blocks: Iterable[Block], size: int) -> Held | None:
        """Blocks of `size` bytes in all, kept on the device for `top_k`; None where they do not fit there."""
        ...

    def device_lists(self, lists: InvertedLists) -> DeviceLists | None:
        """The lists on the device, to be searched there; None where searching stays on the processor."""
        ...


class ProcessorEngine:
    """NumPy's matrix products and FAISS's k-means."""

    name = "cpu"

    def top_k(self, queries: np.ndarray, blocks: Iterable[Block], k: int, take: Take) -> tuple[np.ndarray, np.ndarray]:
        return exact_top_k(queries, blocks, k)

    def centroids(self, sample: np.ndarray, count: int, iterations: int, seed: int) -> np.ndarray:
        faiss = load_faiss()
        clustering = faiss.Kmeans(sample.shape[1], count, niter=iterations, seed=seed, min_points_per_centroid=1,
                                  max_points_per_centroid=len(sample))
        clustering.train(np.ascontiguousarray(sample))
        return np.asarray(clustering.centroids, np.float32).reshape(count, -1)

    def assign(self, vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
        faiss = load_faiss()
        _, nearest = faiss.knn(np.ascontiguousarray(vectors), np.ascontiguousarray(centroids), 1)
        return nearest[:, 0].astype(np.int64)

    def encode(self, lists: InvertedLists, vectors: np.ndarray) -> np.ndarray:
        return lists.encode(vectors)

    def resident(self, blocks: Iterable[Block], size: int) -> Held | None:
        return None

    def device_lists(self, lists: InvertedLists) -> DeviceLists | None:
        return None


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
        """Free bytes of a GPU; on a processor vectors are read from the store, whose pages the system keeps."""
        return self._torch.cuda.mem_get_info(self._device)[0] if self._device.type == "cuda" else 0

    def device_lists(self, lists: InvertedLists) -> DeviceLists | None:
        # without a GPU build of FAISS a device answers by exact search; lists are searched on the processor
        return None

    def _nearest(self, points: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
        """Nearest centroid by |c|^2 - 2 p.c, a block of points at a time."""
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
    """Put each empty centroid beside the largest cluster's and let the two share it, in place."""
    for empty in (counts == 0).nonzero()[:, 0].tolist():
        largest = int(counts.argmax())
        centres[empty] = centres[largest] * (1 + 1e-4)
        centres[largest] *= 1 - 1e-4
        counts[empty] = counts[largest] // 2
        counts[largest] -= counts[empty]


def reranked(queries: np.ndarray, candidates: np.ndarray, k: int, take: Take) -> tuple[np.ndarray, np.ndarray]:
    """The k best of (Q, n) candidate rows by float32 inner product, ties to the smaller row."""
    rows = np.full((len(queries), k), -1, np.int64)
    similarity = np.full((len(queries), k), -np.inf, np.float32)
    for number, query in enumerate(queries):
        chosen = np.sort(candidates[number])
        scores = take(chosen) @ query
        order = np.argsort(-scores, kind="stable")[:k]
        rows[number, : len(order)] = chosen[order]
        similarity[number, : len(order)] = scores[order]
    return rows, similarity


def choose_engine(device: str | None = None) -> Engine:
    """The engine for a device: None or `auto` takes a GPU where there is one, else the processor.

    On a GPU, a GPU build of FAISS goes before torch.

    Raises
    ------
    QueryError
        If there is no such device, or a GPU is asked for and there is none.
    """
    if device is not None and not _DEVICE.fullmatch(device):
        raise QueryError(f"A device is auto, cpu, cuda or cuda:N; found '{device}'.", "Use --device auto.")
    if device == "cpu" or (device in (None, "auto") and not _driver_present()):
        return ProcessorEngine()
    import torch

    from .faiss_gpu import FaissGpuEngine, gpu_build

    if gpu_build() is not None and device in (None, "auto", "gpu", "cuda"):
        return FaissGpuEngine(exact=TorchEngine("cuda") if torch.cuda.is_available() else None)
    if torch.cuda.is_available():
        return TorchEngine("cuda" if device in (None, "auto", "gpu") else str(device))
    if device in (None, "auto"):
        return ProcessorEngine()
    raise QueryError(f"Device '{device}' was asked for; no GPU is found here.", "Use --device cpu or auto.")


def _driver_present() -> bool:
    """Whether a GPU's driver shows itself, so that torch need not be loaded only to find none."""
    return sys.platform != "linux" or any(Path(name).exists() for name in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg"))
