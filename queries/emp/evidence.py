"""Evidence for low metallicity from one instrument: labelled neighbours, seeds, a linear estimate.

A star's own label is never used for itself: neighbours of the same star are left out, and the
linear estimate of a star is learned from stars of other folds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..statistics.robust_trend import MAD_TO_SIGMA, weighted_quantile
from .linear import linear_estimates
from .seeds import Seeds

if TYPE_CHECKING:
    from ..space.space import Space

K = 32
# extra neighbours requested, because those of the same star are dropped afterwards
SPARE = 4
BLOCK_ROWS = 1024
# weights fall with the squared distance in units of that of this neighbour
SCALE_NEIGHBOUR = 8


@dataclass(frozen=True)
class InstrumentEvidence:
    """Evidence by vector row of one instrument, all (rows,) float32; NaN if there is none.

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
        The same with external seeds in the training set, which extends below the most metal-poor labelled star.
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
        (rows,) bool: spectra whose labels may be used as evidence for others.
    is_seed
        (rows,) bool: spectra of known EMP stars.
    extra
        External seeds.
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
    """Nearest rows of other stars among `allowed`: (n, k) rows, padded with -1, and similarity."""
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
    """The K nearest of labelled rows and external seeds: similarity, labels, whether a seed."""
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
    """exp(-d^2 / (2 h^2)), d^2 = 1 - similarity, h that of the eighth neighbour; 0 if there is no neighbour."""
    valid = similarity > -1.5
    distance2 = np.where(valid, np.maximum(1.0 - similarity, 1e-6), np.inf)
    scale2 = np.sort(distance2, axis=1)[:, min(SCALE_NEIGHBOUR, similarity.shape[1]) - 1]
    scale2 = np.where(np.isfinite(scale2), scale2, 1.0)
    return np.where(valid, np.exp(-0.5 * np.where(valid, distance2, 0.0) / scale2[:, None]), 0.0)
