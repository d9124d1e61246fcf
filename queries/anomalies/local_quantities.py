"""Quantities for the anomaly score, compared with a pair's nearest neighbours and with all pairs.

There are eight local quantities, each large for anomalies:

* ``lrs_error``, ``xp_error``: half the log of the translation's reduced chi2, each direction;
* ``lrs_window``, ``xp_window``: the largest |residual| of a spectral window, in sigma;
* ``lrs_isolation``, ``xp_isolation``: log distance to the k-th neighbour, distance^2 = 1 - cosine;
* ``mutual``: log distance between the star's own two vectors;
* ``disagreement``: log distance between a star's vector and those of the stars that its *other*
  spectrum is like; for two spectra of different stars it is large although each has close neighbours.

Each is first corrected for its dependence on both S/N and colour (running medians over the atlas),
then compared with the same quantity of the neighbours: an LRS error with those of the XP
neighbours (for which the same prediction was made), an XP error with those of the LRS neighbours.
Neighbours of similar S/N have the largest weights; other visits of the same star are excluded.

For quantities compared with the whole atlas see `specclip_search.queries.anomalies.global_quantities`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from specclip_search.surveys import LRS, XP

from ..statistics.robust_trend import Covariates, Trend, fit_trend, local_location_scale, median_and_sigma
from .global_quantities import GLOBAL_NAMES, PLAIN_COVARIATES, global_quantities, standardised
from .identity import IDENTITY, identity_sum
from .pair_table import PairTable

if TYPE_CHECKING:
    from ..space.space import Space

LOCAL_NAMES = (
    "lrs_error", "xp_error", "lrs_window", "xp_window", "lrs_isolation", "xp_isolation", "mutual", "disagreement",
)  # fmt: skip
NAMES = (*LOCAL_NAMES, *GLOBAL_NAMES)
# instrument whose neighbours each quantity is compared with
SIDE = {"lrs_error": XP, "xp_error": LRS, "lrs_isolation": LRS, "xp_isolation": XP, "mutual": LRS, "disagreement": XP}
# rare stars have rare colors: correcting for color would remove rarity itself
RARITY_COVARIATES = [0, 1, 3]
BLOCK_ROWS = 8192
NEAREST_PARTNERS = 8
SNR_WIDTH_DEX = 0.2
SNR_FLOOR = 0.05
Tick = Callable[[int], None]


@dataclass(frozen=True)
class Neighbours:
    """Neighbours in one instrument that are themselves pairs, for every pair.

    Attributes
    ----------
    pair
        (N, k) int32 pair indices, -1 if a neighbour is not a pair or is the same star.
    kth_similarity
        (N,) float32 cosine to the k-th neighbour of any kind.
    """

    pair: np.ndarray
    kth_similarity: np.ndarray


def pair_neighbours(
    pairs: PairTable, modality: str, blocks: Iterable[tuple[slice, np.ndarray, np.ndarray]], k: int, total: int
) -> Neighbours:
    """Map vector rows near each pair's own spectrum to pairs.

    Parameters
    ----------
    blocks
        Blocks of pairs, (n, k) rows of their neighbours padded with -1, and (n, k) cosines.
    total
        Number of vectors of the instrument.
    """
    lookup = pairs.pair_of_row(modality, total)
    result = Neighbours(np.full((len(pairs), k), -1, dtype=np.int32), np.zeros(len(pairs), dtype=np.float32))
    for block, rows, similarity in blocks:
        pair = np.where(rows >= 0, lookup[np.maximum(rows, 0)], -1)
        same_star = pairs.source_id[np.maximum(pair, 0)] == pairs.source_id[block, None]
        result.pair[block] = np.where(same_star, -1, pair)
        last = np.maximum((rows >= 0).sum(axis=1) - 1, 0)
        result.kth_similarity[block] = similarity[np.arange(len(rows)), last]
    return result


def log_distance(similarity: np.ndarray) -> np.ndarray:
    """Half the log of 1 - cosine, with the cosine limited to 1 - 1e-6."""
    return 0.5 * np.log(np.maximum(1.0 - similarity.astype(np.float64), 1e-6))


@dataclass(frozen=True)
class Features:
    """Robust z of every quantity, and window residuals corrected for those of the neighbours.

    Attributes
    ----------
    z
        (N, m) float32 in the order of `NAMES`; finite.
    lrs_windows, xp_windows
        (N, w) float32 window residuals relative to the neighbours, in robust sigma.
    mutual_similarity
        (N,) float32 cosine of the star's two centred vectors.
    """

    z: np.ndarray
    lrs_windows: np.ndarray
    xp_windows: np.ndarray
    mutual_similarity: np.ndarray

    def column(self, name: str) -> np.ndarray:
        return self.z[:, NAMES.index(name)]


def compute_features(
    space: Space, pairs: PairTable, neighbours: dict[str, Neighbours], learn: np.ndarray, tick: Tick | None = None
) -> Features:
    """All quantities of all pairs.

    Parameters
    ----------
    neighbours
        For each instrument.
    learn
        (N,) bool: pairs from which the dependence on S/N and colour is learned (never acceptance).
    """
    covariates = pairs.covariates
    weights = {side: snr_weights(covariates[:, column], neighbours[side].pair) for column, side in ((0, LRS), (1, XP))}
    mutual, disagreement = _vector_distances(space, pairs, neighbours, tick)
    raw = {
        "lrs_error": 0.5 * np.log(np.maximum(pairs.values["lrs_chi2"], 1e-6)),
        "xp_error": 0.5 * np.log(np.maximum(pairs.values["xp_chi2"], 1e-6)),
        "lrs_isolation": log_distance(neighbours[LRS].kth_similarity),
        "xp_isolation": log_distance(neighbours[XP].kth_similarity),
        "mutual": log_distance(mutual),
        "disagreement": disagreement,
    }
    windows = {
        side: against_neighbours(values, covariates, learn, neighbours[other].pair, weights[other])
        for side, values, other in (("lrs", pairs.lrs_windows, XP), ("xp", pairs.xp_windows, LRS))
    }
    raw["lrs_window"], raw["xp_window"] = (np.log(np.abs(windows[side]).max(axis=1) + 0.1) for side in ("lrs", "xp"))
    z = np.zeros((len(pairs), len(NAMES)), np.float32)
    plain = covariates[:, :PLAIN_COVARIATES]
    for column, name in enumerate(LOCAL_NAMES):
        side = SIDE.get(name, XP if name == "lrs_window" else LRS)
        z[:, column] = against_neighbours(
            raw[name][:, None], plain if name in IDENTITY else covariates, learn, neighbours[side].pair, weights[side]
        )[:, 0]
    # the identity sum comes last because it combines the others
    for name, values in global_quantities(space, pairs, learn):
        z[:, NAMES.index(name)] = standardised(values, _free_of(name, covariates), learn)
    z[:, NAMES.index("identity")] = _identity(np.nan_to_num(z), learn)
    return Features(np.nan_to_num(z), windows["lrs"], windows["xp"], mutual.astype(np.float32))


def _free_of(name: str, covariates: np.ndarray) -> np.ndarray:
    """Columns of the covariates that a global quantity is corrected for.

    For wrong matches velocity and dust are signal, so only S/N and colour are corrected for.
    """
    if name == "lrs_rarity":
        return covariates[:, RARITY_COVARIATES]
    return covariates[:, :PLAIN_COVARIATES] if name in IDENTITY else covariates


def _identity(z: np.ndarray, learn: np.ndarray) -> np.ndarray:
    """(N,) robust z of `identity_sum` against all; its parts are already corrected for S/N and colour."""
    total = identity_sum(z[:, [NAMES.index(name) for name in IDENTITY]])
    middle, sigma = median_and_sigma(total[learn])
    return np.asarray((total - middle) / max(float(sigma), 1e-6))


def snr_weights(log_snr: np.ndarray, pair: np.ndarray) -> np.ndarray:
    """(N, k) float32 weight of each neighbour by its difference in log S/N; 0 if it is not a pair."""
    difference = (log_snr[np.maximum(pair, 0)] - log_snr[:, None]) / SNR_WIDTH_DEX
    weight = np.exp(-0.5 * np.nan_to_num(difference) ** 2) + SNR_FLOOR
    return np.where(pair >= 0, weight, 0.0).astype(np.float32)


def against_neighbours(
    values: np.ndarray, covariates: np.ndarray, learn: np.ndarray, pair: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """(N, m) quantities to robust z: corrected for S/N and colour, then for the neighbours' location and scale."""
    result = np.zeros(values.shape, np.float32)
    learned_from = Covariates(covariates[learn])
    for column in range(values.shape[1]):
        own = np.asarray(values[:, column], dtype=np.float64)
        trend: Trend = fit_trend(own[learn], learned_from)
        standard = np.nan_to_num(trend.standardise(own, covariates))
        for start in range(0, len(own), BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
            members = standard[np.maximum(pair[block], 0)]
            location, scale = local_location_scale(members, weights[block], 1.0)
            result[block, column] = (standard[block] - location) / scale
    return result


def _vector_distances(
    space: Space, pairs: PairTable, neighbours: dict[str, Neighbours], tick: Tick | None
) -> tuple[np.ndarray, np.ndarray]:
    """Cosine of each star's two vectors, and mean log distance to its neighbours' partners."""
    lrs_index, xp_index = space.index(LRS), space.index(XP)
    mutual = np.zeros(len(pairs), np.float32)
    disagreement = np.zeros(len(pairs), np.float64)
    block_rows = BLOCK_ROWS // 4
    for start in range(0, len(pairs), block_rows):
        block = slice(start, min(start + block_rows, len(pairs)))
        own_lrs, own_xp = lrs_index.vectors(pairs.lrs_row[block]), xp_index.vectors(pairs.xp_row[block])
        mutual[block] = np.einsum("nd,nd->n", own_lrs, own_xp)
        to_xp = _partner_distance(own_xp, xp_index, pairs.xp_row, neighbours[LRS].pair[block])
        to_lrs = _partner_distance(own_lrs, lrs_index, pairs.lrs_row, neighbours[XP].pair[block])
        disagreement[block] = 0.5 * (to_xp + to_lrs)
        if tick is not None:
            tick(block.stop)
    return mutual, disagreement


def _partner_distance(own: np.ndarray, index: object, partner_row: np.ndarray, pair: np.ndarray) -> np.ndarray:
    """(n,) log distance between a vector and the mean direction of the neighbours' partners."""
    nearest = _first_valid(pair, NEAREST_PARTNERS)
    valid = nearest >= 0
    unique, inverse = np.unique(partner_row[np.maximum(nearest, 0)], return_inverse=True)
    vectors = index.vectors(unique)  # type: ignore[attr-defined]
    members = vectors[inverse.reshape(nearest.shape)]
    mean = np.einsum("nkd,nk->nd", members, valid.astype(np.float32))
    length = np.linalg.norm(mean, axis=1)
    cosine = np.einsum("nd,nd->n", own, mean) / np.maximum(length, 1e-6)
    return np.where(valid.any(axis=1), log_distance(cosine), np.nan)


def _first_valid(pair: np.ndarray, count: int) -> np.ndarray:
    """(n, count) the first members of each row that are not -1, padded with -1."""
    order = np.argsort(pair < 0, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(pair, order, axis=1)
