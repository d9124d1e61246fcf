"""What an index is worth: recall against exact search, and what centring gains."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .costs import group_size
from ..search.exact import Block, exact_top_k
from ..vectors.float16 import to_single
from ..vectors.means import centre, centred, compute_mean
from ..search.index import VectorIndex
from .strata import QueryGroup, other_modalities, same_star_pairs
from ..vectors.table import VectorTable

DEPTH = 100


@dataclass(frozen=True, slots=True)
class Recall:
    """Measured recall of one kind of query: the share of the true nearest that is found.

    Attributes
    ----------
    group
        Which queries.
    at_10, at_100
        Mean share of the exact 10 and 100 nearest that the search returns.
    queries
        How many were asked.
    """

    group: str
    at_10: float
    at_100: float
    queries: int


@dataclass(frozen=True, slots=True)
class CentringGain:
    """Finding a star's counterpart by another instrument's spectrum, with and without centring.

    Attributes
    ----------
    modality
        Where the queries come from.
    with_centring, without
        Share of queries whose own star is first, and among the first ten.
    pairs, gallery
        Queries, and vectors searched.
    """

    modality: str
    with_centring: tuple[float, float]
    without: tuple[float, float]
    pairs: int
    gallery: int


def exact_truth(index: VectorIndex, groups: list[QueryGroup], k: int = DEPTH) -> list[np.ndarray]:
    """For each group the (Q, k) rows nearest by exact search, the query itself left out; one pass over all rows."""
    queries = np.concatenate([group.queries for group in groups])
    exclude = np.concatenate([group.exclude for group in groups])
    found, _ = index.engine.top_k(queries, index.store.blocks(), k + 1, index.store.take)
    truth = np.full((len(found), k), -1, np.int64)
    for number, rows in enumerate(found):
        kept = rows[(rows != exclude[number, 0]) & (rows >= 0)][:k]
        truth[number, : len(kept)] = kept
    ends = np.cumsum([len(group) for group in groups])
    return np.split(truth, ends[:-1])


def measure_recall(index: VectorIndex, groups: list[QueryGroup], truths: list[np.ndarray]) -> list[Recall]:
    """Recall of the index's own search, as users call it, for each group."""
    measured = []
    for group, truth in zip(groups, truths, strict=True):
        shares = []
        for k in (10, DEPTH):
            found = index.search(group.queries, k, query_modality=index.modality, exclude=group.exclude, centred=True)
            shares.append(recall_of(found.rows, truth[:, :k]))
        measured.append(Recall(group.name, shares[0], shares[1], len(group)))
    return measured


def recall_of(found: np.ndarray, truth: np.ndarray) -> float:
    """Mean share of the true rows (Q, k), -1 where there are fewer, that are among the found (Q, m)."""
    hits = [np.isin(t[t >= 0], f).mean() for f, t in zip(found, truth, strict=True) if (t >= 0).any()]
    return float(np.mean(hits)) if hits else 1.0


def centring_gain(index: VectorIndex, seed: int) -> list[CentringGain]:
    """R@1 and R@10 of the same star's vector in this index, from every other instrument's vectors."""
    gains = []
    table = VectorTable(index.atlas, index.model, index.modality)
    for other in other_modalities(index):
        chosen, targets = same_star_pairs(index.atlas, index.model, index.keys, other, group_size(index.rows), seed)
        if len(chosen):
            raw = VectorTable(index.atlas, index.model, other).read_rows(chosen)
            if centred(index.atlas, index.model):
                with_it = _found_shares(index.centred(raw, other), index.store.blocks(), targets)
            else:
                own, theirs = (compute_mean(t).vector for t in (table, VectorTable(index.atlas, index.model, other)))
                blocks = ((rows, centre(block, own)) for rows, block in _raw_blocks(table))
                with_it = _found_shares(centre(raw, theirs), blocks, targets)
            without = _found_shares(raw, _raw_blocks(table), targets)
            gains.append(CentringGain(other, with_it, without, len(chosen), index.rows))
    return gains


def _raw_blocks(table: VectorTable) -> Iterable[Block]:
    for first, half in table.batches():
        yield np.arange(first, first + len(half), dtype=np.int64), to_single(half)


def _found_shares(queries: np.ndarray, blocks: Iterable[Block], targets: list[np.ndarray]) -> tuple[float, float]:
    """Share of queries with a target among the first 1 and 10 answers."""
    found, _ = exact_top_k(queries, blocks, 10)
    hits = [np.isin(rows, own) for rows, own in zip(found, targets, strict=True)]
    return float(np.mean([hit[0] for hit in hits])), float(np.mean([hit.any() for hit in hits]))
