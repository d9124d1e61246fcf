"""Evidence of one instrument that its stars are metal-poor: labelled neighbours, seeds, a linear estimate.

A star's own label never counts for itself: neighbours of the same star are left out, and the
linear estimate of a star is learned from stars of other folds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .robust import MAD_TO_SIGMA, weighted_quantile
from .seeds import Seeds

if TYPE_CHECKING:
    from indexing.search import VectorIndex

    from .space import Space

K = 32
# neighbours of the same star are dropped afterwards: so many more are asked for
SPARE = 4
BLOCK_ROWS = 1024
FOLDS = 5
MAX_TRAIN_ROWS = 200_000
RIDGE = 1e-5
# model stars are not quite like real ones: together they count as this fraction of the real ones
SEED_SHARE = 0.05
# a neighbour's weight falls with its distance squared in units of that of this neighbour
SCALE_NEIGHBOUR = 8


@dataclass(frozen=True)
class InstrumentEvidence:
    """Evidence by vector row of one instrument, all (rows,) float32; NaN where there is none.

    Attributes
    ----------
    feh, feh_sigma
        Weighted median and scatter of [Fe/H] over the nearest labelled stars and seeds.
    teff, c_fe
        Weighted medians over the same.
    nearest
        Similarity to the nearest labelled star or seed.
    seed_similarity
        Similarity to the nearest EMP seed, the star itself left out.
    seeds
        Number of EMP seeds among the nearest labelled stars and seeds.
    linear_feh, linear_teff
        Linear estimates from the vector, learned from other labelled stars.
    seeded_feh
        The same with outside seeds among the teachers: reaches below the poorest labelled star.
    """

    feh: np.ndarray
    feh_sigma: np.ndarray
    teff: np.ndarray
    c_fe: np.ndarray
    nearest: np.ndarray
    seed_similarity: np.ndarray
    seeds: np.ndarray
    linear_feh: np.ndarray
    linear_teff: np.ndarray
    seeded_feh: np.ndarray


def instrument_evidence(
    space: Space,
    modality: str,
    labels: dict[str, np.ndarray],
    usable: np.ndarray,
    is_seed: np.ndarray,
    extra: Seeds,
    below: float,
    rows: np.ndarray | None = None,
) -> InstrumentEvidence:
    """Evidence of every spectrum of an instrument.

    Parameters
    ----------
    labels
        teff, feh, c_fe by vector row, NaN where unknown.
    usable
        (rows,) bool: whose labels may serve as evidence for others.
    is_seed
        (rows,) bool: spectra of known EMP stars.
    extra
        Seeds from outside the atlas.
    below
        Seeds of `extra` with [Fe/H] at most this plus 0.5 count as EMP seeds.
    """
    total = len(space.keys(modality))
    chosen = np.arange(total) if rows is None else rows
    result = {name: np.full(total, np.nan, np.float32) for name in InstrumentEvidence.__dataclass_fields__}
    linear = linear_estimates(space, modality, labels, usable, extra)
    for start in range(0, len(chosen), BLOCK_ROWS):
        block = chosen[start : start + BLOCK_ROWS]
        found = _block(space, modality, block, labels, usable, is_seed, extra, below)
        for name, values in found.items():
            result[name][block] = values
    return InstrumentEvidence(**(result | linear))


def _block(
    space: Space,
    modality: str,
    block: np.ndarray,
    labels: dict[str, np.ndarray],
    usable: np.ndarray,
    is_seed: np.ndarray,
    extra: Seeds,
    below: float,
) -> dict[str, np.ndarray]:
    index, keys = space.index(modality), space.keys(modality)
    own = index.vectors(block)
    source_id = np.asarray(keys.source_id[block])
    near = _others(space, modality, own, block, source_id, np.flatnonzero(usable), K)
    outside = own @ extra.vectors.T
    emp = extra.column("feh") <= below + 0.5 if len(extra) else np.empty(0, dtype=bool)
    similarity, values, seed = _merged(near, outside, labels, is_seed, extra, emp)
    weights = _weights(similarity)
    feh = weighted_quantile(values["feh"], weights)
    spread = MAD_TO_SIGMA * weighted_quantile(np.abs(values["feh"] - feh[:, None]), weights)
    known_seeds = np.flatnonzero(is_seed)
    to_seed = (
        _others(space, modality, own, block, source_id, known_seeds, 1)[1][:, 0]
        if len(known_seeds)
        else (np.full(len(block), np.nan))
    )
    if emp.any():
        to_seed = np.fmax(to_seed, outside[:, emp].max(axis=1))
    return {
        "feh": feh,
        "feh_sigma": spread,
        "teff": weighted_quantile(values["teff"], weights),
        "c_fe": weighted_quantile(values["c_fe"], weights),
        "nearest": similarity.max(axis=1, initial=-1.0),
        "seed_similarity": to_seed,
        "seeds": (seed & (weights > 0)).sum(axis=1),
    }


def _others(
    space: Space, modality: str, own: np.ndarray, block: np.ndarray, source_id: np.ndarray, allowed: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Nearest rows among `allowed` that are of other stars: (n, k) rows, -1 where fewer, and similarity."""
    if len(allowed) == 0:
        return np.full((len(block), k), -1), np.full((len(block), k), np.nan)
    answer = space.index(modality).search(
        own, min(k + SPARE, 10_000), query_modality=modality, rows=allowed, exclude=block[:, None], centred=True
    )
    rows, similarity = answer.rows, np.where(answer.rows >= 0, answer.similarity, np.nan)
    star = np.asarray(space.keys(modality).source_id)[np.maximum(rows, 0)]
    same = (rows >= 0) & (star == source_id[:, None]) & (source_id[:, None] >= 0)
    order = np.argsort(same | (rows < 0), axis=1, kind="stable")[:, :k]
    valid = np.take_along_axis((rows >= 0) & ~same, order, axis=1)
    return (
        np.where(valid, np.take_along_axis(rows, order, axis=1), -1),
        np.where(valid, np.take_along_axis(similarity, order, axis=1), np.nan),
    )


def _merged(
    near: tuple[np.ndarray, np.ndarray],
    outside: np.ndarray,
    labels: dict[str, np.ndarray],
    is_seed: np.ndarray,
    extra: Seeds,
    emp: np.ndarray,
) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """The K nearest of labelled rows and outside seeds together: similarity, labels, whether a seed."""
    rows, similarity = near
    count = min(K, outside.shape[1])
    best = np.argsort(-outside, axis=1, kind="stable")[:, :count]
    together = np.concatenate([np.nan_to_num(similarity, nan=-2.0), np.take_along_axis(outside, best, axis=1)], axis=1)
    order = np.argsort(-together, axis=1, kind="stable")[:, :K]
    values = {}
    for name in ("feh", "teff", "c_fe"):
        inside = np.where(rows >= 0, labels[name][np.maximum(rows, 0)], np.nan)
        both = np.concatenate([inside, extra.column(name)[best]], axis=1) if count else inside
        values[name] = np.take_along_axis(both, order, axis=1)
    seed = (rows >= 0) & is_seed[np.maximum(rows, 0)]
    seed = np.concatenate([seed, emp[best]], axis=1) if count else seed
    return np.take_along_axis(together, order, axis=1), values, np.take_along_axis(seed, order, axis=1)


def _weights(similarity: np.ndarray) -> np.ndarray:
    """exp(-d^2 / (2 h^2)), d^2 = 1 - similarity, h that of the eighth neighbour; 0 where there is no neighbour."""
    valid = similarity > -1.5
    distance2 = np.where(valid, np.maximum(1.0 - similarity, 1e-6), np.inf)
    scale2 = np.sort(distance2, axis=1)[:, min(SCALE_NEIGHBOUR, similarity.shape[1]) - 1]
    scale2 = np.where(np.isfinite(scale2), scale2, 1.0)
    return np.where(valid, np.exp(-0.5 * np.where(valid, distance2, 0.0) / scale2[:, None]), 0.0)


def folds_of(source_id: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Fold 0-4 of each star: all its spectra in one."""
    key = np.where(source_id >= 0, source_id, row).astype(np.uint64)
    return ((key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)) % np.uint64(FOLDS)


def linear_estimates(
    space: Space, modality: str, labels: dict[str, np.ndarray], usable: np.ndarray, extra: Seeds
) -> dict[str, np.ndarray]:
    """Ridge regressions of [Fe/H] and Teff on the vector, each star's from stars of the other folds.

    Stars are weighted against their frequency in [Fe/H], so that the few metal-poor ones count.
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
        # from the fold's own stars alone: a label must not even count in the weights of those that judge its star
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
    """For each fold the solution from all other folds and what is added."""
    solutions = []
    for number in range(FOLDS):
        matrix = gram.sum(axis=0) - gram[number] + more_gram
        penalty = RIDGE * np.trace(matrix) / len(matrix) * np.eye(len(matrix))
        solutions.append(np.linalg.solve(matrix + penalty, right.sum(axis=0) - right[number] + more_right))
    return solutions


def _with_one(vectors: np.ndarray) -> np.ndarray:
    return np.column_stack([vectors.astype(np.float64), np.ones(len(vectors))])


def inverse_density(values: np.ndarray, width: float = 0.25, cap: float = 20.0) -> np.ndarray:
    """Weight of each star against the number of stars within its bin, at most `cap` times the commonest's."""
    bins = np.floor(values / width).astype(np.int64)
    if len(values) == 0:
        return np.empty(0)
    _, inverse, counts = np.unique(bins, return_inverse=True, return_counts=True)
    return np.minimum(counts.max() / counts[inverse], cap)
