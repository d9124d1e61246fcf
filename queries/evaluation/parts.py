"""Parts of an evaluation: retrieval, labels of neighbours, translation, metal-poor stars and label estimates.

Estimated labels are compared with the truth, and their errors with the scatter.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from specclip_search.keys import ACCEPTANCE_SPLIT, split_of
from specclip_search.surveys import LRS, XP

from ..anomalies.pair_table import PairTable
from ..emp.scores import score_stars
from ..space.space import Space
from .measures import Measured, middle, rank_correlation, ranked, share
from .truth import Truth

if TYPE_CHECKING:
    import pyarrow as pa

    from ..space.space import Space

SNR_EDGES = (0.0, 20.0, 40.0, 80.0, np.inf)
MAX_QUERIES = 5000
NEIGHBOURS = 10
BLOCK = 128  # queries at once: 100,000 candidates take 50 MB a copy of their cosines
LIST_FACTORS = (1, 2, 5, 10)
LABELS = (("true_teff", "K"), ("true_logg", "dex"), ("true_feh", "dex"), ("true_alpha_fe", "dex"))
GOOD_SNR = 20.0
DISC_FEH = -0.6


def groups(snr: np.ndarray, source_id: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """All spectra, those of stars that no model was trained on, and bins of S/N."""
    yield "all", np.ones(len(snr), dtype=bool)
    yield "acceptance stars", split_of(source_id) == ACCEPTANCE_SPLIT
    for low, high in pairwise(SNR_EDGES):
        yield f"S/N {low:.0f}-{high:.0f}" if np.isfinite(high) else f"S/N >{low:.0f}", (snr >= low) & (snr < high)


def retrieval(space: Space, truth: Truth, pairs: PairTable, seed: int) -> Iterator[Measured]:
    """Retrieval: rank of a normal star's own XP spectrum among all of the survey, from LAMOST, and the reverse.

    Also the difference between the labels of the `NEIGHBOURS` nearest XP spectra and the star's own.
    """
    seen = truth.spectra(pairs.lrs_spec_id)
    normal = np.flatnonzero((seen >= 0) & (truth.seen[np.maximum(seen, 0)] == ""))
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(normal, min(MAX_QUERIES, len(normal)), replace=False)) if len(normal) else normal
    snr, star = truth.snr[seen[chosen]], pairs.source_id[chosen]
    surveyed = np.flatnonzero(seen >= 0)
    sides = {LRS: pairs.lrs_row, XP: pairs.xp_row}
    near_star = np.empty((0, 0), np.int64)
    for asked, answering, text in ((XP, LRS, "XP to LRS"), (LRS, XP, "LRS to XP")):
        everyone, first = np.unique(sides[answering][surveyed], return_index=True)
        owners = pairs.source_id[surveyed][first]
        candidates = space.index(answering).vectors(everyone)
        queries = space.index(asked).vectors(sides[asked][chosen])
        rank, near = _ranks(queries, candidates, star, owners)
        near_star = owners[near]  # of the last iteration: XP neighbours of LAMOST spectra
        for name, inside in groups(snr, star):
            yield share(f"retrieval {text}, R@1", name, rank[inside] < 1)
            yield share(f"retrieval {text}, R@10", name, rank[inside] < 10)
    own, others = truth.stars(star), truth.stars(near_star)
    for label, unit in LABELS:
        values = truth.numbers[label]
        with warnings.catch_warnings():
            # neighbours of another kind have no labels; if all are such, the median is NaN
            warnings.simplefilter("ignore", RuntimeWarning)
            apart = np.abs(np.nanmedian(values[others], axis=1) - values[own])
        for name, inside in groups(snr, star):
            yield middle(f"neighbours' median {label[5:]} off by [{unit}]", name, apart[inside])


def _ranks(
    query: np.ndarray, candidates: np.ndarray, star: np.ndarray, owners: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Number of candidates of other stars at least as near as the nearest own one, and the nearest others."""
    order = np.argsort(owners, kind="stable")
    low, high = (np.searchsorted(owners, star, side=side, sorter=order) for side in ("left", "right"))
    rank = np.empty(len(query), np.int64)
    count = min(NEIGHBOURS, max(len(candidates) - int((high - low).max(initial=1)), 1))
    near = np.empty((len(query), count), np.int64)
    for start in range(0, len(query), BLOCK):
        cosine = query[start : start + BLOCK] @ candidates.T
        for line in range(len(cosine)):
            mine = order[low[start + line] : high[start + line]]
            best = cosine[line, mine].max()
            cosine[line, mine] = -np.inf
            rank[start + line] = np.count_nonzero(cosine[line] >= best)
        near[start : start + BLOCK] = np.argpartition(-cosine, count - 1, axis=1)[:, :count]
    return rank, near


def translation(truth: Truth, pairs: PairTable) -> Iterator[Measured]:
    """Translation errors of normal pairs, in both directions."""
    seen = truth.spectra(pairs.lrs_spec_id)
    normal = np.flatnonzero((seen >= 0) & (truth.seen[np.maximum(seen, 0)] == ""))
    snr = truth.snr[seen[normal]]
    named = (("lrs_l1", "LRS from XP, mean |residual|"), ("xp_l1", "XP from LRS, mean |residual|"),
             ("lrs_chi2", "LRS from XP, chi2"), ("xp_chi2", "XP from LRS, chi2"))  # fmt: skip
    for column, text in named:
        for name, inside in groups(snr, pairs.source_id[normal]):
            yield middle(f"translation {text}", name, pairs.values[column][normal][inside])


def metal_poor(space: Space, truth: Truth, below: float, seed: int) -> Iterator[Measured]:
    """Completeness and purity of the metal-poor list at several lengths, among the survey's stars.

    The search has no access to labels of simulated stars, which are stored in `truth`. Stars
    whose best LAMOST spectrum has S/N above 20 are also reported separately.
    """
    scores = score_stars(space, below)
    row = truth.stars(scores.stars.source_id)
    here = row >= 0
    row, probability, feh = row[here], scores.probability[here], scores.feh[here]
    # rank in the list: by probability, then by the estimate
    order = np.lexsort((row, np.nan_to_num(feh, nan=9.0), -np.nan_to_num(probability, nan=-1.0)))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    true_feh, snr = truth.numbers["true_feh"][row], truth.best_snr()[row]
    poor = true_feh < below
    for name, chosen in (("all", np.ones(len(row), dtype=bool)), (f"S/N >{GOOD_SNR:.0f}", snr > GOOD_SNR)):
        yield from _listed(f"[Fe/H] < {below:g}", name, -place[chosen].astype(np.float64), poor[chosen], seed)
    disc = true_feh > DISC_FEH
    numbers = {"S/N": snr} | {name: values[row] for name, values in truth.covariates().items()}
    for name, values in numbers.items():
        text = f"metal-poor rank's correlation with {name}"
        yield rank_correlation(text, f"[Fe/H] > {DISC_FEH:g}", -place[disc].astype(np.float64), values[disc])


def _listed(what: str, group: str, score: np.ndarray, poor: np.ndarray, seed: int) -> Iterator[Measured]:
    """Average precision, and completeness and purity of the first ones; no two scores are equal."""
    yield ranked(f"{what} average precision", group, score, poor, seed)
    order, total = np.argsort(-score), int(poor.sum())
    for factor in LIST_FACTORS:
        length = min(factor * total, len(order))
        listed = np.zeros(len(order), dtype=bool)
        listed[order[:length]] = True
        name = f"{group}, first {length} ({factor} x as many as there are)"
        yield share(f"{what} completeness", name, listed[poor])
        yield share(f"{what} purity", name, poor[order[:length]])


ESTIMATED = {"teff": "K", "logg": "dex", "feh": "dex", "alpha_fe": "dex", "c_fe": "dex", "rv": "km/s"}
FEH_EDGES = (-5.0, -3.0, -2.0, -1.0, 1.0)
SHORT = {LRS: "LRS", XP: "XP"}


def estimated_labels(space: Space, truth: Truth) -> Iterator[Measured]:
    """Errors of the label estimates of normal spectra in the atlas; nothing if there are none."""
    for modality, short in SHORT.items():
        stage = space.atlas.estimates(modality, space.model)
        if stage.exists:
            columns = ["spec_id", "source_id", *ESTIMATED, *(f"{name}_err" for name in ESTIMATED)]
            yield from label_errors(stage.read(columns), short, truth)


def label_errors(estimates: pa.Table, short: str, truth: Truth) -> Iterator[Measured]:
    """Median difference from the truth and the fraction within the stated error, by true [Fe/H].

    The fraction is 0.683 for correct Gaussian errors.
    """
    source_id = estimates["source_id"].fill_null(-1).to_numpy()
    star = truth.stars(source_id)
    if short == SHORT[LRS]:
        seen = truth.spectra(estimates["spec_id"].to_numpy())
        normal = (seen >= 0) & (truth.seen[np.maximum(seen, 0)] == "")
    else:
        normal = (star >= 0) & np.isin(truth.kind[np.maximum(star, 0)], ("", "instrumental", "identity"))
    rows = np.flatnonzero(normal & (star >= 0))
    feh = truth.numbers["true_feh"][star[rows]]
    accepted = split_of(source_id[rows]) == ACCEPTANCE_SPLIT
    groups = [("all", np.ones(len(rows), dtype=bool)), ("acceptance stars", accepted)]
    groups += [(f"[Fe/H] {low:g} to {high:g}", (feh >= low) & (feh < high)) for low, high in pairwise(FEH_EDGES)]
    for name, unit in ESTIMATED.items():
        value, error = (estimates[c].to_numpy().astype(np.float64)[rows] for c in (name, f"{name}_err"))
        apart = np.abs(value - truth.numbers[f"true_{name}"][star[rows]])
        known = np.isfinite(apart) & np.isfinite(error)
        for group, inside in groups:
            if (known & inside).any():
                yield middle(f"{short} estimate of {name} off by [{unit}]", group, apart[inside])
                yield share(f"{short} {name} within stated error", group, (apart < error)[known & inside])
