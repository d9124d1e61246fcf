"""The same answers from every engine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from specclip_search.atlas import Atlas
from specclip_search.errors import QueryError
from specclip_search.indexing.build.build import build_index
from specclip_search.indexing.search.choose_engine import choose_engine
from specclip_search.indexing.search.engines import ProcessorEngine
from specclip_search.indexing.search.exact import in_slices
from specclip_search.indexing.search.index import VectorIndex
from specclip_search.indexing.search.torch_engine import TorchEngine

from ..conftest import LISTS, MODEL, star_vectors


def devices() -> list[object]:
    import torch

    gpu = pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(),
                                                                          reason="no GPU here")])
    return ["cpu", gpu]


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("half", [False, True])
def test_exact_search_answers_alike(device: str, half: bool) -> None:
    stored = star_vectors(3000, 0).astype(np.float16)
    gallery = stored if half else stored.astype(np.float32)
    queries = star_vectors(3000, 1)[:60]

    def take(rows: np.ndarray) -> np.ndarray:
        return stored[rows].astype(np.float32)

    one = ProcessorEngine().top_k(queries, in_slices(gallery, 700), 20, take)
    two = TorchEngine(device).top_k(queries, in_slices(gallery, 700), 20, take)
    assert (one[0] == two[0]).mean() > 0.998
    np.testing.assert_allclose(one[1], two[1], atol=1e-5)
    few = TorchEngine(device).top_k(queries[:2], in_slices(gallery[:7], 3), 10, take)
    assert (few[0][:, 7:] == -1).all()
    assert np.isneginf(few[1][:, 7:]).all()


@pytest.mark.parametrize("device", devices())
def test_kmeans_is_as_good_and_assignment_the_same(device: str) -> None:
    sample = star_vectors(4000, 0)[:, :16].copy()
    errors = []
    for engine in (ProcessorEngine(), TorchEngine(device)):
        centroids = engine.centroids(sample, 32, 10, seed=1)
        assert centroids.shape == (32, 16)
        nearest = ProcessorEngine().assign(sample, centroids)
        assert (TorchEngine(device).assign(sample, centroids) == nearest).mean() > 0.999
        by_hand = ((sample[:, None].astype(np.float64) - centroids[None]) ** 2).sum(axis=2)
        assert (by_hand.argmin(axis=1) == nearest).mean() > 0.999
        errors.append(float(by_hand.min(axis=1).mean()))
    assert errors[1] < 1.05 * errors[0]
    again = TorchEngine(device).centroids(sample, 32, 10, seed=1)
    np.testing.assert_allclose(again, centroids, atol=1e-5)


def test_no_centroid_is_left_empty() -> None:
    # 40 points in two places: 8 centroids drawn from them start on top of each other
    sample = np.repeat(np.eye(2, 4, dtype=np.float32), 20, axis=0) + np.random.default_rng(0).normal(
        size=(40, 4)).astype(np.float32) * 1e-3
    sample[:20] = sample[0]
    centroids = TorchEngine("cpu").centroids(sample, 8, 12, seed=0)
    assert np.isfinite(centroids).all()
    assert len(np.unique(TorchEngine("cpu").assign(sample, centroids))) > 4


@pytest.mark.parametrize("device", devices())
def test_encoding_is_the_same(device: str, make_atlas: Callable[..., Atlas]) -> None:
    atlas = make_atlas(2000)
    build_index(atlas, MODEL, "gaia_xp", recipe=LISTS)
    index = VectorIndex.open(atlas, MODEL, "gaia_xp")
    assert index.lists is not None
    vectors = index.vectors(np.arange(2000))
    one = ProcessorEngine().encode(index.lists, vectors)
    two = TorchEngine(device).encode(index.lists, vectors)
    assert one.shape == two.shape
    assert one.dtype == two.dtype == np.uint8
    # only vectors exactly between two centroids may differ
    assert (one == two).mean() > 0.9999
    np.testing.assert_array_equal(one, index.lists.codes_by_row())


@pytest.mark.parametrize("device", devices())
def test_vectors_that_stay_on_the_device_answer_alike(device: str, make_atlas: Callable[..., Atlas],
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    atlas = make_atlas(2000)
    build_index(atlas, MODEL, "gaia_xp", recipe=LISTS)
    plain = VectorIndex.open(atlas, MODEL, "gaia_xp")
    monkeypatch.setattr("specclip_search.indexing.search.index.DEVICE_BLOCK_ROWS", 300)
    monkeypatch.setattr("specclip_search.indexing.search.index.choose_engine", TorchEngine)
    queries = star_vectors(2000, 1)[:30]
    expected = plain.search(queries, 20, query_modality="lamost_lrs", exact=True)
    for room, kept in ((2 * 2000 * 64 * 2, True), (2 * 2000 * 64, False)):
        monkeypatch.setattr(TorchEngine, "_room", lambda _, room=room: room)
        index = VectorIndex.open(atlas, MODEL, "gaia_xp", device=device)
        for _ in range(2):
            found = index.search(queries, 20, query_modality="lamost_lrs", exact=True)
            assert (found.rows == expected.rows).mean() > 0.999
        assert (index._on_device is not None) == kept
        some = index.search(queries, 20, query_modality="lamost_lrs", rows=np.arange(0, 2000, 7))
        assert set(some.rows.ravel() % 7) == {0}


def test_a_gpu_that_is_not_there_is_refused() -> None:
    import torch

    assert choose_engine("cpu").name == "cpu"
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert choose_engine(None).name == "cpu"
    with pytest.raises(QueryError, match="Device 'cuda' was requested; no GPU was found"):
        choose_engine("cuda")
