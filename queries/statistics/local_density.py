"""How sparsely the space is populated around a spectrum, compared with how sparsely it is around its neighbours.

The local outlier factor (Breunig et al. 2000) of the vectors along their whitened leading axes: 1
among spectra as dense as elsewhere nearby, larger for one that stands beside a crowd. Unlike the
distance to the k-th neighbour freed of the place in the space, it does not count a whole sparse
region (hot stars, M giants) as odd, and is not drowned by quantities of single lines: it is joined with
these by rank. Distances are to a sample, so that time grows with the number of spectra, not its square.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

Vectors = Callable[[np.ndarray], np.ndarray]

AXES = 16
NEIGHBOURS = 60
SAMPLE_STARS = 40_000
FIT_STARS = 20_000
FEWEST = 200
"""Fewest learning spectra; with less everything has the same factor."""
BLOCK_ROWS = 1024
LEAST_VARIANCE = 1e-7
LOW_SNR_SHARE = 0.15
"""Spectra below this quantile of S/N are compared with others of their S/N: noise scatters vectors."""
DENSITY_WEIGHT, ISOLATION_WEIGHT, NAMED_WEIGHT, OTHERS_WEIGHT = 1.5, 1.0, 0.5, 0.4
OTHERS_SHARE = 0.6
"""Least share of the score from the other quantities that counts, whatever its rank."""


@dataclass(frozen=True)
class LocalDensity:
    """Whitened axes and the sample that spectra are compared with.

    Attributes
    ----------
    center, whiten
        (dim,) and (dim, axes) float32.
    sample
        (M, axes) float32 whitened vectors of the sample.
    kth
        (M,) distance of each of the sample to its k-th neighbour in it.
    density
        (M,) local reachability density of each.
    k
        Number of neighbours.
    """

    center: np.ndarray
    whiten: np.ndarray
    sample: np.ndarray
    kth: np.ndarray
    density: np.ndarray
    k: int

    def log_factor(self, vectors: np.ndarray, inside: np.ndarray) -> np.ndarray:
        """(n,) ln of the local outlier factor.

        Parameters
        ----------
        vectors
            (n, dim).
        inside
            (n,) bool: spectra of the sample, which are not their own neighbours.
        """
        own = ((vectors - self.center) @ self.whiten).astype(np.float32)
        distance, neighbour = _nearest(own, self.sample, self.k, inside)
        reach = np.maximum(distance, self.kth[neighbour])
        density = 1.0 / np.maximum(reach.mean(axis=1), 1e-9)
        return np.log(self.density[neighbour].mean(axis=1) / density)


def fit_local_density(vectors: np.ndarray, k: int = NEIGHBOURS, axes: int = AXES) -> LocalDensity | None:
    """Learn from vectors (n, dim) in random order; None for fewer than 200."""
    if len(vectors) < FEWEST:
        return None
    some = vectors[:FIT_STARS]
    center = some.mean(axis=0, dtype=np.float64)
    centred = some - center
    variance, directions = np.linalg.eigh(centred.T @ centred / len(some))
    kept = np.flatnonzero(variance > LEAST_VARIANCE * variance[-1])[::-1][:axes]
    if len(kept) == 0 or variance[-1] <= 0:
        return None
    whiten = (directions[:, kept] / np.sqrt(variance[kept])).astype(np.float32)
    center = center.astype(np.float32)
    sample = ((vectors[:SAMPLE_STARS] - center) @ whiten).astype(np.float32)
    k = min(k, len(sample) // 4)
    blocks = [_nearest(sample[rows], sample, k, np.ones(len(rows), bool)) for rows in _blocks(len(sample))]
    distance, neighbour = (np.concatenate(part) for part in zip(*blocks, strict=True))
    kth = distance[:, -1]
    density = 1.0 / np.maximum(np.maximum(distance, kth[neighbour]).mean(axis=1), 1e-9)
    return LocalDensity(center, whiten, sample, kth, density, k)


def _nearest(own: np.ndarray, sample: np.ndarray, k: int, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances (n, k), growing, and row numbers of the k nearest of the sample; a member's own row is left out."""
    import torch

    a, b = torch.from_numpy(own), torch.from_numpy(sample)
    apart = a.square().sum(1)[:, None] + b.square().sum(1) - 2.0 * a @ b.T
    squared, rows = apart.topk(k + 1, dim=1, largest=False)
    distance, neighbour = squared.clamp_min(0.0).sqrt().double().numpy(), rows.numpy()
    first = np.where(inside, 1, 0)[:, None] + np.arange(k)
    return np.take_along_axis(distance, first, axis=1), np.take_along_axis(neighbour, first, axis=1)


def _blocks(total: int) -> Iterator[np.ndarray]:
    return (np.arange(start, min(start + BLOCK_ROWS, total)) for start in range(0, total, BLOCK_ROWS))


def local_density(vectors: Vectors, star: np.ndarray, learn: np.ndarray, seed: int = 0) -> np.ndarray:
    """Ln of the local outlier factor of every spectrum.

    Parameters
    ----------
    vectors
        Takes rows (n,) of 0 .. N - 1 and gives their vectors (n, dim) of one instrument.
    star
        (N,) int64, the star of each spectrum: one spectrum a star is drawn into the sample.
    learn
        (N,) bool: spectra that axes and sample may be drawn from.
    seed
        Of the draw.

    Returns
    -------
    ndarray
        (N,) float64; all 0 where there are too few to learn from.
    """
    usable = np.flatnonzero(learn)
    usable = usable[np.unique(star[usable], return_index=True)[1]]
    drawn = np.random.default_rng(seed).permutation(usable)[:SAMPLE_STARS]
    found = fit_local_density(vectors(drawn))
    if found is None:
        return np.zeros(len(star))
    inside = np.zeros(len(star), dtype=bool)
    inside[drawn] = True
    return np.concatenate([found.log_factor(vectors(rows), inside[rows]) for rows in _blocks(len(star))])


def low_snr_covariate(log_snr: np.ndarray) -> np.ndarray:
    """(N, 1) log S/N, constant above the 35 % quantile: only faint spectra are compared with their like."""
    return np.minimum(log_snr, np.quantile(log_snr, LOW_SNR_SHARE))[:, None]


def rank_evidence(values: np.ndarray) -> np.ndarray:
    """(N,) -log10 of the share of spectra with a value at least as large; ties share their mean rank."""
    from scipy.stats import rankdata

    return np.asarray(-np.log10(1.0 - (rankdata(values) - 0.5) / len(values)))


def joined(density: np.ndarray, isolation: np.ndarray, named: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N,) joint score: weighted sum of what the neighbourhood, named patterns and the rest together say.

    Chosen by leaving one kind of odd object out at a time (docs/anomalies.md): a sum does better than the larger of
    the parts, because composite and variable stars are a little odd in several ways and very odd in none.

    Parameters
    ----------
    density, isolation
        (N,) robust z of `local_density` and of the distance to the k-th neighbour; each enters by its rank.
    named
        (N,) -log10 p of the strongest named pattern (emission, carbon, ...), which keeps growing beyond the ranks
        (`specclip_search.queries.statistics.p_values.surprise`): a line of 30 sigma is not only rare.
    others
        (N,) score of all quantities of `specclip_search.queries.anomalies.one_instrument` together, in -log10 p; enters
        by its rank, or with 0.6 of its value if that is more.
    """
    rest = np.maximum(OTHERS_WEIGHT * rank_evidence(others), OTHERS_SHARE * others)
    neighbourhood = DENSITY_WEIGHT * rank_evidence(density) + ISOLATION_WEIGHT * rank_evidence(isolation)
    return np.asarray(neighbourhood + NAMED_WEIGHT * np.maximum(named, 0.0) + rest)


def density_reason(factor: float) -> str:
    """In words what a local outlier factor (not its logarithm) says."""
    return f"its neighbours are {factor:.1f} times closer to one another than it is to them"


def matched_percentile(score: np.ndarray, odd: np.ndarray, like: np.ndarray, widths: tuple[float, ...],
                       controls: int = 50) -> np.ndarray:
    """Of each odd star, the share of the ordinary stars most like it that score lower.

    Parameters
    ----------
    score
        (N,).
    odd
        Rows of the odd stars; all others are ordinary.
    like
        (N, m) what controls must be alike in, for example G and BP-RP.
    widths
        (m,) what counts as one unit of difference.
    controls
        Number of ordinary stars each is compared with.
    """
    scaled = like / np.asarray(widths)
    ordinary = np.isfinite(scaled).all(axis=1)
    ordinary[odd] = False
    rows = np.flatnonzero(ordinary)
    result = []
    for row in odd:
        apart = ((scaled[rows] - scaled[row]) ** 2).sum(axis=1)
        near = rows[np.argsort(apart, kind="stable")[:controls]]
        result.append(float((score[near] < score[row]).mean()))
    return np.array(result)
