"""FAISS on a GPU: with a device the answers of the processor; without one, its rules and what it is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import pytest

from specclip_search.atlas import Atlas
from specclip_search.errors import QueryError
from specclip_search.indexing.build.build import build_index
from specclip_search.indexing.build.check import check_index
from specclip_search.indexing.search.engines import Engine, ProcessorEngine
from specclip_search.indexing.search.exact import in_slices
from specclip_search.indexing.search.faiss_gpu import FaissGpuEngine, GpuLists, gpu_build, gpu_obstacles, residual_twin
from specclip_search.indexing.search.index import VectorIndex
from specclip_search.indexing.search.recipe import choose_recipe

from ..conftest import LISTS, MODEL, star_vectors


class _Options:
    useFloat16 = usePrecomputed = use_cuvs = True


class RulesOfTheDevice:
    """FAISS's calls for a GPU answered by the processor, refusing what GpuIndexIVFPQ and knn_gpu refuse."""

    METRIC_INNER_PRODUCT, METRIC_L2 = faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2
    StandardGpuResources = object
    GpuClonerOptions = _Options
    IndexFlatL2 = faiss.IndexFlatL2

    def __init__(self) -> None:
        self.calls: list[str] = []

    def get_num_gpus(self) -> int:
        return 1

    def knn_gpu(self, resources: object, queries: np.ndarray, vectors: np.ndarray, k: int,
                metric: int = faiss.METRIC_L2) -> tuple[np.ndarray, np.ndarray]:
        assert queries.dtype == vectors.dtype
        assert queries.dtype in (np.float16, np.float32)
        assert queries.flags.c_contiguous
        assert vectors.flags.c_contiguous
        assert 0 < k <= 2048
        self.calls.append("knn")
        return faiss.knn(queries.astype(np.float32), vectors.astype(np.float32), k, metric=metric)

    def Kmeans(self, dim: int, count: int, gpu: int, **options: Any) -> Any:
        assert gpu
        self.calls.append("kmeans")
        return faiss.Kmeans(dim, count, **options)

    def index_cpu_to_gpu(self, resources: object, device: int, index: Any, options: _Options | None = None) -> Any:
        if isinstance(index, faiss.IndexFlatL2):
            self.calls.append("coarse")
            return index
        assert options is not None
        assert index.by_residual
        assert index.pq.nbits == 8
        assert isinstance(faiss.downcast_index(index.quantizer), faiss.IndexFlat)
        assert not options.usePrecomputed
        assert not options.use_cuvs
        tables = index.pq.M * 256 * (2 if options.useFloat16 else 4)
        assert tables < 49152, "more shared memory than every device has"
        self.calls.append("lists")
        return index


def engines() -> list[object]:
    real = pytest.param("gpu", marks=[pytest.mark.gpu, pytest.mark.skipif(gpu_build() is None,
                                                                          reason="no GPU build of FAISS here")])
    return ["rules", real]


@pytest.fixture(params=engines())
def engine(request: pytest.FixtureRequest) -> Engine:
    return FaissGpuEngine() if request.param == "gpu" else FaissGpuEngine(RulesOfTheDevice())


@pytest.mark.parametrize("half", [False, True])
def test_exact_search_answers_alike(engine: Engine, half: bool) -> None:
    stored = star_vectors(3000, 0).astype(np.float16)
    gallery = stored if half else stored.astype(np.float32)
    queries = star_vectors(3000, 1)[:60]

    def take(rows: np.ndarray) -> np.ndarray:
        return stored[rows].astype(np.float32)

    for k in (1, 20, 2500):
        one = ProcessorEngine().top_k(queries, in_slices(gallery, 700), k, take)
        two = engine.top_k(queries, in_slices(gallery, 700), k, take)
        assert (one[0] == two[0]).mean() > 0.998
        np.testing.assert_allclose(one[1], two[1], atol=1e-5)
    few = engine.top_k(queries[:2], in_slices(gallery[:7], 3), 10, take)
    assert (few[0][:, 7:] == -1).all()


def test_kmeans_and_assignment_are_as_good(engine: Engine) -> None:
    sample = star_vectors(4000, 0)[:, :16].copy()
    errors = []
    for one in (ProcessorEngine(), engine):
        centroids = one.centroids(sample, 32, 10, seed=1)
        nearest = one.assign(sample, centroids)
        assert nearest.dtype == np.int64
        assert (nearest == ProcessorEngine().assign(sample, centroids)).mean() > 0.999
        errors.append(float(((sample - centroids[nearest]) ** 2).sum(axis=1).mean()))
    assert errors[1] < 1.05 * errors[0]


@pytest.mark.parametrize("recipe", [LISTS, "PCA32,IVF32_HNSW32,PQ8"])
def test_the_lists_answer_alike(engine: Engine, recipe: str, make_atlas: Callable[..., Atlas]) -> None:
    atlas = make_atlas(3000)
    build_index(atlas, MODEL, "gaia_xp", recipe=recipe)
    index = VectorIndex.open(atlas, MODEL, "gaia_xp")
    assert index.lists is not None
    vectors = index.vectors(np.arange(3000))
    assert (engine.encode(index.lists, vectors) == index.lists.encode(vectors)).mean() > 0.999
    held = engine.device_lists(index.lists)
    assert isinstance(held, GpuLists)
    found = held.candidates(index.lists.project(vectors[:200]), 50, 8)
    expected = index.lists.candidates(vectors[:200], 50, 8)
    agreement = np.mean([np.isin(one, two).mean() for one, two in zip(found, expected, strict=True)])
    assert agreement > 0.999
    assert held.fits(2048, 100)
    assert not held.fits(2049, 100)
    assert not held.fits(100, 4096)


def test_an_index_with_the_engine_answers_alike(make_atlas: Callable[..., Atlas],
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    """Built and searched through the engine; opened again without it."""
    device = RulesOfTheDevice()
    monkeypatch.setattr("specclip_search.indexing.build.build.choose_engine", lambda _: FaissGpuEngine(device))
    atlas = make_atlas(3000)
    report = build_index(atlas, MODEL, "gaia_xp", recipe=LISTS)
    assert {"kmeans", "knn", "lists"} <= set(device.calls)
    assert report.recall_reached
    monkeypatch.undo()
    plain = VectorIndex.open(atlas, MODEL, "gaia_xp")
    assert plain.engine.name == "cpu"
    assert check_index(atlas, MODEL, "gaia_xp", full=True).ok
    monkeypatch.setattr("specclip_search.indexing.search.index.choose_engine", lambda _: FaissGpuEngine(device))
    with_device = VectorIndex.open(atlas, MODEL, "gaia_xp", device="cuda")
    queries = star_vectors(3000, 1)[:50]
    some = np.arange(3000) % 3 == 0
    for options in ({}, {"exact": True}, {"rows": some}, {"nprobe": 32, "rerank": 50.0}):
        one = plain.search(queries, 30, query_modality="lamost_lrs", **options)
        two = with_device.search(queries, 30, query_modality="lamost_lrs", **options)
        assert one.strategy == two.strategy
        assert (one.rows == two.rows).mean() > 0.999


def test_the_twin_gives_the_same_distances(make_atlas: Callable[..., Atlas]) -> None:
    """What the device searches, searched by the processor: residuals from zero are the vectors themselves."""
    atlas = make_atlas(2000)
    build_index(atlas, MODEL, "gaia_xp", recipe=LISTS)
    lists = VectorIndex.open(atlas, MODEL, "gaia_xp").lists
    assert lists is not None
    queries = lists.project(VectorIndex.open(atlas, MODEL, "gaia_xp").vectors(np.arange(0, 2000, 40)))
    twin = residual_twin(lists)
    lists.ivf.nprobe = twin.nprobe = 6
    distances, chosen = lists.ivf.quantizer.search(queries, 6)
    one = lists.ivf.search(queries, 40)
    two = twin.search_preassigned(queries, 40, chosen, distances)
    np.testing.assert_array_equal(one[1], two[1])
    np.testing.assert_allclose(one[0], two[0], atol=1e-6)


def test_what_a_gpu_cannot_hold_is_said_and_searched_by_the_processor(make_atlas: Callable[..., Atlas]) -> None:
    assert gpu_obstacles(choose_recipe("PCA128,IVF4096,PQ64", 10**6, 768)) == []
    assert gpu_obstacles(choose_recipe("auto", 10**7, 768)) == []
    assert gpu_obstacles(choose_recipe("flat", 10**6, 768)) == []
    assert "codes of 10 bytes; FAISS on a GPU supports 1, 2, 3, 4, 8" in gpu_obstacles(
        choose_recipe("PCA60,IVF64,PQ10", 10**6, 768))[0]
    assert "14 dimensions a byte of code" in gpu_obstacles(choose_recipe("PCA56,IVF64,PQ4", 10**6, 768))[0]
    atlas = make_atlas(2000)
    build_index(atlas, MODEL, "gaia_xp", recipe="PCA60,IVF16,PQ10")
    lists = VectorIndex.open(atlas, MODEL, "gaia_xp").lists
    assert lists is not None
    assert FaissGpuEngine(RulesOfTheDevice()).device_lists(lists) is None


@pytest.mark.skipif(gpu_build() is not None, reason="there is a GPU build of FAISS")
def test_without_a_gpu_build_it_is_refused() -> None:
    with pytest.raises(QueryError, match="no GPU build is installed"):
        FaissGpuEngine()
