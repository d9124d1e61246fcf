"""Search against brute force, filters, exclusion and refusals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from indexing.build import build_index
from indexing.search import VectorIndex
from specclip_search.atlas import Atlas
from specclip_search.errors import QueryError, VectorIndexError

from .conftest import BIG, MODEL, star_vectors, write_vectors

AtlasMaker = Callable[..., Atlas]


def brute_force(queries: np.ndarray, gallery: np.ndarray, k: int) -> np.ndarray:
    similarity = queries.astype(np.float64) @ gallery.astype(np.float64).T
    return np.argsort(-similarity, axis=1, kind="stable")[:, :k]


def centred_by_hand(vectors: np.ndarray) -> np.ndarray:
    stored = vectors.astype(np.float16).astype(np.float64)
    moved = stored - stored.mean(axis=0)
    return moved / np.linalg.norm(moved, axis=1, keepdims=True)


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([np.isin(t, f).mean() for f, t in zip(found, truth, strict=True)]))


@pytest.mark.parametrize(("recipe", "least"), [("flat", 0.999), ("ivfpq", 0.97)])
def test_cross_instrument_search_is_brute_force(make_atlas: AtlasMaker, recipe: str, least: float) -> None:
    atlas = make_atlas(4000)
    report = build_index(atlas, MODEL, "gaia_xp", recipe=recipe)
    index = VectorIndex.open(atlas, MODEL, "gaia_xp")
    xp, lrs = star_vectors(4000, 0), star_vectors(4000, 1)
    truth = brute_force(centred_by_hand(lrs)[:200], centred_by_hand(xp), 20)
    found = index.search(lrs[:200], 20, query_modality="lamost_lrs")
    assert recall(found.rows, truth) >= least
    assert found.strategy == recipe
    expected = np.take_along_axis(centred_by_hand(lrs)[:200] @ centred_by_hand(xp).T, found.rows, axis=1)
    np.testing.assert_allclose(found.similarity, expected, atol=2e-3)
    assert (np.diff(found.similarity, axis=1) <= 0).all()
    assert report.recipe.startswith("flat" if recipe == "flat" else "PCAR64,IVF64,PQ32")
