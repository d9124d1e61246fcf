"""A GPU build of FAISS: exact search, k-means, assignment and search of the inverted lists on the device.

Its limits (classic FAISS, https://github.com/facebookresearch/faiss, GpuIndexIVFPQ): 8-bit codes of
certain lengths, those from 56 bytes on with float16 look-up tables; at most 2048 lists and 2048
candidates; a flat coarse quantiser; codes of residuals only. Ours are codes of the vectors
themselves. The device therefore gets lists around all-zero centroids, for which both
kinds of code are the same, and is given the lists to search. cuVS cannot search lists that
are chosen in advance, so the classic kernels are used with cuVS builds as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any

import numpy as np

from specclip_search.errors import QueryError

from .engines import DeviceLists, Engine, Held, ProcessorEngine, Take, reranked
from .exact import Block
from .lists import InvertedLists
from .recipe import IndexRecipe

CODE_BYTES = (1, 2, 3, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 96)
HALF_TABLES_FROM = 56
SUBSPACE_SIZES = (1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 28, 32)
MOST_SELECTED = 2048
_SLACK = 32


def gpu_build() -> ModuleType | None:
    """The module `faiss` if it is a GPU build and detects a GPU."""
    try:
        import faiss
    except ImportError:
        return None
    return faiss if hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0 else None


def gpu_obstacles(recipe: IndexRecipe) -> list[str]:
    """Reasons why FAISS cannot search the lists of a recipe on a GPU; empty if it can."""
    if recipe.kind == "flat":
        return []
    found = []
    if recipe.pq not in CODE_BYTES:
        allowed = ", ".join(map(str, CODE_BYTES))
        found.append(f"codes of {recipe.pq} bytes; FAISS on a GPU supports {allowed}")
    elif recipe.pca // recipe.pq not in SUBSPACE_SIZES:
        allowed = ", ".join(map(str, SUBSPACE_SIZES))
        found.append(f"{recipe.pca // recipe.pq} dimensions a byte of code; FAISS on a GPU supports {allowed}")
    return found


class FaissGpuEngine:
    """FAISS on a GPU; work that exceeds the device's limits is done on the CPU.

    Parameters
    ----------
    build
        The GPU build of `faiss`; the installed one by default.
    exact
        Engine for exact search: torch, if it detects the GPU too, keeps the vectors on it.

    Raises
    ------
    QueryError
        If there is none.
    """

    name = "faiss-gpu"

    def __init__(self, build: Any = None, exact: Engine | None = None) -> None:
        found = gpu_build() if build is None else build
        if found is None:
            raise QueryError("FAISS was requested on a GPU; no GPU build is installed, or it detects no GPU.",
                             "Install specclip-search[gpu] in place of [cpu], or use --device cpu.")
        self._faiss: Any = found
        self._resources = self._faiss.StandardGpuResources()
        self._exact = exact
        self._processor = ProcessorEngine()

    def top_k(self, queries: np.ndarray, blocks: Iterable[Block], k: int, take: Take) -> tuple[np.ndarray, np.ndarray]:
        if self._exact is not None:
            return self._exact.top_k(queries, blocks, k, take)
        wanted = k + _SLACK
        if wanted > MOST_SELECTED:
            return self._processor.top_k(queries, blocks, k, take)
        rows = np.empty((len(queries), 0), np.int64)
        similarity = np.empty((len(queries), 0), np.float32)
        for numbers, vectors in blocks:
            found, places = self._nearest(queries, vectors, min(wanted, len(numbers)), self._faiss.METRIC_INNER_PRODUCT)
            rows = np.concatenate([rows, numbers[places]], axis=1)
            similarity = np.concatenate([similarity, found], axis=1)
            order = np.argsort(-similarity, axis=1, kind="stable")[:, :wanted]
            rows = np.take_along_axis(rows, order, axis=1)
            similarity = np.take_along_axis(similarity, order, axis=1)
        return reranked(queries, rows, k, take)

    def centroids(self, sample: np.ndarray, count: int, iterations: int, seed: int) -> np.ndarray:
        clustering = self._faiss.Kmeans(sample.shape[1], count, niter=iterations, seed=seed, gpu=1,
                                        min_points_per_centroid=1, max_points_per_centroid=len(sample))
        clustering.train(np.ascontiguousarray(sample, np.float32))
        return np.asarray(clustering.centroids, np.float32).reshape(count, -1)

    def assign(self, vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
        return self._nearest(vectors, centroids, 1, self._faiss.METRIC_L2)[1][:, 0]

    def encode(self, lists: InvertedLists, vectors: np.ndarray) -> np.ndarray:
        if self._exact is not None:  # torch computes the codes on the device, FAISS on the CPU
            return self._exact.encode(lists, vectors)
        projected = lists.project(vectors)
        return lists.joined(self.assign(projected, lists.centroids()), lists.product_codes(projected))

    def resident(self, blocks: Iterable[Block], size: int) -> Held | None:
        return None if self._exact is None else self._exact.resident(blocks, size)

    def device_lists(self, lists: InvertedLists) -> DeviceLists | None:
        product = lists.ivf.pq
        recipe = IndexRecipe("ivfpq", product.d, lists.ivf.nlist, False, product.M)
        return None if gpu_obstacles(recipe) else GpuLists(self._faiss, self._resources, lists)

    def _nearest(self, queries: np.ndarray, vectors: np.ndarray, k: int, metric: int) -> tuple[np.ndarray, np.ndarray]:
        """Values and positions of the k nearest; both arrays are sent to the device with the dtype of `vectors`."""
        asked = np.ascontiguousarray(queries, vectors.dtype)
        found, places = self._faiss.knn_gpu(self._resources, asked, np.ascontiguousarray(vectors), k, metric=metric)
        return np.asarray(found, np.float32), np.asarray(places, np.int64)


class GpuLists:
    """Inverted lists of product codes on a GPU."""

    def __init__(self, build: Any, resources: Any, lists: InvertedLists) -> None:
        self._faiss = build
        self._resources = resources
        centroids = np.ascontiguousarray(lists.centroids())
        coarse = build.IndexFlatL2(centroids.shape[1])
        coarse.add(centroids)
        # on the device for good: sent with every search they would cost more than the search
        self._coarse = build.index_cpu_to_gpu(resources, 0, coarse)
        twin = residual_twin(lists)
        options = build.GpuClonerOptions()
        options.useFloat16 = lists.ivf.code_size >= HALF_TABLES_FROM
        options.usePrecomputed = False
        options.use_cuvs = False
        self._index = build.index_cpu_to_gpu(resources, 0, twin, options)

    def fits(self, depth: int, nprobe: int) -> bool:
        return max(depth, nprobe) <= MOST_SELECTED

    def candidates(self, projected: np.ndarray, depth: int, nprobe: int) -> np.ndarray:
        queries = np.ascontiguousarray(projected, np.float32)
        distances, chosen = self._coarse.search(queries, nprobe)
        self._index.nprobe = nprobe
        _, rows = self._index.search_preassigned(queries, depth, np.asarray(chosen, np.int64), distances)
        return np.asarray(rows)


def residual_twin(lists: InvertedLists) -> Any:
    """The same lists and codebooks as an index of residuals from all-zero centroids.

    It shares the lists' memory: keep `lists` alive while it is used. A list's residuals are then the
    vectors themselves, so searching given lists gives the same results.
    """
    from .faiss_library import load_faiss

    faiss = load_faiss()
    given = lists.ivf
    origin = faiss.IndexFlatL2(given.d)
    origin.add(np.zeros((given.nlist, given.d), np.float32))
    twin = faiss.IndexIVFPQ(origin, given.d, given.nlist, given.pq.M, given.pq.nbits)
    twin.own_fields = True
    origin.this.disown()
    twin.by_residual = True
    twin.use_precomputed_table = -1
    faiss.copy_array_to_vector(faiss.vector_to_array(given.pq.centroids), twin.pq.centroids)
    twin.replace_invlists(given.invlists, False)
    twin.is_trained = True
    twin.ntotal = given.ntotal
    return twin
