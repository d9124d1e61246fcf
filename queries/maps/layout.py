"""A plane picture of the space: UMAP of a sample, every other point placed among its neighbours in the sample."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from specclip_search.errors import MissingExtra, QueryError
from specclip_search.progress import Progress

DIMENSIONS = 50
NEIGHBOURS = 15
PLACED_BY = 10
BATCH_ROWS = 16_384
FLAT_BELOW = 20_000
SMALLEST = 50
# (rows) int64 -> (len(rows), dim) float32 centred unit vectors
Reader = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True)
class Layout:
    """Positions of all points.

    Attributes
    ----------
    position
        (N, 2) float32; no unit, centred on 0, the sample's standard deviation is 1.
    sampled
        (S,) int64 rows that UMAP itself laid out, ascending.
    explained
        Share of the variance of the sample that the PCA keeps.
    """

    position: np.ndarray
    sampled: np.ndarray
    explained: float


def lay_out(read: Reader, rows: int, sample: int, seed: int, progress: Progress | None = None) -> Layout:
    """Place `rows` points in a plane so that near ones stay near.

    PCA to 50 dimensions, FAISS neighbours and UMAP (McInnes et al. 2018, arXiv:1802.03426) of a
    seeded sample; the rest is placed by weighted positions of the ten nearest of the sample.
    Memory: the sample, one batch and 8 bytes a point.

    Parameters
    ----------
    read
        Gives vectors by row; rows are asked for in ascending order.
    rows
        Number of points.
    sample
        How many of them UMAP lays out.
    seed
        The same seed gives the same picture.

    Raises
    ------
    QueryError
        If there are too few points, or `sample` is too small.
    MissingExtra
        If umap-learn is not installed.
    """
    if min(rows, sample) < SMALLEST:
        raise QueryError(
            f"A map needs at least {SMALLEST} spectra in its sample; found {min(rows, sample)}.",
            "Ingest and embed more spectra, or ask for a larger --sample.",
        )
    tell = progress or (lambda done, total, note: None)
    rng = np.random.default_rng(seed)
    sampled = np.sort(rng.choice(rows, size=min(sample, rows), replace=False)).astype(np.int64)
    vectors = np.concatenate([read(part) for part in np.array_split(sampled, -(-len(sampled) // BATCH_ROWS))])
    mean, axes, explained = principal_axes(vectors, DIMENSIONS)
    reduced = np.ascontiguousarray((vectors - mean) @ axes, dtype=np.float32)
    del vectors
    tell(0, rows, "laying out the sample")
    laid = _umap(reduced, seed)
    position = np.empty((rows, 2), dtype=np.float32)
    position[sampled] = laid
    rest = np.setdiff1d(np.arange(rows, dtype=np.int64), sampled, assume_unique=True)
    search = _search_index(reduced, seed)
    for start in range(0, len(rest), BATCH_ROWS):
        part = rest[start : start + BATCH_ROWS]
        queries = np.ascontiguousarray((read(part) - mean) @ axes, dtype=np.float32)
        distance, found = search.search(queries, PLACED_BY)
        position[part] = place(laid, found, np.sqrt(np.maximum(distance, 0.0)))
        tell(len(sampled) + start + len(part), rows, "placing the rest")
    return Layout(position, sampled, explained)


def principal_axes(vectors: np.ndarray, dimensions: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean, (dim, d) axes of largest variance with a fixed sign, and the share of the variance they keep."""
    mean = vectors.mean(axis=0, dtype=np.float64)
    centred = vectors - mean.astype(np.float32)
    covariance = (centred.T @ centred).astype(np.float64) / len(vectors)
    values, axes = np.linalg.eigh(covariance)
    order = np.argsort(-values)[: min(dimensions, len(values), len(vectors) - 1)]
    axes = axes[:, order]
    # eigenvectors come with either sign: the largest component is made positive
    axes = axes * np.sign(axes[np.argmax(np.abs(axes), axis=0), np.arange(len(order))])
    return mean.astype(np.float32), axes.astype(np.float32), float(values[order].sum() / max(values.sum(), 1e-30))


def place(laid: np.ndarray, found: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Positions from those of neighbours.

    Neighbours may lie on different islands, between which there is nothing: of the ten only the
    half around the most central one counts, each by exp(-(d / d_median)^2).

    Parameters
    ----------
    laid
        (S, 2) positions of the sample.
    found, distance
        (N, k) places in the sample, -1 for none, and distances to them.

    Returns
    -------
    (N, 2) float32.
    """
    known = found >= 0
    near = laid[np.maximum(found, 0)]
    scale = np.maximum(np.median(distance, axis=1, keepdims=True), 1e-9)
    weight = np.where(known, np.exp(-((distance / scale) ** 2)) + 1e-6, 0.0)
    apart = np.linalg.norm(near[:, :, None, :] - near[:, None, :, :], axis=-1)
    central = np.argmin(np.where(known, (apart * weight[:, None, :]).sum(axis=2), np.inf), axis=1)
    from_centre = np.where(known, apart[np.arange(len(near)), central], np.inf)
    kept = from_centre <= np.median(from_centre, axis=1, keepdims=True)
    weight = np.where(kept & known, weight, 0.0)
    total = np.maximum(weight.sum(axis=1, keepdims=True), 1e-12)
    return ((near * weight[:, :, None]).sum(axis=1) / total).astype(np.float32)


def _search_index(reduced: np.ndarray, seed: int):  # type: ignore[no-untyped-def]
    """FAISS index of the sample: exact, by inverted lists where it is large."""
    import faiss

    flat = faiss.IndexFlatL2(reduced.shape[1])
    if len(reduced) < FLAT_BELOW:
        flat.add(reduced)
        return flat
    lists = int(4 * np.sqrt(len(reduced)))
    index = faiss.IndexIVFFlat(flat, reduced.shape[1], lists)
    index.cp.niter, index.cp.seed = 6, seed + 1
    index.train(reduced)
    index.add(reduced)
    index.nprobe = 16
    return index


def _umap(reduced: np.ndarray, seed: int) -> np.ndarray:
    """(S, 2) float32 UMAP positions of reduced vectors, centred and scaled."""
    try:
        from umap import UMAP
    except ImportError:
        raise MissingExtra("umap-learn", "map", "a map of the space") from None
    count = min(NEIGHBOURS, len(reduced) - 1)
    distance, found = _search_index(reduced, seed).search(reduced, count)
    # every point is its own nearest, also among equals
    other = np.where(found == np.arange(len(found))[:, None], -1, found)
    own = np.argmax(other < 0, axis=1)
    rows = np.arange(len(found))
    found[rows, own], distance[rows, own] = found[:, 0], distance[:, 0]
    found[:, 0], distance[:, 0] = rows, 0.0
    with warnings.catch_warnings():
        # neighbours come from FAISS, one job makes the same picture twice: UMAP notes both
        warnings.simplefilter("ignore")
        reducer = UMAP(
            n_neighbors=count,
            min_dist=0.1,
            init="pca",
            random_state=seed,
            n_jobs=1,
            precomputed_knn=(found.astype(np.int32), np.sqrt(np.maximum(distance, 0.0))),
        )
        laid = np.asarray(reducer.fit_transform(reduced), dtype=np.float64)
    return ((laid - laid.mean(axis=0)) / np.maximum(laid.std(), 1e-9)).astype(np.float32)
