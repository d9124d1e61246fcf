"""Arithmetic at the core: conversions, exact search, centring, read-ahead."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specclip_search.atlas import Atlas
from specclip_search.indexing.search.exact import exact_top_k, in_slices
from specclip_search.indexing.vectors.float16 import to_half, to_single
from specclip_search.indexing.vectors.means import centre, compute_mean, ensure_mean, load_mean
from specclip_search.indexing.vectors.table import VectorTable
from specclip_search.stages.prefetch import read_ahead

from ..conftest import MODEL, star_vectors, write_vectors


@pytest.mark.parametrize("with_torch", [False, True])
def test_every_finite_half_converts_exactly(with_torch: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    if with_torch:
        import torch  # noqa: F401
    else:
        monkeypatch.delitem(sys.modules, "torch", raising=False)
    bits = np.arange(65536, dtype=np.uint16).view(np.float16)
    finite = bits[np.isfinite(bits)].reshape(-1, 32).copy()
    np.testing.assert_array_equal(to_single(finite), finite.astype(np.float32))
    np.testing.assert_array_equal(to_half(to_single(finite)).view(np.uint16), finite.view(np.uint16))
    between = np.random.default_rng(0).normal(size=(50, 40)).astype(np.float32)
    np.testing.assert_array_equal(to_half(between), between.astype(np.float16))


@given(rows=st.integers(1, 400), k=st.integers(1, 60), block=st.integers(1, 150), seed=st.integers(0, 10**6))
def test_blocked_search_is_sorting_everything(rows: int, k: int, block: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    # few distinct values: ties everywhere, settled by the row
    vectors = rng.integers(-2, 3, (rows, 3)).astype(np.float32)
    queries = rng.integers(-2, 3, (5, 3)).astype(np.float32)
    found, similarity = exact_top_k(queries, in_slices(vectors, block), k)
    scores = queries @ vectors.T
    for query in range(5):
        truth = np.lexsort((np.arange(rows), -scores[query]))[:k]
        assert found[query, : len(truth)].tolist() == truth.tolist()
        assert similarity[query, : len(truth)].tolist() == scores[query, truth].tolist()
        assert (found[query, len(truth) :] == -1).all()


def test_mean_is_over_all_vectors_and_redone_when_they_change(make_atlas: Callable[..., Atlas]) -> None:
    atlas = make_atlas(2000)
    stored = star_vectors(2000, 0).astype(np.float16).astype(np.float64)
    mean = ensure_mean(atlas, MODEL, "gaia_xp")
    np.testing.assert_allclose(mean.vector, stored.mean(axis=0), atol=1e-12)
    assert mean.length == pytest.approx(np.linalg.norm(stored.mean(axis=0)))
    again = load_mean(atlas, MODEL, "gaia_xp")
    assert again is not None
    assert again.digest == mean.digest
    write_vectors(atlas, "gaia_xp", -star_vectors(500, 0), first_part=7)
    changed = ensure_mean(atlas, MODEL, "gaia_xp")
    assert changed.rows == 2500
    assert changed.digest == compute_mean(VectorTable(atlas, MODEL, "gaia_xp")).digest != mean.digest


def test_centred_vectors_have_unit_length_and_no_offset() -> None:
    vectors = star_vectors(3000, 1)
    centred = centre(vectors, vectors.mean(axis=0))
    np.testing.assert_allclose(np.linalg.norm(centred, axis=1), 1, atol=1e-6)
    assert np.linalg.norm(centred.mean(axis=0)) < 0.3 * np.linalg.norm(vectors.mean(axis=0))


def test_reading_ahead_keeps_order_raises_and_ends_its_thread() -> None:
    assert list(read_ahead(range(50))) == list(range(50))

    def breaks() -> Iterator[int]:
        yield 1
        raise ValueError("broken shard")

    seen = read_ahead(breaks())
    assert next(seen) == 1
    with pytest.raises(ValueError, match="broken shard"):
        next(seen)
    endless = read_ahead(iter(int, 1))
    next(endless)
    endless.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name == "read-ahead"]
