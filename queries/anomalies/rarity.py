"""Rarity: how sparsely the space is populated around a star, regardless of its neighbours.

The isolation of `specclip_search.queries.anomalies.local_quantities` is relative to a star's own neighbours:
stars of one rare kind, such as carbon-enhanced ones, are each other's neighbours and do not stand out.
Here distances to all stars are used. The space is whitened first (principal components of
equal variance, so that a weak direction such as carbon counts as much as temperature);
then the distance to the k-th neighbour in a sample is a measure of density (Loftsgaarden &
Quesenberry 1965). k is a fixed share of the sample: a kind of stars rarer than this share cannot
fill its own neighbourhood, however many stars the atlas holds.

`rarity` still follows S/N and velocity a little; `specclip_search.queries.anomalies.global_quantities.standardised`
corrects for both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Vectors = Callable[[np.ndarray], np.ndarray]

# number of stars for the components, and of stars that distances are measured to
FIT_STARS, SAMPLE_STARS = 20_000, 4_000
COMPONENTS = 50
STARS_A_COMPONENT = 10
# kinds rarer than this fraction of all stars stand out
SHARE = 0.004
FEWEST_NEIGHBOURS = 2
LEAST_VARIANCE = 1e-7  # relative to the first component
BLOCK_ROWS = 2048


@dataclass(frozen=True, slots=True)
class Density:
    """Whitened components of a space and a sample of its stars.

    Attributes
    ----------
    mean
        (dim,) float64.
    whiten
        (dim, c) float64 principal directions over the root of their variance.
    sample
        (n, c) float32 whitened vectors of the sample.
    neighbour
        Index k of the neighbour whose distance is used, counted from 1.
    """

    mean: np.ndarray
    whiten: np.ndarray
    sample: np.ndarray
    neighbour: int

    def log_distance(self, vectors: np.ndarray, inside: np.ndarray) -> np.ndarray:
        """(n,) float64 log of the distance to the k-th neighbour in the sample.

        Parameters
        ----------
        vectors
            (n, dim), one block: distances to every star of the sample are held in memory.
        inside
            (n,) bool: stars of the sample (any visit): their nearest neighbour, themselves, is skipped.
        """
        own = (vectors @ self.whiten - self.mean @ self.whiten).astype(np.float32)
        squares = np.square(self.sample).sum(axis=1)
        apart = np.square(own).sum(axis=1)[:, None] + squares - 2.0 * own @ self.sample.T
        nearest = np.partition(apart, (self.neighbour - 1, self.neighbour), axis=1)
        kth = np.where(inside, nearest[:, self.neighbour], nearest[:, self.neighbour - 1])
        return np.asarray(0.5 * np.log(np.maximum(kth, 1e-9)), dtype=np.float64)


def fit_density(vectors: np.ndarray) -> Density | None:
    """Density of the given stars, the first `SAMPLE_STARS` of which become the sample; None for too few.

    Parameters
    ----------
    vectors
        (n, dim), one per star, in random order.
    """
    count = len(vectors)
    if count < 2 * STARS_A_COMPONENT:
        return None
    mean = vectors.mean(axis=0, dtype=np.float64)
    centred = vectors - mean
    variance, directions = np.linalg.eigh(centred.T @ centred / count)
    kept = np.flatnonzero(variance > LEAST_VARIANCE * variance[-1])[::-1]
    kept = kept[: min(COMPONENTS, count // STARS_A_COMPONENT)]
    if len(kept) == 0 or variance[-1] <= 0:
        return None
    whiten = directions[:, kept] / np.sqrt(variance[kept])
    sample = (centred[:SAMPLE_STARS] @ whiten).astype(np.float32)
    return Density(mean, whiten, sample, max(FEWEST_NEIGHBOURS, round(SHARE * len(sample))))


def rarity(vectors: Vectors, source_id: np.ndarray, learn: np.ndarray, seed: int = 0) -> np.ndarray:
    """How rare each star is: log distance to the k-th neighbour of a sample in the whitened space.

    Parameters
    ----------
    vectors
        Function from rows (n,) in 0 .. N - 1 to vectors (n, dim) of one instrument.
    source_id
        (N,) int64.
    learn
        (N,) bool, one row per star: stars for components and sample (never acceptance stars).
    seed
        Random seed.

    Returns
    -------
    np.ndarray
        (N,) float64, high for rare stars; all 0 if there are too few to learn from.
        Memory is bounded by `FIT_STARS` vectors and one block.
    """
    usable = np.flatnonzero(learn)
    drawn = np.random.default_rng(seed).permutation(usable)[:FIT_STARS]
    density = fit_density(vectors(drawn))
    if density is None:
        return np.zeros(len(source_id))
    inside = np.isin(source_id, source_id[drawn[:SAMPLE_STARS]])
    blocks = (np.arange(start, min(start + BLOCK_ROWS, len(inside))) for start in range(0, len(inside), BLOCK_ROWS))
    return np.concatenate([density.log_distance(vectors(rows), inside[rows]) for rows in blocks])
