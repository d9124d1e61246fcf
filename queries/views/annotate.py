"""Annotate search hits with position, S/N and labels."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from specclip_search.indexing.vectors.keys import COMBINED
from specclip_search.surveys import LRS, get_modality

from ..space.lookup import open_lookup
from .label_sources import Catalogue, label_joins
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
    small = _SmallTables(connection)
    base = _base_rows(connection, mine, modality)
    if modality == LRS:
        base = _with_linked_stars(small, base)
    small.ids = {"obsid": base["spec_id"], "source_id": base["source_id"]}
    obsid = "CASE WHEN NOT s.simulated THEN s.spec_id END" if modality == LRS else None
    wanted = {field.name for field in fields}
    joins = label_joins(connection.views.catalogues, "s.source_id", obsid, wanted, small.rows_of)
    expressions = {
        **{name: f"s.{name}" for name in ("source_id", "snr", "simulated", "ra", "dec")},
        "label_source": joins.source,
        **joins.label,
        **{name: f"coalesce(s.{name}, {others})" for name, others in joins.position.items()},
    }
    chosen = ["s.number", *(f"{expressions.get(field.name, 'NULL')} AS {field.name}" for field in fields)]
    with small.registered(base):
        return connection.rows(f"SELECT {', '.join(chosen)} FROM _base s {joins.sql}")


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


def _with_linked_stars(small: _SmallTables, base: pa.Table) -> pa.Table:
    """source_id of LAMOST spectra that have none, from catalogues with their obsid."""
    source_id = base["source_id"].to_pylist()
    simulated = base["simulated"].to_pylist()
    refused: set[int] = set()
    told: list[dict[int, set[int]]] = []
    for source in small.connection.views.catalogues:
        if not {"obsid", "source_id"} <= source.columns:
            continue
        more = ["conflict"] if source.checked else []
        rows = small.fetch(source, "obsid", base["spec_id"], ["source_id", *more])
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


class _SmallTables:
    """The rows of each catalogue for the requested ids, found by lookup instead of a join."""

    def __init__(self, connection: AtlasConnection) -> None:
        self.connection = connection
        self.ids: dict[str, pa.ChunkedArray] = {}
        self._tables: dict[str, pa.Table] = {}

    def fetch(self, source: Catalogue, key: str, ids: pa.ChunkedArray, columns: Sequence[str]) -> pa.Table:
        """All rows of `source` with one of `ids`."""
        lookup = open_lookup(self.connection.views.atlas, f"catalog_{source.name}", source.files, key)
        _, row = lookup.find(np.unique(ids.drop_null().to_numpy()))
        return lookup.take(row, [key, *columns]).replace_schema_metadata(None)

    def rows_of(self, source: Catalogue, key: str, wanted: Collection[str]) -> str:
        """As `Catalogue.by_key`, for the requested ids only; the first row of each."""
        columns = [name for name in (*source.labels, *source.positions) if name in wanted]
        table = self.fetch(source, key, self.ids[key], columns)
        _, first = np.unique(table[key].to_numpy(), return_index=True)
        name = f"_small{len(self._tables)}"
        self._tables[name] = table.take(pa.array(first))
        return name

    @contextmanager
    def registered(self, base: pa.Table) -> Iterator[None]:
        """Register the small tables, and `base` as `_base`."""
        tables = {**self._tables, "_base": base}
        for name, table in tables.items():
            self.connection.duckdb.register(name, table)
        try:
            yield
        finally:
            for name in tables:
                self.connection.duckdb.unregister(name)
