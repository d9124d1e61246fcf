"""Search against brute force, filters, exclusion and refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from specclip_search.atlas import Atlas
from specclip_search.errors import MissingExtra, QueryError, VectorIndexError
from specclip_search.indexing.build.build import build_index
from specclip_search.indexing.search.index import VectorIndex

from ..conftest import BIG, MODEL, star_vectors, write_vectors

AtlasMaker = Callable[..., Atlas]
COUNT = 4000
KINDS = ("flat", "ivfpq")


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, VectorIndex]:
    """A flat and a compressed index over the same vectors."""
    made = {}
    for recipe in KINDS:
        atlas = Atlas.create(tmp_path_factory.mktemp("search") / recipe)
        write_vectors(atlas, "gaia_xp", star_vectors(COUNT, 0))
        write_vectors(atlas, "lamost_lrs", star_vectors(COUNT, 1), part_rows=900)
        atlas.use_model(MODEL)
        build_index(atlas, MODEL, "gaia_xp", recipe=recipe)
        made[recipe] = VectorIndex.open(atlas, MODEL, "gaia_xp")
    return made


def centred_by_hand(vectors: np.ndarray) -> np.ndarray:
    stored = vectors.astype(np.float16).astype(np.float64)
    moved = stored - stored.mean(axis=0)
    return moved / np.linalg.norm(moved, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def similarity() -> np.ndarray:
    """Every LAMOST query against every XP vector, in float64, by definition."""
    return centred_by_hand(star_vectors(COUNT, 1))[:200] @ centred_by_hand(star_vectors(COUNT, 0)).T


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([np.isin(t, f).mean() for f, t in zip(found, truth, strict=True)]))


@pytest.mark.parametrize(("kind", "least"), [("flat", 0.999), ("ivfpq", 0.97)])
@pytest.mark.parametrize("k", [1, 10, 100])
def test_cross_instrument_search_is_brute_force(indexes: dict[str, VectorIndex], similarity: np.ndarray, kind: str,
                                                least: float, k: int) -> None:
    queries = star_vectors(COUNT, 1)[:200]
    found = indexes[kind].search(queries, k, query_modality="lamost_lrs")
    truth = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    assert recall(found.rows, truth) >= least
    assert found.strategy == kind
    np.testing.assert_allclose(found.similarity, np.take_along_axis(similarity, found.rows, axis=1), atol=2e-3)
    assert (np.diff(found.similarity, axis=1) <= 0).all()
    assert found.rows.dtype == np.int64
    assert found.similarity.dtype == np.float32


def test_exact_option_of_a_compressed_index_equals_the_flat_one(indexes: dict[str, VectorIndex]) -> None:
    queries = star_vectors(COUNT, 1)[:50]
    exact = indexes["ivfpq"].search(queries, 25, query_modality="lamost_lrs", exact=True)
    flat = indexes["flat"].search(queries, 25, query_modality="lamost_lrs")
    assert exact.strategy == "exact"
    np.testing.assert_allclose(exact.similarity, flat.similarity, atol=1e-5)
    assert (exact.rows == flat.rows).mean() > 0.995


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.002, 0.02, 0.2, 0.7])
def test_filters_answer_only_with_allowed_rows_and_lose_nothing(indexes: dict[str, VectorIndex],
                                                               similarity: np.ndarray, kind: str, share: float,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specclip_search.indexing.search.index.EXACT_BELOW_ROWS", 0)
    allowed = np.random.default_rng(5).random(COUNT) < share
    rows = np.nonzero(allowed)[0]
    queries = star_vectors(COUNT, 1)[:100]
    found = indexes[kind].search(queries, 8, query_modality="lamost_lrs", rows=rows[::-1])
    assert np.isin(found.rows[found.rows >= 0], rows).all()
    truth = rows[np.argsort(-similarity[:100][:, rows], axis=1, kind="stable")[:, :8]]
    assert recall(found.rows, truth) >= 0.97
    same = indexes[kind].search(queries, 8, query_modality="lamost_lrs", rows=allowed)
    np.testing.assert_array_equal(same.rows, found.rows)


@pytest.mark.parametrize("kind", KINDS)
def test_fewer_allowed_than_wanted_pads_with_minus_one(indexes: dict[str, VectorIndex], kind: str) -> None:
    index = indexes[kind]
    query = star_vectors(COUNT, 1)[:1]
    found = index.search(query, 5, query_modality="lamost_lrs", rows=np.array([17, 3, 17]))
    assert set(found.rows[0, :2]) == {3, 17}
    assert (found.rows[0, 2:] == -1).all()
    assert np.isnan(found.similarity[0, 2:]).all()
    nothing = index.search(query, 5, query_modality="lamost_lrs", rows=np.empty(0, np.int64))
    assert (nothing.rows == -1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_excluded_rows_never_answer_and_others_fill_their_place(indexes: dict[str, VectorIndex], kind: str) -> None:
    index = indexes[kind]
    rows = np.arange(40)
    with_self = index.search(index.vectors(rows), 6, query_modality="gaia_xp", centred=True)
    assert (with_self.rows[:, 0] == rows).all()
    without = index.search(index.vectors(rows), 5, query_modality="gaia_xp", centred=True, exclude=rows[:, None])
    np.testing.assert_array_equal(without.rows, with_self.rows[:, 1:])
    uneven = [with_self.rows[number, : number % 4] for number in rows]
    left = index.search(index.vectors(rows), 3, query_modality="gaia_xp", centred=True, exclude=uneven)
    for number in rows:
        start = number % 4
        expected = with_self.rows[number, start : start + 3]
        np.testing.assert_array_equal(left.rows[number][: len(expected)], expected)


def test_a_query_the_lists_cannot_fill_is_answered_exactly(indexes: dict[str, VectorIndex]) -> None:
    index = indexes["ivfpq"]
    query = star_vectors(COUNT, 1)[:3]
    found = index.search(query, 1500, query_modality="lamost_lrs", nprobe=1, rerank=1.0)
    assert (found.rows >= 0).all()
    assert all(len(np.unique(rows)) == 1500 for rows in found.rows)


@pytest.mark.parametrize("kind", KINDS)
def test_one_query_and_many_answer_alike(indexes: dict[str, VectorIndex], kind: str) -> None:
    queries = star_vectors(COUNT, 1)[:30]
    together = indexes[kind].search(queries, 10, query_modality="lamost_lrs")
    alone = [indexes[kind].search(query, 10, query_modality="lamost_lrs").rows[0] for query in queries]
    assert (np.asarray(alone) == together.rows).mean() > 0.99


def test_lists_found_through_a_graph(tmp_path: Path, similarity: np.ndarray) -> None:
    atlas = Atlas.create(tmp_path / "graph")
    write_vectors(atlas, "gaia_xp", star_vectors(COUNT, 0))
    write_vectors(atlas, "lamost_lrs", star_vectors(COUNT, 1))
    report = build_index(atlas, MODEL, "gaia_xp", recipe="PCA32,IVF64_HNSW32,PQ16")
    assert report.recipe == "PCAR32,IVF64_HNSW32,PQ16np"
    index = VectorIndex.open(atlas, MODEL, "gaia_xp")
    rows = np.nonzero(np.random.default_rng(5).random(COUNT) < 0.5)[0]
    for allowed in (np.arange(COUNT), rows):
        found = index.search(star_vectors(COUNT, 1)[:200], 10, query_modality="lamost_lrs", rows=allowed)
        truth = allowed[np.argsort(-similarity[:, allowed], axis=1, kind="stable")[:, :10]]
        assert found.strategy == "ivfpq"
        assert recall(found.rows, truth) >= 0.97


def test_a_reader_that_meets_a_new_index_takes_it(make_atlas: AtlasMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    atlas = make_atlas(600)
    build_index(atlas, MODEL, "gaia_xp", recipe="flat", seed=1)
    real, calls = VectorIndex.__init__, []

    def replaced_meanwhile(self: VectorIndex, *arguments: object) -> None:
        calls.append(1)
        if len(calls) == 1:
            monkeypatch.setattr(VectorIndex, "__init__", real)
            build_index(atlas, MODEL, "gaia_xp", recipe="flat", seed=2)
            monkeypatch.setattr(VectorIndex, "__init__", replaced_meanwhile)
        real(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(VectorIndex, "__init__", replaced_meanwhile)
    assert VectorIndex.open(atlas, MODEL, "gaia_xp").manifest["seed"] == 2
    assert len(calls) == 2


def test_vectors_of_rows(indexes: dict[str, VectorIndex]) -> None:
    rows = np.array([3999, 0, 700, 699, 0])
    stored = star_vectors(COUNT, 0).astype(np.float16).astype(np.float32)
    for index in indexes.values():
        np.testing.assert_array_equal(index.raw_vectors(rows), stored[rows])
        np.testing.assert_allclose(index.vectors(rows), centred_by_hand(stored)[rows], atol=1e-3)
        with pytest.raises(QueryError, match="between 0 and 3999; found -1 to 5"):
            index.vectors(np.array([-1, 5]))


def test_bad_requests_are_refused_in_words(indexes: dict[str, VectorIndex]) -> None:
    index, query = indexes["flat"], star_vectors(COUNT, 1)[:1]
    for k in (0, 10_001, True, 2.0):
        with pytest.raises(QueryError, match="k must be a whole number from 1 to 10000"):
            index.search(query, k, query_modality="lamost_lrs")  # type: ignore[arg-type]
    with pytest.raises(VectorIndexError, match=r"must be \(Q, 64\) vectors; found \(1, 63\)"):
        index.search(query[:, 1:], 5, query_modality="lamost_lrs")
    with pytest.raises(QueryError, match="must be unit vectors; number 0 has length 3"):
        index.search(3 * query, 5, query_modality="lamost_lrs")
    with pytest.raises(QueryError, match="must be unit vectors; number 0 has length nan"):
        index.search(query * np.nan, 5, query_modality="lamost_lrs")
    with pytest.raises(QueryError, match="one value for each of 4000 rows"):
        index.search(query, 5, query_modality="lamost_lrs", rows=np.ones(3, bool))
    with pytest.raises(QueryError, match="int64 rows or booleans; found float64"):
        index.search(query, 5, query_modality="lamost_lrs", rows=np.array([1.0]))
    with pytest.raises(QueryError, match="one entry for each of 1 queries; found 2"):
        index.search(query, 5, query_modality="lamost_lrs", exclude=[np.array([1]), np.array([2])])


def test_vectors_of_another_model_are_never_compared(indexes: dict[str, VectorIndex]) -> None:
    query = star_vectors(COUNT, 1)[:1]
    indexes["flat"].search(query, 5, query_modality="lamost_lrs", model_digest="sha256:tiny")
    with pytest.raises(VectorIndexError, match="vectors of model sha256:tiny; the queries come from sha256:other"):
        indexes["flat"].search(query, 5, query_modality="lamost_lrs", model_digest="sha256:other")


def test_shards_of_two_models_are_refused(make_atlas: AtlasMaker) -> None:
    atlas = make_atlas(1000)
    write_vectors(atlas, "gaia_xp", star_vectors(100, 0, seed=3), first_part=5, model_digest="sha256:newer")
    with pytest.raises(VectorIndexError, match="come from 2 different models"):
        build_index(atlas, MODEL, "gaia_xp")


@pytest.mark.parametrize("recipe", KINDS)
def test_an_index_of_other_vectors_is_refused(make_atlas: AtlasMaker, recipe: str) -> None:
    atlas = make_atlas(1500)
    with pytest.raises(VectorIndexError, match="There is no index of the gaia_xp vectors"):
        VectorIndex.open(atlas, MODEL, "gaia_xp")
    build_index(atlas, MODEL, "gaia_xp", recipe=recipe)
    write_vectors(atlas, "gaia_xp", star_vectors(100, 0, seed=8), first_part=9, first_id=5)
    with pytest.raises(VectorIndexError, match=r"expected sha256:.* \(1600 vectors\), found sha256:.* \(1500 "
                                               r"vectors\); it lacks 100 vectors added since.\nRun `specclip"):
        VectorIndex.open(atlas, MODEL, "gaia_xp")
    older = VectorIndex.open(atlas, MODEL, "gaia_xp", allow_older=True)
    assert older.rows == 1500
    assert older.keys.rows_of([BIG + 1499]).tolist() == [1499]
    write_vectors(atlas, "gaia_xp", star_vectors(700, 0, seed=9), first_part=0)
    with pytest.raises(VectorIndexError, match="its vectors have changed"):
        VectorIndex.open(atlas, MODEL, "gaia_xp", allow_older=True)


def test_without_faiss_flat_works_and_compression_names_the_extra(make_atlas: AtlasMaker,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    atlas = make_atlas(600)
    monkeypatch.setitem(sys.modules, "faiss", None)
    build_index(atlas, MODEL, "gaia_xp", recipe="flat")
    found = VectorIndex.open(atlas, MODEL, "gaia_xp").search(star_vectors(600, 1)[:2], 3, query_modality="lamost_lrs")
    assert (found.rows >= 0).all()
    with pytest.raises(MissingExtra, match=r"needs the package 'faiss-cpu'.*\n.*specclip-search\[cpu\]"):
        build_index(atlas, MODEL, "gaia_xp", recipe="ivfpq")
