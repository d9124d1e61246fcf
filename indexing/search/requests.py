"""What a search refuses, in words, before any work."""

from __future__ import annotations

from typing import Any

import numpy as np

from specclip_search.errors import QueryError, VectorIndexError

from ..vectors.table import VectorTable

MAX_K = 10_000
UNIT_TOLERANCE = 0.02


def checked_rows(rows: np.ndarray, total: int) -> np.ndarray:
    """Row numbers as int64 (n,); a QueryError where one is outside the index."""
    wanted = np.asarray(rows, np.int64).reshape(-1)
    if wanted.size and (wanted.min() < 0 or wanted.max() >= total):
        raise QueryError(f"Rows must lie between 0 and {total - 1}; found {wanted.min()} to {wanted.max()}.",
                         "Take rows from a search or from the key table of this index.")
    return wanted


def checked_queries(vectors: np.ndarray, k: int, dim: int) -> np.ndarray:
    """Queries as (Q, dim) float32 of unit length; refuses other shapes and lengths, and k out of range."""
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
    """A VectorIndexError where queries come from other weights than the index."""
    if asking is not None and asking != indexed:
        raise VectorIndexError(
            f"The index holds vectors of model {indexed[:19]}; the queries come from "
            f"{asking[:19]}. Vectors of different models cannot be compared.",
            "Embed the queries with the atlas's own model, or embed the atlas with the new one.",
        )


def refuse_other_vectors(manifest: dict[str, Any], table: VectorTable, allow_older: bool) -> None:
    """A VectorIndexError where an index was built from other vectors than those there now."""
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
