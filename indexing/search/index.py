"""Search an index: candidates from the inverted lists with exact re-ranking, or exact search.

Results are ordered by similarity, excluded rows are left out and missing ones padded with -1.
Arguments are validated before any work starts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from specclip_search.atlas import Atlas
from specclip_search.atlas.links import star_links
from specclip_search.errors import AtlasError, QueryError, VectorIndexError
from specclip_search.surveys import XP, get_modality

from ..vectors.index_folder import FAISS_FILE, STORE, Generation, check_index_files, current_generation
from ..vectors.keys import KeyTable
from ..vectors.means import centre, ensure_mean, load_mean, read_mean
from ..vectors.table import VectorTable
from .choose_engine import choose_engine
from .engines import DeviceLists, Engine, Held, ProcessorEngine
from .exact import Block, in_slices
from .lists import InvertedLists
from .row_set import RowSet
from .store import SUMS, VectorStore

MAX_K = 10_000
UNIT_TOLERANCE = 0.02


def checked_rows(rows: np.ndarray, total: int) -> np.ndarray:
    """Row numbers as int64 (n,); QueryError if one is outside the index."""
    wanted = np.asarray(rows, np.int64).reshape(-1)
    if wanted.size and (wanted.min() < 0 or wanted.max() >= total):
        raise QueryError(f"Rows must lie between 0 and {total - 1}; found {wanted.min()} to {wanted.max()}.",
                         "Take rows from a search or from the key table of this index.")
    return wanted


def checked_queries(vectors: np.ndarray, k: int, dim: int) -> np.ndarray:
    """Queries as (Q, dim) float32 of unit length; rejects other shapes and lengths, and k out of range."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= MAX_K:
        raise QueryError(f"k must be a whole number from 1 to {MAX_K}; found {k!r}.", "Ask for fewer neighbours.")
    queries = np.atleast_2d(np.asarray(vectors, np.float32))
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise VectorIndexError(f"Queries must be (Q, {dim}) vectors; found {np.shape(vectors)}.",
                               "Embed them with the model the index was built for.")
    lengths = np.linalg.norm(queries, axis=1)
    wrong = np.nonzero(~(np.abs(lengths - 1) <= UNIT_TOLERANCE))[0]
    if len(wrong):
        raise QueryError(f"Queries must be unit vectors; number {wrong[0]} has length {lengths[wrong[0]]:.3g}.",
                         "Use Model.embed, which returns vectors of unit length.")
    return queries


def refuse_other_model(indexed: str, asking: str | None) -> None:
    """Raise VectorIndexError if queries come from other weights than the index."""
    if asking is not None and asking != indexed:
        raise VectorIndexError(
            f"The index holds vectors of model {indexed[:19]}; the queries come from "
            f"{asking[:19]}. Vectors of different models cannot be compared.",
            "Embed the queries with the atlas's own model, or embed the atlas with the new one.",
        )


def refuse_other_vectors(manifest: dict[str, Any], table: VectorTable, allow_older: bool) -> None:
    """Raise VectorIndexError if an index was built from other vectors than the current ones."""
    if manifest["vectors_digest"] == table.digest:
        return
    indexed = list(zip(manifest["parts"]["numbers"], manifest["parts"]["digests"], strict=True))
    present = [(part.number, part.digest) for part in table.parts]
    only_grown = present[: len(indexed)] == indexed
    if allow_older and only_grown:
        return
    what = f"it lacks {table.rows - manifest['rows']} vectors added since" if only_grown else "its vectors have changed"
    raise VectorIndexError(
        f"The {table.modality} index of '{table.model}' does not match the current vectors: expected "
        f"{table.digest[:19]} ({table.rows} vectors), found {manifest['vectors_digest'][:19]} "
        f"({manifest['rows']} vectors); {what}.",
        "Run `specclip-search index build`.",
    )


def exclusion_lists(exclude: Sequence[np.ndarray] | np.ndarray | None, queries: int) -> list[np.ndarray] | None:
    """For each query the distinct rows to exclude; None if there are none at all.

    Raises
    ------
    QueryError
        If the number of entries differs from the number of queries.
    """
    if exclude is None:
        return None
    if len(exclude) != queries:
        raise QueryError(f"`exclude` must have one entry for each of {queries} queries; found {len(exclude)}.",
                         "Give an empty array for a query without exclusions.")
    if isinstance(exclude, np.ndarray) and exclude.ndim == 2:
        # all at once: a call of np.unique a query would cost as much as searching
        rows = np.sort(exclude.astype(np.int64, copy=False), axis=1)
        kept = rows >= 0
        kept[:, 1:] &= rows[:, 1:] != rows[:, :-1]
        return [row[keep] for row, keep in zip(rows, kept, strict=True)]
    lists = [np.unique(np.asarray(entry, np.int64).reshape(-1)) for entry in exclude]
    return [entry[entry >= 0] for entry in lists]


Strategy = Literal["flat", "ivfpq", "exact", "exact subset"]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Results of one search.

    Attributes
    ----------
    rows
        (Q, k) int64, best first; padded with -1.
    similarity
        (Q, k) float32: cosine of the centred vectors; NaN where `rows` is -1.
    strategy
        Search method used; all but `ivfpq` are exact.
    """

    rows: np.ndarray
    similarity: np.ndarray
    strategy: Strategy


def best_places(scores: np.ndarray, k: int) -> np.ndarray:
    """Positions of the k largest, best first, ties in original order."""
    if len(scores) <= k:
        return np.argsort(-scores, kind="stable")
    cut = np.partition(scores, len(scores) - k)[len(scores) - k]
    places = np.nonzero(scores >= cut)[0]
    return places[np.argsort(-scores[places], kind="stable")][:k]


def without(rows: np.ndarray, similarity: np.ndarray, banned: list[np.ndarray] | None,
            k: int) -> tuple[np.ndarray, np.ndarray]:
    """The first k results that are not excluded."""
    if banned is None:
        return rows[:, :k], similarity[:, :k]
    out_rows = np.full((len(rows), k), -1, np.int64)
    out = np.full((len(rows), k), -np.inf, np.float32)
    for number, ban in enumerate(banned):
        keep = np.nonzero(~np.isin(rows[number], ban))[0][:k]
        out_rows[number, : len(keep)] = rows[number, keep]
        out[number, : len(keep)] = similarity[number, keep]
    return out_rows, out


def without_some(ids: np.ndarray, banned: np.ndarray) -> np.ndarray:
    """Sorted distinct ids without some others, sorted as well; far faster than `np.isin` for a few."""
    if len(ids) == 0:
        return ids
    place = np.minimum(np.searchsorted(ids, banned), len(ids) - 1)
    hit = ids[place] == banned
    return np.delete(ids, place[hit]) if hit.any() else ids


def as_result(rows: np.ndarray, similarity: np.ndarray, strategy: Strategy) -> SearchResult:
    # rounding may push a cosine slightly above one
    clipped = np.where(rows < 0, np.float32(np.nan), np.minimum(similarity, np.float32(1)))
    return SearchResult(rows, clipped.astype(np.float32), strategy)


EXACT_BELOW_SELECTIVITY = 0.01
EXACT_BELOW_ROWS = 2_000
CACHED_FLAT_BYTES = 1 << 29
MIN_CANDIDATES = 100
DEVICE_BLOCK_ROWS = 131_072


class VectorIndex:
    """An open index of one modality's vectors; create it with `VectorIndex.open`."""

    def __init__(self, atlas: Atlas, model: str, modality: str, generation: Generation,
                 engine: Engine | None = None, table: VectorTable | None = None) -> None:
        self.atlas = atlas
        self._table = table
        self.model = model
        self.modality = modality
        self.engine = engine or ProcessorEngine()
        self.folder = generation.folder
        self.manifest = generation.manifest
        self.rows = int(self.manifest["rows"])
        self.dim = int(self.manifest["dim"])
        check_index_files(self.folder, [FAISS_FILE, SUMS, f"{modality}.npy", f"{modality}.json"])
        self.store = VectorStore(self.folder / STORE, self.rows, self.dim)
        self._means: dict[str, np.ndarray] = {modality: _own_mean(self.folder, modality)}

    @classmethod
    def open(cls, atlas: Atlas, model: str | None = None, modality: str = XP, *,
             allow_older: bool = False, device: str = "cpu", table: VectorTable | None = None) -> VectorIndex:
        """Open the index in use.

        Parameters
        ----------
        model
            Name of the model whose vectors are indexed; None for the atlas's active one.
        allow_older
            Also open an index that lacks vectors added after it was built. An index whose vectors
            were changed or removed is still refused.
        device
            Where searches run: `cpu`, `cuda`, or `auto` for a GPU if available. A GPU build of
            FAISS also searches the lists there; with torch alone only exact search runs there.
        table
            The vectors, where they are open already.

        Raises
        ------
        VectorIndexError
            If there is no index, or it was built from other vectors than the atlas holds now.
        """
        table = table or VectorTable(atlas, atlas.require_model(model), modality)
        name = table.model
        engine = choose_engine(device)
        while True:
            generation = current_generation(atlas, name, modality)
            if generation is None:
                raise VectorIndexError(f"There is no index of the {modality} vectors of '{name}' in {atlas.path}.",
                                       "Run `specclip-search index build`.")
            refuse_other_vectors(generation.manifest, table, allow_older)
            try:
                return cls(atlas, name, modality, generation, engine, table)
            except (OSError, VectorIndexError):
                # a concurrent build may just have replaced the index
                now = current_generation(atlas, name, modality)
                if now is None or now.folder == generation.folder:
                    raise

    @property
    def kind(self) -> str:
        """`flat` or `ivfpq`."""
        return str(self.manifest["recipe"]["kind"])

    @property
    def digest(self) -> str:
        """Digest of the vectors this index was built from; recorded in results."""
        return str(self.manifest["vectors_digest"])

    @property
    def how(self) -> dict[str, Any]:
        """Build and search settings of this index; with the vectors' digest they determine its results."""
        recipe = self.manifest["recipe"]
        said = {"recipe": str(recipe.get("factory") or recipe["kind"]), "seed": int(self.manifest.get("seed", 0))}
        return said | dict(self.manifest.get("search", {}))

    @property
    def model_digest(self) -> str:
        """Digest of the weights that produced the vectors."""
        return str(self.manifest["model_digest"])

    @cached_property
    def keys(self) -> KeyTable:
        """Keys of the indexed rows."""
        links = star_links(self.atlas, get_modality(self.modality).link_column)
        return KeyTable.load(self.folder, self.modality).linked(links)

    @cached_property
    def lists(self) -> InvertedLists | None:
        """The lists of an IVF-PQ index, loaded by the first search: who only asks for vectors needs no FAISS."""
        return InvertedLists.load(self.folder / FAISS_FILE) if self.kind == "ivfpq" else None

    # -- vectors ----------------------------------------------------------------------------

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Centred unit vectors of `rows`, (n, dim) float32, from which similarities are computed."""
        return self.store.take(checked_rows(rows, self.rows))

    def raw_vectors(self, rows: np.ndarray) -> np.ndarray:
        """Raw model vectors of `rows`, (n, dim) float32, read from the shards."""
        table = self._table or VectorTable(self.atlas, self.model, self.modality)
        return table.read_rows(checked_rows(rows, self.rows))

    def centred(self, vectors: np.ndarray, modality: str) -> np.ndarray:
        """Raw unit vectors (N, dim) of `modality` minus that modality's mean, renormalised to unit length."""
        return centre(vectors, self.mean_of(modality))

    def mean_of(self, modality: str) -> np.ndarray:
        """Mean of a modality: stored or computed; if it has no vectors, the mean of this index."""
        if modality not in self._means:
            kept = load_mean(self.atlas, self.model, modality)
            if kept is None and self.atlas.vectors(self.model, modality).exists:
                kept = ensure_mean(self.atlas, self.model, modality)
            self._means[modality] = self._means[self.modality] if kept is None else kept.vector
        return self._means[modality]

    # -- search -----------------------------------------------------------------------------

    def search(self, vectors: np.ndarray, k: int, *, query_modality: str, rows: np.ndarray | None = None,
               exclude: Sequence[np.ndarray] | np.ndarray | None = None, exact: bool = False,
               centred: bool = False, model_digest: str | None = None, nprobe: int | None = None,
               rerank: float | None = None) -> SearchResult:
        """The k most similar indexed vectors of each query.

        Parameters
        ----------
        vectors
            (Q, dim) float32 unit vectors from the model; one (dim,) vector is a batch of one.
        k
            1 to 10,000.
        query_modality
            Modality the queries come from: its mean is subtracted.
        rows
            Search only these: int64 row numbers, or a boolean array over all rows.
        exclude
            Rows to exclude for each query: (Q, E) int64 padded with -1, or a list of arrays.
        exact
            Compare with every vector instead of the nearest lists only.
        centred
            Whether the queries are already centred (as `vectors` returns them).
        model_digest
            Digest of the model that produced the queries; it must match that of the index.
        nprobe, rerank
            Lists searched and candidates per requested result, instead of the tuned values.

        Raises
        ------
        QueryError
            If k, the filter or the queries are invalid.
        VectorIndexError
            If the queries come from another model.
        """
        queries = checked_queries(vectors, k, self.dim)
        refuse_other_model(self.model_digest, model_digest)
        if not centred:
            queries = self.centred(queries, query_modality)
        allowed = None if rows is None else RowSet.of(rows, self.rows)
        banned = exclusion_lists(exclude, len(queries))
        most_banned = max((len(b) for b in banned), default=0) if banned is not None else 0
        strategy = self._strategy(allowed, k, exact)
        if strategy == "ivfpq":
            depth = max(math.ceil((rerank or self.tuned_rerank) * k), MIN_CANDIDATES) + most_banned
            probes = self._probes(nprobe or self.tuned_nprobe, depth, allowed)
            candidates = self._candidates(queries, depth, probes, allowed)
            answer = self._reranked(queries, candidates, banned, k)
            return self._completed(queries, answer, k, allowed, banned, most_banned)
        found, similarity = self._exact(queries, k + most_banned, allowed)
        return as_result(*without(found, similarity, banned, k), strategy)

    def _candidates(self, queries: np.ndarray, depth: int, probes: int, allowed: RowSet | None) -> np.ndarray:
        """Rows nearest by code, from a device that holds the lists if there is one; it does not support filters."""
        assert self.lists is not None
        held = self._device_lists
        if held is not None and allowed is None and held.fits(depth, probes):
            return held.candidates(self.lists.project(queries), depth, probes)
        return self.lists.candidates(queries, depth, probes, allowed)

    @cached_property
    def _device_lists(self) -> DeviceLists | None:
        return None if self.lists is None else self.engine.device_lists(self.lists)

    @property
    def tuned_nprobe(self) -> int:
        return int(self.manifest["search"]["nprobe"])

    @property
    def tuned_rerank(self) -> float:
        return float(self.manifest["search"]["rerank"])

    def _strategy(self, allowed: RowSet | None, k: int, exact: bool) -> Strategy:
        if allowed is not None and (allowed.count <= max(EXACT_BELOW_ROWS, EXACT_BELOW_SELECTIVITY * self.rows, 2 * k)):
            return "exact subset"
        if self.kind == "flat":
            return "flat"
        return "exact" if exact or 2 * k >= self.rows else "ivfpq"

    def _probes(self, nprobe: int, depth: int, allowed: RowSet | None) -> int:
        """Number of lists to search: more with a filter, and enough to hold the requested candidates."""
        share = 1.0 if allowed is None else allowed.count / self.rows
        wider = 1 if share > 0.3 else 2 if share > 0.05 else 4
        nlist = int(self.manifest["recipe"]["nlist"])
        filling = math.ceil(3 * depth * nlist / max(self.rows * share, 1))
        return min(nlist, max(nprobe * wider, filling))

    def _reranked(self, queries: np.ndarray, candidates: np.ndarray, banned: list[np.ndarray] | None,
                  k: int) -> tuple[np.ndarray, np.ndarray]:
        rows = np.full((len(queries), k), -1, np.int64)
        similarity = np.full((len(queries), k), -np.inf, np.float32)
        for number, query in enumerate(queries):
            ids = np.sort(candidates[number])
            ids = ids[np.searchsorted(ids, 0) :]
            if banned is not None and len(banned[number]):
                ids = without_some(ids, banned[number])
            scores = self.store.scores(ids, query)
            best = best_places(scores, k)
            rows[number, : len(best)] = ids[best]
            similarity[number, : len(best)] = scores[best]
        return rows, similarity

    def _completed(self, queries: np.ndarray, answer: tuple[np.ndarray, np.ndarray], k: int, allowed: RowSet | None,
                   banned: list[np.ndarray] | None, most_banned: int) -> SearchResult:
        """Search exactly for queries whose lists gave too few results."""
        rows, similarity = answer
        available = (self.rows if allowed is None else allowed.count) - most_banned
        short = np.nonzero((rows >= 0).sum(axis=1) < min(k, available))[0]
        if len(short):
            found, scores = self._exact(queries[short], k + most_banned, allowed)
            chosen = None if banned is None else [banned[number] for number in short]
            rows[short], similarity[short] = without(found, scores, chosen, k)
        return as_result(rows, similarity, "ivfpq")

    def _exact(self, queries: np.ndarray, k: int, allowed: RowSet | None) -> tuple[np.ndarray, np.ndarray]:
        return self.engine.top_k(queries, self._blocks(allowed), k, self.store.take)

    def _blocks(self, allowed: RowSet | None) -> Iterable[Block]:
        if allowed is not None and allowed.count < self.rows:
            return self.store.blocks_of(allowed.rows)
        if self._on_device is not None:
            return self._on_device
        return self.store.blocks() if self._in_memory is None else in_slices(self._in_memory)

    @cached_property
    def _on_device(self) -> Held | None:
        """All vectors on the engine's device, if it has one and they fit."""
        return self.engine.resident(self.store.blocks(DEVICE_BLOCK_ROWS), 2 * self.rows * self.dim)

    @cached_property
    def _in_memory(self) -> np.ndarray | None:
        """All vectors in float32 if a flat index is small enough to be held in memory."""
        if self.kind != "flat" or self.rows * self.dim * 4 > CACHED_FLAT_BYTES:
            return None
        return np.concatenate([self.store.take(rows) for rows, _ in self.store.blocks()])


def _own_mean(folder: Path, modality: str) -> np.ndarray:
    try:
        mean = read_mean(folder, modality)
    except AtlasError:
        mean = None
    if mean is None:
        raise VectorIndexError(f"The index in {folder} lacks its mean vector, or it is damaged.",
                               "Run `specclip-search index build --fresh`.")
    return mean.vector
