"""`similar(target, k)` in SQL: a search as a table function."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from specclip_search.errors import QueryError
from specclip_search.keys import parse_key

from ..similar.similar import search_hits, search_targets
from ..space.made_stars import asks_for_made_star, parse_change
from ..space.space import open_space
from ..space.targets import Target

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas

    from ..views.connection import AtlasConnection

_HIT = 'STRUCT(modality VARCHAR, spec_id BIGINT, source_id BIGINT, "rank" INTEGER, "similarity" FLOAT)[]'

_SIMILAR = (
    'CREATE OR REPLACE MACRO "similar"(target, k := 20, within := NULL, of := NULL) AS TABLE '
    "(SELECT h.* FROM (SELECT unnest(_similar(target::VARCHAR, k::INTEGER, within::VARCHAR, of::VARCHAR)) h))"
)
_NAMES = ("modality", "spec_id", "source_id", "rank", "similarity")


def add_similar(connection: AtlasConnection, atlas: Atlas, files: bool) -> None:
    """Register `similar(target, k, within := ..., of := ...)`.

    Parameters
    ----------
    files
        Whether a target may be the path of a spectrum file.
    """
    import duckdb
    from duckdb.func import FunctionNullHandling

    def similar(target: str | None, k: int | None, within: str | None, of: str | None) -> list[dict[str, Any]] | None:
        if target is None or k is None:
            return None
        try:
            return _hits(atlas, target, k, within, of, files)
        except Exception as error:
            connection.failures.keep(error)
            raise

    text, integer = duckdb.sqltype("VARCHAR"), duckdb.sqltype("INTEGER")
    # declared with side effects so that it does not run at EXPLAIN or while binding a statement
    connection.duckdb.create_function(
        "_similar",
        similar,
        [text, integer, text, text],
        connection.duckdb.type(_HIT),
        side_effects=True,
        null_handling=FunctionNullHandling.SPECIAL,
    )
    connection.duckdb.execute(_SIMILAR)


def _hits(atlas: Atlas, target: str, k: int, within: str | None, of: str | None, files: bool) -> list[dict[str, Any]]:
    if target.startswith("["):
        hits = _by_vector(atlas, target, k, within, of)
    else:
        change = parse_change(target)
        if not files and (change is not None or not asks_for_made_star(target)):
            parse_key((change[0] if change else target).partition("@")[0])
        hits = search_hits(atlas, target, k, within)
    return [dict(zip(_NAMES, hit, strict=True)) for hit in hits]


def _by_vector(atlas: Atlas, target: str, k: int, within: str | None, of: str | None) -> list[tuple[Any, ...]]:
    """Hits of a vector. Its instrument must be known, because the mean of each instrument is subtracted."""
    space = open_space(atlas, None)
    if of is None and len(space.modalities) > 1:
        raise QueryError(
            "similar(vector, k) needs to know the vector's instrument.",
            f"Add of := '{space.modalities[0]}', or one of {', '.join(space.modalities[1:])}.",
        )
    try:
        vector = np.array(json.loads(target), dtype=np.float32)
    except (ValueError, TypeError, RecursionError) as error:
        raise QueryError(
            f"similar(vector, k) needs a list of numbers; found '{target[:60]}{'...' if len(target) > 60 else ''}'.",
            f"Take it from vectors_{of or space.modalities[0]}.",
        ) from error
    modality = space.require(of or space.modalities[0])
    dim = space.index(modality).dim
    length = float(np.linalg.norm(vector))
    if vector.shape != (dim,) or not np.isfinite(length) or length == 0:
        raise QueryError(
            f"similar(vector, k) needs {dim} finite numbers that are not all zero; found {vector.size}.",
            f"Take it from vectors_{modality}.",
        )
    one = Target("vector", modality, vector / length)
    modalities = [space.require(within)] if within not in (None, "both") else list(space.modalities)
    found = search_targets(space, [one], k, modalities)[0]
    hits = []
    for part in found:
        keys = space.keys(part.modality)
        for row, similarity in zip(part.rows, part.similarity, strict=True):
            source_id = int(keys.source_id[row])
            hits.append(
                (part.modality, int(keys.spec_id[row]), source_id if source_id >= 0 else None, float(similarity))
            )
    hits.sort(key=lambda hit: -hit[3])
    return [
        (modality, spec_id, source_id, rank, similarity)
        for rank, (modality, spec_id, source_id, similarity) in enumerate(hits[:k], 1)
    ]
