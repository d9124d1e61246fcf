"""Engines for the heavy arithmetic of an index: the CPU, torch on a device, or a GPU build of FAISS.

All have one interface and give the same results: exact search, k-means, assignment to the nearest centroid and
encoding. The index files do not depend on the engine and can be opened on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .exact import Block, exact_top_k
from .faiss_library import load_faiss

if TYPE_CHECKING:

    from .lists import InvertedLists

Take = Callable[[np.ndarray], np.ndarray]
"""Vectors of rows, (n, dim) float32."""

Held = list[tuple[Any, Any]]
"""Blocks of engine-specific arrays on the engine's device."""



class DeviceLists(Protocol):
    """Inverted lists held on a device; same results as `InvertedLists.candidates`."""

    def fits(self, depth: int, nprobe: int) -> bool:
        """Whether the device supports this many candidates from this many lists."""
        ...

    def candidates(self, projected: np.ndarray, depth: int, nprobe: int) -> np.ndarray:
        """(Q, depth) int64 rows nearest by code to (Q, pca) projected queries; padded with -1."""
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
        """Blocks of `size` bytes in total, kept on the device for `top_k`; None if they do not fit."""
        ...

    def device_lists(self, lists: InvertedLists) -> DeviceLists | None:
        """The lists on the device, to be searched there; None if they are searched on the CPU."""
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


