"""The parts of an evaluation: retrieval, neighbours' labels, translation, metal-poor stars, anomalies."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from specclip_search.keys import ACCEPTANCE_SPLIT, split_of
from specclip_search.simulation.oddities import ODDITIES

from .emp import score_stars
from .evaluate_numbers import Measured, middle, rank_correlation, ranked, share
from .evaluate_truth import Truth
from .pair_table import PairTable
from .pairs import LRS, XP
from .space import Space

SNR_EDGES = (0.0, 20.0, 40.0, 80.0, np.inf)
MAX_QUERIES = 5000
NEIGHBOURS = 10
BLOCK = 512
LIST_FACTORS = (1, 2, 5, 10)
TOP_SHARES = (0.001, 0.01)


def groups(snr: np.ndarray, source_id: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """All spectra, those of stars that no model was trained on, and bins of S/N."""
    yield "all", np.ones(len(snr), dtype=bool)
    yield "acceptance stars", split_of(source_id) == ACCEPTANCE_SPLIT
    for low, high in pairwise(SNR_EDGES):
        yield f"S/N {low:.0f}-{high:.0f}" if np.isfinite(high) else f"S/N >{low:.0f}", (snr >= low) & (snr < high)


def retrieval(space: Space, truth: Truth, pairs: PairTable, seed: int) -> Iterator[Measured]:
    """Whether a normal star's LAMOST spectrum has its own XP among the nearest of all the survey's, and back.

    And how far the labels of the `NEIGHBOURS` nearest XP spectra of other stars lie from the star's own.
    """
    seen = truth.spectra(pairs.lrs_spec_id)
    normal = np.flatnonzero((seen >= 0) & (truth.seen[np.maximum(seen, 0)] == ""))
    everyone, first = np.unique(pairs.xp_row[seen >= 0], return_index=True)
    owners = pairs.source_id[seen >= 0][first]
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(normal, min(MAX_QUERIES, len(normal)), replace=False)) if len(normal) else normal
    candidates = space.index(XP).vectors(everyone)
    rank, near = _ranks(space.index(LRS).vectors(pairs.lrs_row[chosen]), candidates, pairs.source_id[chosen], owners)
    snr = truth.snr[seen[chosen]]
    for name, inside in groups(snr, pairs.source_id[chosen]):
        yield share("retrieval LRS to XP, R@1", name, rank[inside] < 1)
        yield share("retrieval LRS to XP, R@10", name, rank[inside] < 10)
    own = truth.stars(pairs.source_id[chosen])
    others = truth.stars(owners[near])
    for label, unit in (("true_teff", "K"), ("true_feh", "dex")):
        values = truth.numbers[label]
        apart = np.abs(np.median(values[others], axis=1) - values[own])
        for name, inside in groups(snr, pairs.source_id[chosen]):
            yield middle(f"neighbours' median {label[5:]} off by [{unit}]", name, apart[inside])


def _ranks(
    query: np.ndarray, candidates: np.ndarray, star: np.ndarray, owners: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How many candidates are at least as near as the star's own, and the nearest of other stars."""
    order = np.argsort(owners, kind="stable")
    own = order[np.searchsorted(owners, star, sorter=order)]
    rank = np.empty(len(query), np.int64)
    count = min(NEIGHBOURS, max(len(candidates) - 1, 1))
    near = np.empty((len(query), count), np.int64)
    for start in range(0, len(query), BLOCK):
        rows = slice(start, start + BLOCK)
        cosine = query[rows] @ candidates.T
        line = np.arange(len(cosine))
        rank[rows] = (cosine >= cosine[line, own[rows]][:, None]).sum(axis=1) - 1
        cosine[line, own[rows]] = -np.inf
        near[rows] = np.argpartition(-cosine, count - 1, axis=1)[:, :count]
    return rank, near


def translation(truth: Truth, pairs: PairTable) -> Iterator[Measured]:
    """Translation errors of normal pairs, both ways."""
    seen = truth.spectra(pairs.lrs_spec_id)
    normal = np.flatnonzero((seen >= 0) & (truth.seen[np.maximum(seen, 0)] == ""))
    snr = truth.snr[seen[normal]]
    named = (("lrs_l1", "LRS from XP, mean |residual|"), ("xp_l1", "XP from LRS, mean |residual|"),
             ("lrs_chi2", "LRS from XP, chi2"), ("xp_chi2", "XP from LRS, chi2"))  # fmt: skip
    for column, text in named:
        for name, inside in groups(snr, pairs.source_id[normal]):
            yield middle(f"translation {text}", name, pairs.values[column][normal][inside])


def metal_poor(space: Space, truth: Truth, below: float) -> Iterator[Measured]:
    """Completeness and purity of the metal-poor list at several lengths, among the survey's stars.

    The search knows no label of a simulated star: `truth` holds them under names of its own.
    """
    scores = score_stars(space, below)
    row = truth.stars(scores.stars.source_id)
    here = row >= 0
    poor = truth.numbers["true_feh"][row[here]] < below
    probability, feh = scores.probability[here], scores.feh[here]
    order = np.lexsort((row[here], np.nan_to_num(feh, nan=9.0), -np.nan_to_num(probability, nan=-1.0)))
    total = int(poor.sum())
    for factor in LIST_FACTORS:
        length = min(factor * total, len(order))
        listed = np.zeros(len(order), dtype=bool)
        listed[order[:length]] = True
        group = f"first {length} ({factor} x as many as there are)"
        yield share(f"[Fe/H] < {below:g} completeness", group, listed[poor])
        yield share(f"[Fe/H] < {below:g} purity", group, poor[order[:length]])


def strangeness(
    truth: Truth, obsid: np.ndarray, score: np.ndarray, source_id: np.ndarray, seed: int
) -> Iterator[Measured]:
    """How well scores tell odd spectra from normal ones, by class and kind, and what scores must not follow."""
    row = truth.spectra(obsid)
    obsid, score, source_id, row = (values[row >= 0] for values in (obsid, score, source_id, row))
    seen, snr = truth.seen[row], truth.snr[row]
    kinds = np.array([ODDITIES.get(name, "") for name in seen], dtype=object)
    classes = [("any oddity", seen != "")]
    classes += [(kind, kinds == kind) for kind in dict.fromkeys(ODDITIES.values())]
    classes += [(name, seen == name) for name in ODDITIES]
    classes += [(f"any oddity, {n}", (seen != "") & m) for n, m in groups(snr, source_id) if n.startswith("S/N")]
    for name, positive in classes:
        if not positive.any():
            continue
        judged = positive | (seen == "")
        yield ranked("anomaly average precision", name, score[judged], positive[judged], seed)
        for part in TOP_SHARES:
            # the list of this class and the normal ones: other classes do not push it down
            limit = _limit(score[judged], part)
            yield share(f"anomaly recall in top {part:.1%}", name, score[positive] >= limit)
    normal = seen == ""
    star = truth.stars(source_id)
    covariates = {"S/N": snr, "|RV|": np.abs(truth.numbers["true_rv"][star]), "E(B-V)": truth.numbers["ebv"][star]}
    for name, values in covariates.items():
        yield rank_correlation(f"anomaly score's rank correlation with {name}", "normal", score[normal], values[normal])


def _limit(score: np.ndarray, part: float) -> float:
    """Score of the last one that stands within the top share of the list, at least one."""
    length = max(round(part * len(score)), 1)
    return float(np.partition(score, len(score) - length)[len(score) - length])
