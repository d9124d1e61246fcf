"""Tuning: how many lists to search and candidates to re-rank for a target recall."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from specclip_search.atlas import Atlas
from specclip_search.atlas.files import writer_lock
from specclip_search.errors import VectorIndexError
from specclip_search.surveys import XP

from ..search.index import MIN_CANDIDATES, VectorIndex
from ..vectors.index_folder import Generation, rewrite_manifest
from .costs import group_size
from .recall import DEPTH, QueryGroup, Recall, exact_truth, measure_recall, query_groups

RERANKS = (1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
_SCAN_SECONDS = 40e-9
_LIST_SECONDS = 0.3e-6
_RERANK_SECONDS = 0.8e-6


@dataclass(frozen=True, slots=True)
class Tuning:
    """Chosen search settings and the lowest recall of any group of the tuning sample.

    Attributes
    ----------
    nprobe
        Inverted lists searched.
    rerank
        Candidates re-ranked per requested result.
    recall
        Smallest of recall@10 and recall@100 over the groups tuned on.
    reached
        Whether it is at least the target recall.
    """

    nprobe: int
    rerank: float
    recall: float
    reached: bool


@dataclass(frozen=True, slots=True)
class TuneReport:
    """Result of `tune_index`.

    Attributes
    ----------
    modality, wished
        Instrument of the index, and the target recall.
    before, after
        (nprobe, rerank) before and after tuning.
    reached
        Whether the target was reached on the tuning sample.
    recall
        Measured on queries not used for tuning.
    """

    modality: str
    wished: float
    before: tuple[int, float]
    after: tuple[int, float]
    reached: bool
    recall: list[Recall]


def choose_settings(index: VectorIndex, groups: list[QueryGroup], truths: list[np.ndarray], wished: float) -> Tuning:
    """The cheapest settings, by the measured cost relations, whose recall reaches `wished` in every group.

    Re-ranking is exact, so the recall of a search is the fraction of true neighbours among its candidates:
    one pass per number of lists, at the largest depth, gives the recall at all depths.
    """
    assert index.lists is not None
    nlist = int(index.manifest["recipe"]["nlist"])
    probes = [p for p in (2**i for i in range(2, 15)) if p < nlist] + [nlist]
    best: tuple[float, Tuning] | None = None
    fallback = Tuning(probes[-1], RERANKS[-1], 0.0, False)
    for nprobe in probes:
        if best is not None and _cost(index, nprobe, RERANKS[0]) >= best[0]:
            break
        places = [_places(index.lists.candidates(g.queries, int(RERANKS[-1] * DEPTH) + 1, nprobe), t)
                  for g, t in zip(groups, truths, strict=True)]
        for rerank in RERANKS:
            recall = _worst_recall(places, truths, rerank)
            if recall > fallback.recall:
                fallback = Tuning(nprobe, rerank, recall, False)
            cost = _cost(index, nprobe, rerank)
            if recall >= wished and (best is None or cost < best[0]):
                best = (cost, Tuning(nprobe, rerank, recall, True))
    return best[1] if best is not None else fallback


def _places(candidates: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Position of every true row (Q, k) among the candidates (Q, depth), a huge number if absent."""
    places = np.full(truth.shape, np.iinfo(np.int64).max)
    for number, (found, true) in enumerate(zip(candidates, truth, strict=True)):
        order = np.argsort(found, kind="stable")
        at = np.minimum(np.searchsorted(found, true, sorter=order), len(found) - 1)
        hit = (found[order[at]] == true) & (true >= 0)
        places[number, hit] = order[at[hit]]
    return places


def _worst_recall(places: list[np.ndarray], truths: list[np.ndarray], rerank: float) -> float:
    shares = []
    for place, truth in zip(places, truths, strict=True):
        for k in (10, DEPTH):
            depth = max(int(np.ceil(rerank * k)), MIN_CANDIDATES) + 1
            known = np.maximum((truth[:, :k] >= 0).sum(axis=1), 1)
            shares.append(float(((place[:, :k] < depth).sum(axis=1) / known).mean()))
    return min(shares)


def _cost(index: VectorIndex, nprobe: int, rerank: float) -> float:
    """Seconds of one search for 100 neighbours."""
    scanned = nprobe * index.rows / int(index.manifest["recipe"]["nlist"])
    return nprobe * _LIST_SECONDS + scanned * _SCAN_SECONDS + rerank * DEPTH * _RERANK_SECONDS


def split_halves(groups: list[QueryGroup], truths: list[np.ndarray],
                 ) -> tuple[tuple[list[QueryGroup], list[np.ndarray]], tuple[list[QueryGroup], list[np.ndarray]]]:
    """Every other query for tuning, the rest for the reported recall."""
    tuning = ([g.part(slice(0, None, 2)) for g in groups], [t[0::2] for t in truths])
    reported = ([g.part(slice(1, None, 2)) for g in groups], [t[1::2] for t in truths])
    keep = [number for number, group in enumerate(reported[0]) if len(group)]
    return tuning, ([reported[0][n] for n in keep], [reported[1][n] for n in keep])


def tune_index(atlas: Atlas, model: str | None = None, modality: str = XP, *, recall: float = 0.99,
               seed: int = 0, device: str | None = None) -> TuneReport:
    """Find and save the cheapest search settings that reach `recall`, measured against exact search.

    Raises
    ------
    VectorIndexError
        If the index is flat (its recall is 1 already) or `recall` is not between 0 and 1.
    """
    if not 0 < recall <= 1:
        raise VectorIndexError(f"The target recall must lie between 0 and 1; found {recall}.", "Use 0.99, for example.")
    index = VectorIndex.open(atlas, model, modality, device=device or "auto")
    if index.kind != "ivfpq":
        raise VectorIndexError(f"The {modality} index is {index.kind}: it is exact, so there is nothing to tune.",
                               "Use `index build --recipe ivfpq` for a compressed index.")
    groups = query_groups(index, group_size(index.rows), seed)
    tuning, reported = split_halves(groups, exact_truth(index, groups))
    chosen = choose_settings(index, *tuning, recall)
    before = (index.tuned_nprobe, index.tuned_rerank)
    with writer_lock(index.folder.parent):
        changes = {"search": {"nprobe": chosen.nprobe, "rerank": chosen.rerank, "wished_recall": recall}}
        generation = rewrite_manifest(Generation(index.folder, index.manifest), changes)
        tuned = VectorIndex(atlas, index.model, modality, generation)
        measured = measure_recall(tuned, *reported)
        rewrite_manifest(generation, {"recall": recall_rows(measured)})
    return TuneReport(modality, recall, before, (chosen.nprobe, chosen.rerank), chosen.reached, measured)


def recall_rows(measured: list[Recall]) -> list[dict[str, str | float | int]]:
    """Recall as stored in `index.toml`."""
    return [{"group": r.group, "at_10": round(r.at_10, 5), "at_100": round(r.at_100, 5), "queries": r.queries}
            for r in measured]
