"""Annotate search hits with position, S/N and labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from specclip_search.indexing.vectors.keys import COMBINED
from specclip_search.surveys import LRS, get_modality

from ..space.lookup import open_lookup
from .label_arrays import label_columns
from .label_sources import Catalogue
from .star_views import spectra_fields

if TYPE_CHECKING:
    from .connection import AtlasConnection


def annotate(connection: AtlasConnection, hits: pa.Table) -> pa.Table:
    """Append columns of the atlas to spectra.

    Parameters
    ----------
    connection
        From `specclip_search.queries.views.connection.connect`.
    hits
        Rows with columns modality, release, spec_id, and epoch where single exposures are among them, in any order;
        more columns are kept.

    Returns
    -------
    pa.Table
        The same rows in the same order, with those of source_id, ra, dec, snr, simulated, the
        labels and label_source that are not in `hits`; null if unknown. Fields carry
        unit, description and ucd.
    """
    extra = [field for field in spectra_fields(connection.views.catalogues) if field.name not in hits.column_names]
    number = pa.array(np.arange(hits.num_rows), pa.int64())
    keys = pa.table(
        {
            "number": number,
            "modality": hits["modality"],
            "release": hits["release"],
            "spec_id": hits["spec_id"].cast(pa.int64()),
            **({"epoch": hits["epoch"].cast(pa.int64())} if "epoch" in hits.column_names else {}),
        }
    )
    pieces = [_known(connection, keys, modality, extra) for modality in connection.views.spectra_files]
    schema = pa.schema([pa.field("number", pa.int64()), *extra])
    found = pa.concat_tables([schema.empty_table(), *[piece.cast(schema) for piece in pieces]])
    order = np.full(hits.num_rows, -1, dtype=np.int64)
    order[found["number"].to_numpy()] = np.arange(found.num_rows)
    rows = found.take(pa.array(order, mask=order < 0))
    for field in extra:
        hits = hits.append_column(field, rows[field.name])
    return hits


def _known(connection: AtlasConnection, keys: pa.Table, modality: str, fields: Sequence[pa.Field]) -> pa.Table:
    """Fields of the spectra of one instrument in `keys`, by their `number`."""
    mine = keys.filter(pc.equal(keys["modality"], modality))
    views = connection.views
    base = _base_rows(connection, mine, modality)
    if modality == LRS:
        base = _with_linked_stars(connection, base)
    simulated = base["simulated"]
    observed = np.asarray(simulated.is_valid()) & ~simulated.fill_null(True).to_numpy()
    spectrum = (base["spec_id"].to_numpy(), observed) if modality == LRS else None
    star = (base["source_id"].fill_null(-1).to_numpy(), np.asarray(base["source_id"].is_valid()))

    def fetch(source: Catalogue, key: str, ids: np.ndarray, columns: Sequence[str]) -> pa.Table:
        return _rows_of(connection, source, key, ids, columns)

    found = label_columns(views.catalogues, star, spectrum, {field.name for field in fields}, fetch)
    columns = {"number": base["number"]}
    for field in fields:
        given = base[field.name].combine_chunks() if field.name in _OWN else None
        more = found.get(field.name)
        if given is not None and more is not None:
            given = pc.coalesce(given, more.cast(given.type))
        value = more if given is None else given
        columns[field.name] = pa.nulls(base.num_rows, field.type) if value is None else value
    return pa.table(columns)


# columns of the spectra's own shards
_OWN = ("source_id", "snr", "simulated", "ra", "dec")


def _base_rows(connection: AtlasConnection, mine: pa.Table, modality: str) -> pa.Table:
    """Columns of the requested spectra from their shards; non-finite S/N becomes null."""
    views = connection.views
    lookup = open_lookup(views.atlas, f"spectra_{modality}", views.spectra_files[modality], "spec_id")
    query, row = lookup.find(mine["spec_id"].to_numpy())
    more = ["epoch"] if "epoch" in mine.column_names and get_modality(modality).has_epochs else []
    found = lookup.take(row, ["release", "spec_id", "source_id", "ra", "dec", "snr", "simulated", *more])
    numbers = mine["number"].take(pa.array(query))
    same = pc.equal(found["release"], mine["release"].take(pa.array(query)))
    if more:
        there, asked = (pc.fill_null(one, COMBINED) for one in (found["epoch"], mine["epoch"].take(pa.array(query))))
        same = pc.and_(same, pc.equal(there, asked))
        found = found.drop_columns(["epoch"])
    snr = pc.if_else(pc.is_finite(found["snr"]), found["snr"], pa.scalar(None, pa.float32()))
    found = found.set_column(found.column_names.index("snr"), "snr", snr).append_column("number", numbers).filter(same)
    _, first = np.unique(found["number"].to_numpy(), return_index=True)
    return found.take(pa.array(first)).replace_schema_metadata(None)


def _with_linked_stars(connection: AtlasConnection, base: pa.Table) -> pa.Table:
    """source_id of LAMOST spectra that have none, from catalogues with their obsid."""
    source_id = base["source_id"].to_pylist()
    simulated = base["simulated"].to_pylist()
    refused: set[int] = set()
    told: list[dict[int, set[int]]] = []
    obsids = np.unique(base["spec_id"].to_numpy())
    for source in connection.views.catalogues:
        if not {"obsid", "source_id"} <= source.columns:
            continue
        more = ["conflict"] if source.checked else []
        rows = _rows_of(connection, source, "obsid", obsids, ["source_id", *more])
        if more:
            refused |= set(rows.filter(rows["conflict"])["obsid"].to_pylist())
        links: dict[int, set[int]] = {}
        for obsid, star in zip(rows["obsid"].to_pylist(), rows["source_id"].to_pylist(), strict=True):
            if star is not None:
                links.setdefault(obsid, set()).add(star)
        told.append(links)
    for links in told:
        for i, obsid in enumerate(base["spec_id"].to_pylist()):
            stars = links.get(obsid, set())
            if source_id[i] is None and not simulated[i] and len(stars) == 1 and obsid not in refused:
                source_id[i] = next(iter(stars))
    return base.set_column(base.column_names.index("source_id"), "source_id", pa.array(source_id, pa.int64()))


def _rows_of(
    connection: AtlasConnection, source: Catalogue, key: str, ids: np.ndarray, columns: Sequence[str]
) -> pa.Table:
    """All rows of `source` with one of `ids` (distinct), found by lookup instead of a join."""
    lookup = open_lookup(connection.views.atlas, f"catalog_{source.name}", source.files, key)
    _, row = lookup.find(ids)
    return lookup.take(row, [key, *columns]).replace_schema_metadata(None)
