"""The nearest spectra of a spectrum, in its own instrument and in the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from specclip_search.errors import QueryError

from .provenance import stamp
from .space import Space, open_space
from .targets import Target, TargetLike, resolve_targets

if TYPE_CHECKING:
    import pandas as pd

    from specclip_search.atlas import Atlas

MAX_K = 10_000
COMBINE = ("each", "mean", "any")


@dataclass(frozen=True, slots=True)
class Hits:
    """Spectra found for one target in one instrument, most similar first.

    Attributes
    ----------
    modality
        Instrument of the spectra found.
    rows
        (m,) int64 rows of its vectors.
    similarity
        (m,) float32 cosine of the centred shared vectors.
    """

    modality: str
    rows: np.ndarray
    similarity: np.ndarray


def similar(
    atlas: Atlas,
    target: TargetLike | Sequence[TargetLike],
    k: int = 20,
    within: str | None = None,
    where: str | None = None,
    exact: bool = False,
    model: str | None = None,
    exclude_self: bool = True,
    *,
    exclude_repeats: bool = False,
    combine: str = "each",
) -> pd.DataFrame:
    """Spectra most similar to a target.

    Similarity is the cosine of the model's shared vectors, each instrument's own mean taken
    away, exact after re-ranking.

    Parameters
    ----------
    atlas
        Atlas with vectors and indexes.
    target
        A key (`lamost:101001`, `lamost:101001@dr7`, `gaia:<source_id>`), a `SpectrumKey`, the path
        of a spectrum file, or a list of these.
    k
        How many spectra to return for each target, 1 to 10,000.
    within
        One instrument (`lamost_lrs` or `gaia_xp`); None or `both` searches both and merges the
        lists by similarity. `rank_in_instrument` keeps the rank in each, because similarities
        across instruments are lower than within one.
    where
        SQL expression on the columns of the view `spectra`, for example ``teff > 4500``; only
        spectra for which it is true are searched.
    exact
        Compare with every spectrum instead of by the index.
    model
        Whose vectors; the atlas's active model by default.
    exclude_self
        Leave the target's own spectrum out.
    exclude_repeats
        Leave out every spectrum of the target's star, in both instruments.
    combine
        With several targets: `each` gives every target its own list (column `target`), `mean`
        searches with the mean of their vectors, `any` ranks by the similarity to the nearest of them.

    Returns
    -------
    pandas.DataFrame
        rank, modality, spec_id, source_id, similarity, rank_in_instrument, other_spec_id (the same
        star's spectrum of the other instrument), release, then S/N, position and labels. With
        several targets under `each` a first column `target`; under `any` a column `nearest_target`.
        `.attrs` names model, digests, version and options.

    Raises
    ------
    QueryError
        If a target, instrument, `k`, `where` or `combine` is not usable.
    VectorIndexError
        If the index is missing or stale.
    """
    several = isinstance(target, Sequence) and not isinstance(target, str)
    asked: list[TargetLike] = list(target) if several else [target]  # type: ignore[arg-type,list-item]
    _check(k, combine)
    space = open_space(atlas, model)
    modalities = _modalities(space, within)
    targets = resolve_targets(space, asked)
    allowed = _allowed_rows(space, modalities, where)
    if several and combine != "each":
        tables = [_combined(space, targets, modalities, k, combine, allowed, exact, exclude_self, exclude_repeats)]
    else:
        lists = search_targets(space, targets, k, modalities, allowed, exact, exclude_self, exclude_repeats)
        tables = [
            _table(space, hits, k, {"target": one.name} if several else {})
            for one, hits in zip(targets, lists, strict=True)
        ]
    frame = _annotated(atlas, pa.concat_tables(tables), space.model)
    options = {
        "target": [one.name for one in targets],
        "k": k,
        "within": within,
        "where": where,
        "exact": exact,
        "exclude_self": exclude_self,
        "exclude_repeats": exclude_repeats,
        "combine": combine,
    }
    return stamp(frame, "similar", options, **space.origin())


def search_hits(
    atlas: Atlas, target: TargetLike, k: int = 20, within: str | None = None, model: str | None = None
) -> list[tuple[str, int, int | None, int, float]]:
    """The light core of `similar`, for SQL: (modality, spec_id, source_id, rank, similarity) a hit."""
    _check(k, "each")
    space = open_space(atlas, model)
    modalities = _modalities(space, within)
    hits = search_targets(space, resolve_targets(space, [target]), k, modalities)[0]
    table = _table(space, hits, k, {})
    columns = (table[name].to_pylist() for name in ("modality", "spec_id", "source_id", "rank", "similarity"))
    return list(zip(*columns, strict=True))


def search_targets(
    space: Space,
    targets: Sequence[Target],
    k: int,
    modalities: Sequence[str],
    allowed: dict[str, np.ndarray] | None = None,
    exact: bool = False,
    exclude_self: bool = True,
    exclude_repeats: bool = False,
) -> list[list[Hits]]:
    """For each target its hits in each of `modalities`; targets of one instrument are searched as one batch."""
    results: list[list[Hits]] = [[] for _ in targets]
    for modality in modalities:
        left_out = [_left_out(space, one, modality, exclude_self, exclude_repeats) for one in targets]
        for source, centred in sorted({(one.modality, one.centred) for one in targets}):
            members = [i for i, one in enumerate(targets) if (one.modality, one.centred) == (source, centred)]
            found = space.index(modality).search(
                np.stack([targets[i].vector for i in members]),
                k,
                query_modality=source,
                exact=exact,
                centred=centred,
                rows=None if allowed is None else allowed[modality],
                exclude=[left_out[i] for i in members],
            )
            for i, rows, similarity in zip(members, found.rows, found.similarity, strict=True):
                results[i].append(Hits(modality, rows[rows >= 0], similarity[rows >= 0]))
    return results


def _check(k: int, combine: str) -> None:
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= MAX_K:
        raise QueryError(f"k must be a whole number from 1 to {MAX_K:,}; found {k!r}.", "Choose k in this range.")
    if combine not in COMBINE:
        raise QueryError(f"combine must be one of {', '.join(COMBINE)}; found '{combine}'.", "Choose one of these.")


def _modalities(space: Space, within: str | None) -> list[str]:
    if within is None or within == "both":
        return list(space.modalities)
    return [space.require(within)]


def _left_out(space: Space, target: Target, modality: str, exclude_self: bool, exclude_repeats: bool) -> np.ndarray:
    """Rows of `modality` that may not be returned for this target."""
    rows = np.empty(0, np.int64)
    if exclude_self and target.row is not None and target.modality == modality:
        rows = np.array([target.row], dtype=np.int64)
    if exclude_repeats:
        keys = space.keys(modality)
        if target.source_id is not None:
            rows = np.union1d(rows, keys.rows_of_sources(np.array([target.source_id], dtype=np.int64))[0])
        if target.row is not None and target.modality == modality:
            rows = np.union1d(rows, keys.repeats_of(np.array([target.row]))[0])
    return rows


def _allowed_rows(space: Space, modalities: Sequence[str], where: str | None) -> dict[str, np.ndarray] | None:
    if where is None:
        return None
    from .sql import connect
    from .stars import where_to_keys

    with connect(space.atlas) as connection:
        return {name: _rows_of_keys(space, name, where_to_keys(connection, where, name)) for name in modalities}


def _rows_of_keys(space: Space, modality: str, keys: pa.Table) -> np.ndarray:
    """Rows of (release, spec_id) keys; spectra that have no vector yet give none."""
    table = space.keys(modality)
    spec_id = keys["spec_id"].to_numpy()
    rows, queries = table.all_rows_of(spec_id)
    number = {name: code for code, name in enumerate(table.releases)}
    wanted = np.array([number.get(name, -1) for name in keys["release"].to_pylist()], dtype=np.int64)
    return np.unique(rows[table.release[rows] == wanted[queries]])


def _table(space: Space, hits: Sequence[Hits], k: int, constants: dict[str, Any]) -> pa.Table:
    """Hits of all instruments merged by similarity, at most k rows."""
    similarity = np.concatenate([one.similarity for one in hits])
    # equal similarities keep the instruments' order: the same command gives the same list
    order = np.argsort(-similarity, kind="stable")[:k]
    columns = {
        name: np.concatenate([np.asarray(part) for part in parts])[order]
        for name, parts in _key_columns(space, hits).items()
    }
    size = len(order)
    unknown = columns["source_id"] < 0
    other = columns["other_spec_id"]
    return pa.table(
        {
            **{name: pa.array([value] * size, pa.string()) for name, value in constants.items()},
            "rank": pa.array(np.arange(1, size + 1), pa.int64()),
            "modality": pa.array(columns["modality"], pa.string()),
            "spec_id": pa.array(columns["spec_id"], pa.int64()),
            "source_id": pa.array(columns["source_id"], pa.int64(), mask=unknown),
            "similarity": pa.array(similarity[order], pa.float32()),
            "rank_in_instrument": pa.array(columns["rank_in_instrument"], pa.int64()),
            "other_spec_id": pa.array(other, pa.int64(), mask=other < 0),
            "release": pa.array(columns["release"], pa.string()),
        }
    )


def _key_columns(space: Space, hits: Sequence[Hits]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {
        name: [] for name in ("modality", "spec_id", "source_id", "rank_in_instrument", "other_spec_id", "release")
    }
    for one in hits:
        keys = space.keys(one.modality)
        source_id = np.asarray(keys.source_id[one.rows])
        columns["modality"].append(np.full(len(one.rows), one.modality, dtype=object))
        columns["spec_id"].append(np.asarray(keys.spec_id[one.rows]))
        columns["source_id"].append(source_id)
        columns["rank_in_instrument"].append(np.arange(1, len(one.rows) + 1))
        columns["other_spec_id"].append(counterpart_ids(space, one.modality, source_id))
        columns["release"].append(np.array(keys.release_names(one.rows), dtype=object))
    return columns


def counterpart_ids(space: Space, modality: str, source_id: np.ndarray) -> np.ndarray:
    """(N,) spec_id of the same stars' newest spectrum in the other instrument, -1 where there is none."""
    result = np.full(len(source_id), -1, dtype=np.int64)
    other = space.other(modality)
    if other is None or len(source_id) == 0:
        return result
    keys = space.keys(other)
    rows, queries = keys.rows_of_sources(source_id)
    # rows of the newest release are written last and stay
    order = np.lexsort((-rows, keys.release[rows]))
    result[queries[order]] = keys.spec_id[rows[order]]
    return result


def _combined(
    space: Space,
    targets: list[Target],
    modalities: list[str],
    k: int,
    combine: str,
    allowed: dict[str, np.ndarray] | None,
    exact: bool,
    exclude_self: bool,
    exclude_repeats: bool,
) -> pa.Table:
    """One list for several targets."""
    spare = len(targets) * (4 if exclude_repeats else 1)
    searched = [_mean_target(space, targets)] if combine == "mean" else targets
    lists = search_targets(space, searched, min(k + spare, MAX_K), modalities, allowed, exact, False)
    merged, nearest = [], []
    for number, modality in enumerate(modalities):
        rows = np.concatenate([hits[number].rows for hits in lists])
        similarity = np.concatenate([hits[number].similarity for hits in lists])
        owner = np.repeat(np.arange(len(lists)), [len(hits[number].rows) for hits in lists])
        left_out = [_left_out(space, one, modality, exclude_self, exclude_repeats) for one in targets]
        keep = ~np.isin(rows, np.concatenate(left_out))
        order = np.lexsort((owner, -similarity))
        order = order[keep[order]]
        _, first = np.unique(rows[order], return_index=True)
        chosen = order[np.sort(first)][:k]
        merged.append(Hits(modality, rows[chosen], similarity[chosen]))
        nearest.append(owner[chosen])
    table = _table(space, merged, k, {})
    if combine == "mean":
        return table
    order = np.argsort(-np.concatenate([hits.similarity for hits in merged]), kind="stable")[:k]
    names = [targets[i].name for i in np.concatenate(nearest)[order]]
    return table.append_column("nearest_target", pa.array(names, pa.string()))


def _mean_target(space: Space, targets: list[Target]) -> Target:
    """One target whose centred vector is the mean of the targets' centred unit vectors."""
    from indexing.means import centre

    centred = [centre(one.vector[None], space.mean(one.modality))[0] for one in targets]
    mean = np.mean(centred, axis=0)
    length = float(np.linalg.norm(mean))
    if length < 1e-3:
        raise QueryError(
            f"The {len(targets)} targets point in opposite directions: their mean vector is zero.",
            "Search with each of them, or with combine='any'.",
        )
    return Target(f"mean of {len(targets)}", targets[0].modality, (mean / length).astype(np.float32), centred=True)


def _annotated(atlas: Atlas, table: pa.Table, model: str) -> pd.DataFrame:
    from .sql import connect
    from .stars import annotate

    with connect(atlas) as connection:
        return to_frame(annotate(connection, table))


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Arrow to pandas with ids kept whole: int64, or pandas' nullable Int64 where some are unknown."""
    import pandas as pd

    frame = table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    for name in frame.columns:
        if frame[name].dtype == "Int64" and not frame[name].isna().any():
            frame[name] = frame[name].astype("int64")
    return frame
