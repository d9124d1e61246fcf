"""How sparsely the space is populated around a star, whatever its neighbours are.

Isolation as `specclip_search.queries.anomalies.local_quantities` has it is compared with a star's own neighbours:
stars of one rare kind, such as carbon-enhanced ones, are each other's neighbours and so look no odder than these.
Here a star's distance is that to all stars. The space is whitened first (principal components of
equal variance, so that a small direction such as that of carbon counts as much as temperature);
then the distance to the k-th neighbour in a sample is a measure of density (Loftsgaarden &
Quesenberry 1965). k is a fixed share of the sample: a kind of stars rarer than this share cannot
fill its own neighbourhood, however many stars the atlas holds.

`rarity` still follows S/N and velocity a little; `specclip_search.queries.anomalies.global_quantities.standardised`
frees it of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Vectors = Callable[[np.ndarray], np.ndarray]

# stars that the components are learned from, and stars that distances are measured to
FIT_STARS, SAMPLE_STARS = 20_000, 4_000
COMPONENTS = 50
STARS_A_COMPONENT = 10
# kinds rarer than this share of all stars stand out
SHARE = 0.004
FEWEST_NEIGHBOURS = 2
LEAST_VARIANCE = 1e-7  # of the first component's
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
        Which neighbour's distance is taken, counted from 1.
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
            (n, dim), a block: a distance to every star of the sample is held.
        inside
            (n,) bool: stars of the sample (any visit): their nearest, themselves, does not count.
        """
        own = (vectors @ self.whiten - self.mean @ self.whiten).astype(np.float32)
        squares = np.square(self.sample).sum(axis=1)
        apart = np.square(own).sum(axis=1)[:, None] + squares - 2.0 * own @ self.sample.T
        nearest = np.partition(apart, (self.neighbour - 1, self.neighbour), axis=1)
        kth = np.where(inside, nearest[:, self.neighbour], nearest[:, self.neighbour - 1])
        return np.asarray(0.5 * np.log(np.maximum(kth, 1e-9)), dtype=np.float64)


def fit_density(vectors: np.ndarray) -> Density | None:
    """Density of the stars given, the first `SAMPLE_STARS` of which become the sample; None for too few.

    Parameters
    ----------
    vectors
        (n, dim) one a star, in random order.
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
        Takes rows (n,) of 0 .. N - 1 and gives their vectors (n, dim) of one instrument.
    source_id
        (N,) int64.
    learn
        (N,) bool, one row a star: those that components and sample may be drawn from (never acceptance).
    seed
        Of the draw.

    Returns
    -------
    np.ndarray
        (N,) float64, high where stars are rare; all 0 where there are too few to learn from.
        Memory holds `FIT_STARS` vectors and a block, however large N is.
    """
    usable = np.flatnonzero(learn)
    drawn = np.random.default_rng(seed).permutation(usable)[:FIT_STARS]
    density = fit_density(vectors(drawn))
    if density is None:
        return np.zeros(len(source_id))
    inside = np.isin(source_id, source_id[drawn[:SAMPLE_STARS]])
    blocks = (np.arange(start, min(start + BLOCK_ROWS, len(inside))) for start in range(0, len(inside), BLOCK_ROWS))
    return np.concatenate([density.log_distance(vectors(rows), inside[rows]) for rows in blocks])
