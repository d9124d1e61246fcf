"""Rare stars are found although they are each other's neighbours."""

from __future__ import annotations

import numpy as np
import pytest

from specclip_search.queries.anomalies import rarity as module
from specclip_search.queries.anomalies.rarity import fit_density, rarity

RARE = 12


@pytest.fixture(scope="module")
def crowd() -> tuple[np.ndarray, np.ndarray]:
    """3,000 stars on a plane with a little scatter, 12 of a kind beside it in a small direction; ids, vectors."""
    rng = np.random.default_rng(3)
    vectors = rng.normal(0, 1, (3000, 20)) * np.r_[1.0, 1.0, np.full(18, 0.05)]
    vectors[:RARE, 7] += 0.4
    vectors[:RARE, :2] *= 0.1
    return np.arange(3000) + 5_853_418_002_145_112_704, (vectors + 3.0).astype(np.float32)


def test_a_rare_kind_stands_out_although_its_neighbours_are_of_it(crowd: tuple[np.ndarray, np.ndarray]) -> None:
    star, vectors = crowd
    score = rarity(vectors.__getitem__, star, np.ones(len(star), bool))
    others = np.sort(score[RARE:])[::-1]
    assert (score[:RARE] > others[10]).mean() > 0.9
    # the nearest neighbour of each is one of them: a distance compared with the neighbours' would be quiet
    apart = np.linalg.norm(vectors[:RARE, None] - vectors[None], axis=2) + 1e9 * np.eye(RARE, len(star))
    assert (apart.argmin(axis=1) < RARE).mean() > 0.8


def test_it_is_the_distance_to_the_kth_neighbour_in_whitened_components(crowd: tuple[np.ndarray, np.ndarray]) -> None:
    star, vectors = crowd
    learn = np.arange(len(star)) % 2 == 0
    drawn = np.random.default_rng(4).permutation(np.flatnonzero(learn))
    centred = vectors[drawn].astype(float) - vectors[drawn].mean(axis=0, dtype=float)
    inverse = np.linalg.inv(centred.T @ centred / len(drawn))
    found = rarity(vectors.__getitem__, star, learn, seed=4)
    for i in (0, 1, 500, 501):
        step = vectors[drawn[drawn != i]].astype(float) - vectors[i]
        apart = np.sort(np.sqrt(np.einsum("nd,de,ne->n", step, inverse, step)))
        assert found[i] == pytest.approx(np.log(apart[round(0.004 * len(drawn)) - 1]), abs=1e-3)


def test_visits_of_one_star_are_no_neighbours_of_each_other(crowd: tuple[np.ndarray, np.ndarray]) -> None:
    star, vectors = crowd
    learn = np.arange(2 * len(star)) < len(star)
    twice = rarity(np.concatenate([vectors, vectors]).__getitem__, np.concatenate([star, star]), learn)
    np.testing.assert_allclose(twice[: len(star)], twice[len(star) :], atol=1e-6)
    np.testing.assert_allclose(twice[: len(star)], rarity(vectors.__getitem__, star, learn[: len(star)]), atol=1e-4)


def test_blocks_do_not_show(crowd: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    star, vectors = crowd
    whole = rarity(vectors.__getitem__, star, np.ones(len(star), bool))
    monkeypatch.setattr(module, "BLOCK_ROWS", 77)
    np.testing.assert_allclose(rarity(vectors.__getitem__, star, np.ones(len(star), bool)), whole, atol=1e-4)


def test_too_few_or_equal_stars_have_none() -> None:
    few = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    assert (rarity(few.__getitem__, np.arange(30), np.arange(30) < 10) == 0).all()
    assert fit_density(np.ones((50, 8), np.float32)) is None
    assert np.isfinite(rarity(few.__getitem__, np.arange(30), np.ones(30, bool))).all()
