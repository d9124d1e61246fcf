"""Quality of an index: recall against exact search, and the gain from centring.

Recall is measured separately for ordinary queries, queries from the other instrument, and rare
spectra.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq

from specclip_search.atlas import Atlas

from ..search.exact import Block, exact_top_k
from ..search.index import VectorIndex
from ..vectors.float16 import to_single
from ..vectors.keys import NO_SOURCE, KeyTable
from ..vectors.means import centre, centred, compute_mean
from ..vectors.table import VectorTable
from .costs import group_size

LOW_SNR = 15.0
METAL_POOR = -2.0
DENSITY_SAMPLE = 10_000
RARE_DENSITY = 0.01


@dataclass(frozen=True, slots=True)
class QueryGroup:
    """A group of queries.

    Attributes
    ----------
    name
        Name of the group.
    queries
        (Q, dim) float32, centred.
    exclude
        (Q, 1) int64 row of the query itself in the index, -1 if it is from another instrument.
    """

    name: str
    queries: np.ndarray
    exclude: np.ndarray

    def __len__(self) -> int:
        return len(self.queries)

    def part(self, chosen: slice) -> QueryGroup:
        return QueryGroup(self.name, self.queries[chosen], self.exclude[chosen])


def query_groups(index: VectorIndex, size: int, seed: int) -> list[QueryGroup]:
    """Random queries of every group present in the atlas, at most `size` of each."""
    rng = np.random.default_rng([seed, 41])
    groups = [_own_rows(index, "in-instrument", np.arange(index.rows), size, rng)]
    groups += [_other_rows(index, other, size, rng) for other in other_modalities(index)]
    if index.kind == "ivfpq":
        groups.append(_own_rows(index, "lowest 1 % in density", _sparse_rows(index, rng), size, rng))
    groups.append(_own_rows(index, f"[Fe/H] < {METAL_POOR:g}", metal_poor_rows(index), size, rng))
    groups.append(_own_rows(index, f"S/N < {LOW_SNR:g}", low_snr_rows(index), size, rng))
    return [group for group in groups if len(group)]


def other_modalities(index: VectorIndex) -> list[str]:
    """Other modalities with vectors from the same weights."""
    folder = index.atlas.path / "vectors" / index.model
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name != index.modality)
    return [name for name in names if index.atlas.vectors(index.model, name).exists
            and VectorTable(index.atlas, index.model, name).model_digest == index.model_digest]


def _own_rows(index: VectorIndex, name: str, rows: np.ndarray, size: int, rng: np.random.Generator) -> QueryGroup:
    chosen = np.sort(rng.choice(rows, min(size, len(rows)), replace=False)) if len(rows) else np.empty(0, np.int64)
    return QueryGroup(name, index.vectors(chosen), chosen[:, None].astype(np.int64))


def _other_rows(index: VectorIndex, other: str, size: int, rng: np.random.Generator) -> QueryGroup:
    """Random vectors of another instrument, from a few row groups to limit reading."""
    table = VectorTable(index.atlas, index.model, other)
    chosen = np.sort(rng.choice(table.rows, min(size, table.rows), replace=False))
    queries = index.centred(table.read_rows(chosen), other)
    return QueryGroup(f"cross-instrument, from {other}", queries, np.full((len(queries), 1), -1, np.int64))


def _sparse_rows(index: VectorIndex, rng: np.random.Generator) -> np.ndarray:
    """The 1 % of a random sample whose tenth neighbour is least similar."""
    sample = np.sort(rng.choice(index.rows, min(DENSITY_SAMPLE, index.rows), replace=False))
    tenth = np.empty(len(sample), np.float32)
    for start in range(0, len(sample), 1024):
        rows = sample[start : start + 1024]
        found = index.search(index.vectors(rows), 11, query_modality=index.modality, centred=True)
        tenth[start : start + len(rows)] = found.similarity[:, -1]
    # a vector without ten neighbours counts as the sparsest
    order = np.argsort(np.nan_to_num(tenth, nan=-1.0), kind="stable")
    return sample[order[: max(1, int(RARE_DENSITY * len(sample)))]]


def metal_poor_rows(index: VectorIndex) -> np.ndarray:
    """Rows of stars with [Fe/H] < -2 in any catalogue."""
    atlas = index.atlas
    found: list[np.ndarray] = []
    for name in atlas.catalogs():
        for part in atlas.catalog(name).parts():
            names = set(pq.read_schema(part.path).names)
            if {"source_id", "feh"} <= names:
                columns = pq.ParquetFile(part.path).read(columns=["source_id", "feh"])
                poor = columns.column("feh").to_numpy() < METAL_POOR
                found.append(columns.column("source_id").fill_null(NO_SOURCE).to_numpy()[poor])
    if not found:
        return np.empty(0, np.int64)
    rows, _ = index.keys.rows_of_sources(np.unique(np.concatenate(found)))
    return np.unique(rows)


def low_snr_rows(index: VectorIndex) -> np.ndarray:
    """Rows of spectra with S/N below 15."""
    noisy: list[np.ndarray] = []
    for part in index.atlas.spectra(index.modality).parts():
        columns = pq.ParquetFile(part.path).read(columns=["spec_id", "snr"])
        noisy.append(columns.column("spec_id").to_numpy()[columns.column("snr").to_numpy() < LOW_SNR])
    if not noisy:
        return np.empty(0, np.int64)
    rows, _ = index.keys.all_rows_of(np.unique(np.concatenate(noisy)))
    return np.unique(rows)


def same_star_pairs(atlas: Atlas, model: str, here: KeyTable, other: str, size: int,
                    seed: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Random rows of another instrument and, for each, this index's rows of the same star."""
    there = KeyTable.open(atlas, model, other)
    known = np.nonzero(np.asarray(there.source_id) != NO_SOURCE)[0]
    paired = known[np.isin(there.source_id[known], here.source_id)]
    if not len(paired):
        return np.empty(0, np.int64), []
    rng = np.random.default_rng([seed, 43])
    chosen = np.sort(rng.choice(paired, min(size, len(paired)), replace=False))
    rows, owner = here.rows_of_sources(there.source_id[chosen])
    return chosen, [rows[owner == number] for number in range(len(chosen))]


DEPTH = 100


@dataclass(frozen=True, slots=True)
class Recall:
    """Measured recall of one query group: the fraction of the true nearest neighbours found.

    Attributes
    ----------
    group
        Name of the query group.
    at_10, at_100
        Mean fraction of the exact 10 and 100 nearest neighbours that the search returns.
    queries
        Number of queries.
    """

    group: str
    at_10: float
    at_100: float
    queries: int


@dataclass(frozen=True, slots=True)
class CentringGain:
    """Retrieval of a star's counterpart from another instrument's spectrum, with and without centring.

    Attributes
    ----------
    modality
        Instrument of the queries.
    with_centring, without
        Fraction of queries whose own star ranks first, and among the first ten.
    pairs, gallery
        Number of queries, and of vectors searched.
    """

    modality: str
    with_centring: tuple[float, float]
    without: tuple[float, float]
    pairs: int
    gallery: int


def exact_truth(index: VectorIndex, groups: list[QueryGroup], k: int = DEPTH) -> list[np.ndarray]:
    """For each group the (Q, k) nearest rows by exact search, excluding the query itself; one pass over all rows."""
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
    """Mean fraction of the true rows (Q, k), padded with -1, that are among the found rows (Q, m)."""
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
    """Fraction of queries with a target among the first 1 and 10 results."""
    found, _ = exact_top_k(queries, blocks, 10)
    hits = [np.isin(rows, own) for rows, own in zip(found, targets, strict=True)]
    return float(np.mean([hit[0] for hit in hits])), float(np.mean([hit.any() for hit in hits]))
