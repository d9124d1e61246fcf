"""Linear estimates of [Fe/H] and Teff from an instrument's vectors, cross-validated over stars."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from specclip_search.training.xp_metallicity.weighting import inverse_density

from .seeds import Seeds

if TYPE_CHECKING:
    from specclip_search.indexing.search.index import VectorIndex

    from ..space.space import Space

BLOCK_ROWS = 1024
FOLDS = 5
MAX_TRAIN_ROWS = 200_000
RIDGE = 1e-5
# model spectra differ from real ones: their total weight is this fraction of that of the real ones
SEED_SHARE = 0.05


def folds_of(source_id: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Fold 0-4 of each star; all its spectra are in the same fold."""
    key = np.where(source_id >= 0, source_id, row).astype(np.uint64)
    return ((key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)) % np.uint64(FOLDS)


def linear_estimates(
    space: Space, modality: str, labels: dict[str, np.ndarray], usable: np.ndarray, extra: Seeds
) -> dict[str, np.ndarray]:
    """Ridge regressions of [Fe/H] and Teff on the vector, for each star trained on the other folds.

    Stars are weighted inversely to their frequency in [Fe/H], so that the few metal-poor ones count.
    """
    index, keys = space.index(modality), space.keys(modality)
    total = len(keys)
    empty = np.full(total, np.nan, np.float32)
    train = np.flatnonzero(usable & np.isfinite(labels["teff"]))
    if len(train) < 4 * FOLDS:
        return {"linear_feh": empty, "linear_teff": empty.copy(), "seeded_feh": empty.copy()}
    fold = folds_of(np.asarray(keys.source_id), np.arange(total)).astype(np.int64)
    if len(train) > MAX_TRAIN_ROWS:
        train = np.sort(np.random.default_rng(0).choice(train, MAX_TRAIN_ROWS, replace=False))
    targets = np.column_stack([labels["feh"][train], labels["teff"][train] / 1000.0])
    weight = np.empty(len(train))
    for number in range(FOLDS):
        # per fold, so that a label does not influence even the weights of the stars used to estimate its star
        members = fold[train] == number
        weight[members] = inverse_density(targets[members, 0])
    gram, right = _normal_equations(index, train, fold[train], targets, weight)
    plain = _solved(gram, right, np.zeros_like(gram[0]), np.zeros_like(right[0]))
    seeded = plain
    if len(extra):
        x = _with_one(extra.vectors)
        each = SEED_SHARE * weight.sum() / len(extra)
        labels_of_seeds = np.column_stack([extra.column("feh"), extra.column("teff") / 1000.0])
        seeded = _solved(gram, right, each * x.T @ x, each * x.T @ labels_of_seeds)
    result = np.empty((total, 3), np.float32)
    for start in range(0, total, BLOCK_ROWS):
        rows = np.arange(start, min(start + BLOCK_ROWS, total))
        x = _with_one(index.vectors(rows))
        for number in range(FOLDS):
            inside = fold[rows] == number
            result[rows[inside], :2] = x[inside] @ plain[number]
            result[rows[inside], 2] = x[inside] @ seeded[number][:, 0]
    return {"linear_feh": result[:, 0], "linear_teff": result[:, 1] * 1000.0, "seeded_feh": result[:, 2]}


def _normal_equations(
    index: VectorIndex, rows: np.ndarray, fold: np.ndarray, targets: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """X'WX (FOLDS, d, d) and X'Wy (FOLDS, d, 2) of each fold's stars."""
    dim = index.dim + 1
    gram, right = np.zeros((FOLDS, dim, dim)), np.zeros((FOLDS, dim, targets.shape[1]))
    for start in range(0, len(rows), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        x = _with_one(index.vectors(rows[block]))
        for number in range(FOLDS):
            inside = fold[block] == number
            weighted = x[inside] * weight[block][inside, None]
            gram[number] += weighted.T @ x[inside]
            right[number] += weighted.T @ targets[block][inside]
    return gram, right


def _solved(gram: np.ndarray, right: np.ndarray, more_gram: np.ndarray, more_right: np.ndarray) -> list[np.ndarray]:
    """For each fold the solution from all other folds plus the added terms."""
    solutions = []
    for number in range(FOLDS):
        matrix = gram.sum(axis=0) - gram[number] + more_gram
        penalty = RIDGE * np.trace(matrix) / len(matrix) * np.eye(len(matrix))
        solutions.append(np.linalg.solve(matrix + penalty, right.sum(axis=0) - right[number] + more_right))
    return solutions


def _with_one(vectors: np.ndarray) -> np.ndarray:
    return np.column_stack([vectors.astype(np.float64), np.ones(len(vectors))])


