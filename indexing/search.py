"""Searching an index: candidates from the inverted lists, re-ranked exactly; or exact at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from specclip_search.atlas import Atlas
from specclip_search.errors import QueryError, VectorIndexError

from .exact import exact_top_k, in_slices
from .keytable import KeyTable
from .layout import FAISS_FILE, STORE, Generation, current_generation
from .lists import InvertedLists
from .means import centre, ensure_mean, load_mean, read_mean
from .rowset import RowSet, exclusion_lists
from .store import VectorStore
from .vectors import VectorTable

MAX_K = 10_000
EXACT_BELOW_SELECTIVITY = 0.01
EXACT_BELOW_ROWS = 2_000
CACHED_FLAT_BYTES = 1 << 29
MIN_CANDIDATES = 100
UNIT_TOLERANCE = 0.02

Strategy = Literal["flat", "ivfpq", "exact", "exact subset"]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Answers of one search.

    Attributes
    ----------
    rows
        (Q, k) int64, best first; -1 where there are fewer than k answers.
    similarity
        (Q, k) float32: cosine of the centred vectors; NaN where `rows` is -1.
    strategy
        How the answer was found; all but `ivfpq` are exact.
    """

    rows: np.ndarray
    similarity: np.ndarray
    strategy: Strategy


class VectorIndex:
    """An opened index of one modality's vectors; make it with `VectorIndex.open`."""

    def __init__(self, atlas: Atlas, model: str, modality: str, generation: Generation) -> None:
        self.atlas = atlas
        self.model = model
        self.modality = modality
        self.folder = generation.folder
        self.manifest = generation.manifest
        self.rows = int(self.manifest["rows"])
        self.dim = int(self.manifest["dim"])
        self.store = VectorStore(self.folder / STORE, self.rows, self.dim)
        self.lists = InvertedLists.load(self.folder / FAISS_FILE) if self.kind == "ivfpq" else None
        self._means: dict[str, np.ndarray] = {modality: _own_mean(self.folder, modality)}

    @classmethod
    def open(cls, atlas: Atlas, model: str | None = None, modality: str = "gaia_xp", *,
             allow_older: bool = False) -> VectorIndex:
        """Open the index in use.

        Parameters
        ----------
        model
            Name of the model whose vectors are indexed; None for the atlas's active one.
        allow_older
            Open an index that lacks vectors added after it was built. Vectors changed or removed
            since then are refused all the same.

        Raises
        ------
        VectorIndexError
            If there is no index, or it was built from other vectors than the atlas holds now.
        """
        name = atlas.require_model(model)
        generation = current_generation(atlas, name, modality)
        table = VectorTable(atlas, name, modality)
        if generation is None:
            raise VectorIndexError(f"There is no index of the {modality} vectors of '{name}' in {atlas.path}.",
                                   "Run `specclip-search index build`.")
        _refuse_other_vectors(generation.manifest, table, allow_older)
        return cls(atlas, name, modality, generation)

    @property
    def kind(self) -> str:
        """`flat` or `ivfpq`."""
        return str(self.manifest["recipe"]["kind"])

    @property
    def digest(self) -> str:
        """Digest of the vectors this index was built from; results name it."""
        return str(self.manifest["vectors_digest"])

    @property
    def model_digest(self) -> str:
        """Digest of the weights that made the vectors."""
        return str(self.manifest["model_digest"])

    @cached_property
    def keys(self) -> KeyTable:
        """Keys of the indexed rows."""
        return KeyTable.load(self.folder, self.modality)

    # -- vectors ----------------------------------------------------------------------------

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Centred unit vectors of `rows`, (n, dim) float32: what similarities are computed from."""
        return self.store.take(self._checked_rows(rows))

    def raw_vectors(self, rows: np.ndarray) -> np.ndarray:
        """Vectors of `rows` as the model gave them, (n, dim) float32, read from the shards."""
        return VectorTable(self.atlas, self.model, self.modality).read_rows(self._checked_rows(rows))

    def centred(self, vectors: np.ndarray, modality: str) -> np.ndarray:
        """Raw unit vectors (N, dim) of `modality`, minus that modality's mean, of unit length again."""
        return centre(vectors, self.mean_of(modality))

    def mean_of(self, modality: str) -> np.ndarray:
        """Mean of a modality: as kept, else computed; without any vectors of it, this index's own."""
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
            (Q, dim) float32 unit vectors as the model gives them; one (dim,) vector is a batch of one.
        k
            1 to 10,000.
        query_modality
            Modality the queries come from: its mean is subtracted.
        rows
            Search only these: int64 row numbers, or a boolean array over all rows.
        exclude
            Rows never to answer a query with: (Q, E) int64 padded with -1, or a list of arrays.
        exact
            Compare with every vector instead of the nearest lists only.
        centred
            The queries are centred already (as `vectors` returns them).
        model_digest
            Digest of the model that made the queries; refused where the index has another.
        nprobe, rerank
            Lists searched and candidates a wanted answer, instead of the tuned ones.

        Raises
        ------
        QueryError
            If k, the filter or the queries are not usable.
        VectorIndexError
            If the queries come from another model.
        """
        queries = self._checked_queries(vectors, k, model_digest)
        if not centred:
            queries = self.centred(queries, query_modality)
        allowed = None if rows is None else RowSet.of(rows, self.rows)
        banned = exclusion_lists(exclude, len(queries))
        most_banned = max((len(b) for b in banned), default=0) if banned is not None else 0
        strategy = self._strategy(allowed, k, exact)
        if strategy == "ivfpq":
            assert self.lists is not None
            depth = max(math.ceil((rerank or self.tuned_rerank) * k), MIN_CANDIDATES) + most_banned
            probes = self._probes(nprobe or self.tuned_nprobe, depth, allowed)
            candidates = self.lists.candidates(queries, depth, probes, allowed)
            answer = self._reranked(queries, candidates, banned, k)
            return self._completed(queries, answer, k, allowed, banned, most_banned)
        found, similarity = self._exact(queries, k + most_banned, allowed)
        return _result(*_without(found, similarity, banned, k), strategy)

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
        """Lists to search: more under a filter, and enough to hold the candidates asked for."""
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
                ids = ids[~np.isin(ids, banned[number])]
            scores = self.store.take(ids) @ query
            best = _best(scores, k)
            rows[number, : len(best)] = ids[best]
            similarity[number, : len(best)] = scores[best]
        return rows, similarity

    def _completed(self, queries: np.ndarray, answer: tuple[np.ndarray, np.ndarray], k: int, allowed: RowSet | None,
                   banned: list[np.ndarray] | None, most_banned: int) -> SearchResult:
        """Queries that the lists could not fill are answered exactly."""
        rows, similarity = answer
        available = (self.rows if allowed is None else allowed.count) - most_banned
        short = np.nonzero((rows >= 0).sum(axis=1) < min(k, available))[0]
        if len(short):
            found, scores = self._exact(queries[short], k + most_banned, allowed)
            chosen = None if banned is None else [banned[number] for number in short]
            rows[short], similarity[short] = _without(found, scores, chosen, k)
        return _result(rows, similarity, "ivfpq")

    def _exact(self, queries: np.ndarray, k: int, allowed: RowSet | None) -> tuple[np.ndarray, np.ndarray]:
        if allowed is not None and allowed.count < self.rows:
            return exact_top_k(queries, self.store.blocks_of(allowed.rows), k)
        if self._in_memory is not None:
            return exact_top_k(queries, in_slices(self._in_memory), k)
        return exact_top_k(queries, self.store.blocks(), k)

    @cached_property
    def _in_memory(self) -> np.ndarray | None:
        """All vectors in float32 where a flat index is small enough to be kept so."""
        if self.kind != "flat" or self.rows * self.dim * 4 > CACHED_FLAT_BYTES:
            return None
        return np.concatenate([self.store.take(rows) for rows, _ in self.store.blocks()])

    # -- checks -----------------------------------------------------------------------------

    def _checked_rows(self, rows: np.ndarray) -> np.ndarray:
        wanted = np.asarray(rows, np.int64).reshape(-1)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= self.rows):
            raise QueryError(f"Rows must lie between 0 and {self.rows - 1}; found {wanted.min()} to {wanted.max()}.",
                             "Take rows from a search or from the key table of this index.")
        return wanted

    def _checked_queries(self, vectors: np.ndarray, k: int, model_digest: str | None) -> np.ndarray:
        if model_digest is not None and model_digest != self.model_digest:
            raise VectorIndexError(
                f"The index holds vectors of model {self.model_digest[:19]}; the queries come from "
                f"{model_digest[:19]}. Vectors of different models cannot be compared.",
                "Embed the queries with the atlas's own model, or embed the atlas with the new one.",
            )
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= MAX_K:
            raise QueryError(f"k must be a whole number from 1 to {MAX_K}; found {k!r}.", "Ask for fewer neighbours.")
        queries = np.atleast_2d(np.asarray(vectors, np.float32))
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise VectorIndexError(f"Queries must be (Q, {self.dim}) vectors; found {np.shape(vectors)}.",
                                   "Embed them with the model the index was built for.")
        lengths = np.linalg.norm(queries, axis=1)
        wrong = np.nonzero(~(np.abs(lengths - 1) <= UNIT_TOLERANCE))[0]
        if len(wrong):
            raise QueryError(f"Queries must be unit vectors; number {wrong[0]} has length {lengths[wrong[0]]:.3g}.",
                             "Use Model.embed, which returns vectors of unit length.")
        return queries


def _own_mean(folder: Any, modality: str) -> np.ndarray:
    mean = read_mean(folder, modality)
    if mean is None:
        raise VectorIndexError(f"The index in {folder} lacks its mean vector, or it is damaged.",
                               "Run `specclip-search index build`.")
    return mean.vector


def _refuse_other_vectors(manifest: dict[str, Any], table: VectorTable, allow_older: bool) -> None:
    if manifest["vectors_digest"] == table.digest:
        return
    indexed = list(zip(manifest["parts"]["numbers"], manifest["parts"]["digests"], strict=True))
    present = [(part.number, part.digest) for part in table.parts]
    only_grown = present[: len(indexed)] == indexed
    if allow_older and only_grown:
        return
    what = f"it lacks {table.rows - manifest['rows']} vectors added since" if only_grown else "its vectors have changed"
    raise VectorIndexError(
        f"The {table.modality} index of '{table.model}' does not belong to the vectors there: expected "
        f"{table.digest[:19]} ({table.rows} vectors), found {manifest['vectors_digest'][:19]} "
        f"({manifest['rows']} vectors); {what}.",
        "Run `specclip-search index build`.",
    )


def _best(scores: np.ndarray, k: int) -> np.ndarray:
    """Places of the k largest, best first, equals in their order."""
    if len(scores) <= k:
        return np.argsort(-scores, kind="stable")
    cut = np.partition(scores, len(scores) - k)[len(scores) - k]
    places = np.nonzero(scores >= cut)[0]
    return places[np.argsort(-scores[places], kind="stable")][:k]


def _without(rows: np.ndarray, similarity: np.ndarray, banned: list[np.ndarray] | None,
             k: int) -> tuple[np.ndarray, np.ndarray]:
    """The first k answers that are not banned."""
    if banned is None:
        return rows[:, :k], similarity[:, :k]
    out_rows = np.full((len(rows), k), -1, np.int64)
    out = np.full((len(rows), k), -np.inf, np.float32)
    for number, ban in enumerate(banned):
        keep = np.nonzero(~np.isin(rows[number], ban))[0][:k]
        out_rows[number, : len(keep)] = rows[number, keep]
        out[number, : len(keep)] = similarity[number, keep]
    return out_rows, out


def _result(rows: np.ndarray, similarity: np.ndarray, strategy: Strategy) -> SearchResult:
    # rounding may lift a cosine just above one
    clipped = np.where(rows < 0, np.float32(np.nan), np.minimum(similarity, np.float32(1)))
    return SearchResult(rows, clipped.astype(np.float32), strategy)
