"""Tables of search hits: instruments and targets merged, with estimated labels.

Instruments are merged by rank, because similarities across instruments are lower than within one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from specclip_search.atlas.schemas import described, said_of
from specclip_search.errors import QueryError
from specclip_search.surveys import LRS

from ..space.lookup import open_lookup
from ..space.space import Space
from ..space.targets import Target
from ..views.parquet import fields_of
from ..views.star_estimates import UNLIKE, unlike_training
from .search import MAX_K, Hits, left_out_rows, search_targets

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas

def hits_table(space: Space, hits: Sequence[Hits], k: int, constants: dict[str, Any]) -> pa.Table:
    """Hits of all instruments merged, at most k rows."""
    similarity = np.concatenate([one.similarity for one in hits])
    order = merged_order(hits)[:k]
    columns = {
        name: np.concatenate([np.asarray(part) for part in parts])[order]
        for name, parts in _key_columns(space, hits).items()
    }
    epochs = columns.get("epoch")
    size = len(order)
    unknown = columns["source_id"] < 0
    other = columns["other_spec_id"]
    table = pa.table(
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
            **({} if epochs is None else {"epoch": pa.array(epochs.tolist(), pa.int64())}),
        }
    )
    return table.cast(pa.schema([_FIELDS[name] for name in table.column_names]))


def merged_order(hits: Sequence[Hits]) -> np.ndarray:
    """Order that merges the instruments' hits by rank: the first of each, then the second of each, ...

    Similarities across instruments are lower than within one for any star: sorted by similarity alone, the
    other instrument's hits would come last. Hits of equal rank are sorted by similarity.
    """
    rank = np.concatenate([np.arange(len(one.rows)) for one in hits])
    return np.lexsort((-np.concatenate([one.similarity for one in hits]), rank))


_FIELDS = {
    field.name: field
    for field in (
        described("target", pa.string(), "what was searched with"),
        described("rank", pa.int64(), "place among all found", ucd="meta.number"),
        described("modality", pa.string(), "instrument of the spectrum found", ucd="meta.id;instr"),
        described("spec_id", pa.int64(), "LAMOST obsid or Gaia source_id of what was found", ucd="meta.id;meta.main"),
        described("source_id", pa.int64(), "Gaia source_id of its star; null where unknown", ucd="meta.id"),
        described("similarity", pa.float32(), "cosine of the centred shared vectors"),
        described("rank_in_instrument", pa.int64(), "place among those found in its instrument", ucd="meta.number"),
        described("other_spec_id", pa.int64(), "the same star's spectrum in the other instrument", ucd="meta.id"),
        described("release", pa.string(), "data release of the spectrum found", ucd="meta.version"),
        described("epoch", pa.int64(), "visit or exposure found; null for a combined spectrum", ucd="meta.id"),
    )
}


def _key_columns(space: Space, hits: Sequence[Hits]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {
        name: []
        for name in ("modality", "spec_id", "source_id", "rank_in_instrument", "other_spec_id", "release", "epoch")
    }
    with_epochs = False
    for one in hits:
        keys = space.keys(one.modality)
        source_id = np.asarray(keys.source_id[one.rows])
        columns["modality"].append(np.full(len(one.rows), one.modality, dtype=object))
        columns["spec_id"].append(np.asarray(keys.spec_id[one.rows]))
        columns["source_id"].append(source_id)
        columns["rank_in_instrument"].append(np.arange(1, len(one.rows) + 1))
        columns["other_spec_id"].append(counterpart_ids(space, one.modality, source_id))
        columns["release"].append(np.array(keys.release_names(one.rows), dtype=object))
        single = keys.epoch is not None
        with_epochs |= single
        columns["epoch"].append(np.array(keys.epochs(one.rows) if single else [None] * len(one.rows), dtype=object))
    if not with_epochs:
        del columns["epoch"]
    return columns


def counterpart_ids(space: Space, modality: str, source_id: np.ndarray) -> np.ndarray:
    """(N,) spec_id of the same star's newest spectrum in the other instrument, -1 if there is none."""
    result = np.full(len(source_id), -1, dtype=np.int64)
    other = space.other(modality)
    if other is None or len(source_id) == 0:
        return result
    keys = space.keys(other)
    rows, queries = keys.rows_of_sources(source_id)
    # rows of the newest release are written last, so they win
    order = np.lexsort((-rows, keys.release[rows]))
    result[queries[order]] = keys.spec_id[rows[order]]
    return result


def combined_table(
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
    """Merge the hits of several targets into one list."""
    spare = len(targets) * (4 if exclude_repeats else 1)
    searched = [_mean_target(space, targets)] if combine == "mean" else targets
    lists = search_targets(space, searched, min(k + spare, MAX_K), modalities, allowed, exact, False)
    merged, nearest = [], []
    for number, modality in enumerate(modalities):
        rows = np.concatenate([hits[number].rows for hits in lists])
        similarity = np.concatenate([hits[number].similarity for hits in lists])
        owner = np.repeat(np.arange(len(lists)), [len(hits[number].rows) for hits in lists])
        left_out = [left_out_rows(space, one, modality, exclude_self, exclude_repeats) for one in targets]
        keep = ~np.isin(rows, np.concatenate(left_out))
        order = np.lexsort((owner, -similarity))
        order = order[keep[order]]
        _, first = np.unique(rows[order], return_index=True)
        chosen = order[np.sort(first)][:k]
        merged.append(Hits(modality, rows[chosen], similarity[chosen]))
        nearest.append(owner[chosen])
    table = hits_table(space, merged, k, {})
    if combine == "mean":
        return table
    order = merged_order(merged)[:k]
    names = [targets[i].name for i in np.concatenate(nearest)[order]]
    return table.append_column("nearest_target", pa.array(names, pa.string()))


def _mean_target(space: Space, targets: list[Target]) -> Target:
    """One target whose centred vector is the mean of the targets' centred unit vectors."""
    from specclip_search.indexing.vectors.means import centre

    centred = [centre(one.vector[None], space.mean(one.modality))[0] for one in targets]
    mean = np.mean(centred, axis=0)
    length = float(np.linalg.norm(mean))
    if length < 1e-3:
        raise QueryError(
            f"The {len(targets)} targets point in opposite directions: their mean vector is zero.",
            "Search with each of them, or with combine='any'.",
        )
    return Target(f"mean of {len(targets)}", targets[0].modality, (mean / length).astype(np.float32), centred=True)


COLUMNS = ("teff", "logg", "feh", "feh_err")
SUFFIX = "_estimated"


def with_estimates(atlas: Atlas, model: str, hits: pa.Table) -> pa.Table:
    """Hits with `teff_estimated`, `logg_estimated`, `feh_estimated` and `feh_err_estimated`.

    Parameters
    ----------
    model
        Model of the estimates, the one whose vectors were searched.
    hits
        Rows with modality, spec_id and release.

    Returns
    -------
    pa.Table
        The same rows; the columns are null if a spectrum has no estimate, and absent if the
        atlas has no estimates.
    """
    values: dict[str, np.ndarray] = {name: np.full(hits.num_rows, np.nan, np.float32) for name in COLUMNS}
    fields: dict[str, pa.Field] = {}
    for modality in pc.unique(hits["modality"]).to_pylist():
        files = atlas.estimates(modality, model).paths()
        if not files:
            continue
        fields |= {field.name: field for field in fields_of(files[0]) if field.name in COLUMNS}
        mine = np.flatnonzero(pc.equal(hits["modality"], modality).to_numpy(zero_copy_only=False))
        lookup = open_lookup(atlas, f"estimates-{model}-{modality}", files, "spec_id")
        query, row = lookup.find(hits["spec_id"].to_numpy()[mine])
        found = lookup.take(row, ["release", *COLUMNS])
        place = mine[query]
        asked = hits["release"].take(pa.array(place)).combine_chunks()
        same = pc.equal(found["release"].combine_chunks(), asked).fill_null(False).to_numpy(zero_copy_only=False)
        for name in COLUMNS:
            values[name][place[same]] = found[name].to_numpy()[same]
    for name, field in fields.items():
        said = said_of(field)
        wanted = described(name + SUFFIX, pa.float32(), said["description"], said.get("unit", ""), said.get("ucd", ""))
        hits = hits.append_column(wanted, pa.array(values[name], from_pandas=True))
    return with_unlike(atlas, model, hits)


def with_unlike(atlas: Atlas, model: str, hits: pa.Table) -> pa.Table:
    """Hits with `object_unlike_training` if there are LRS spectra with estimates among them; null for others."""
    mine = np.flatnonzero(pc.equal(hits["modality"], LRS).to_numpy(zero_copy_only=False))
    found = unlike_training(atlas, model, LRS, hits.take(pa.array(mine))) if len(mine) else None
    if found is None:
        return hits
    place = np.full(hits.num_rows, -1, dtype=np.int64)
    place[mine] = np.arange(len(mine))
    return hits.append_column(UNLIKE, found.take(pa.array(place, mask=place < 0)))
