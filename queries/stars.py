"""What the atlas knows of the spectra that a search found, and which spectra a condition admits."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from specclip_search.errors import QueryError

from .label_sources import label_joins
from .star_views import LRS, finite, linked_source_id, spectra_fields, spectra_sql
from .view_files import read_parquet_sql

if TYPE_CHECKING:
    from .sql import AtlasConnection

# so many ids stand in a statement as numbers, by which row groups are skipped; more become a table to join
_LITERALS = 5000


def annotate(connection: AtlasConnection, hits: pa.Table) -> pa.Table:
    """Append what is known of spectra.

    Parameters
    ----------
    connection
        From `queries.sql.connect`.
    hits
        Rows with columns modality, release, spec_id, in any order; more columns are kept.

    Returns
    -------
    pa.Table
        The same rows in the same order, with those of source_id, ra, dec, snr, simulated, the
        labels and label_source that `hits` has not; null where nothing is known. Fields carry
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
    """Fields of the spectra of one instrument among `keys`, by their `number`."""
    mine = keys.filter(pa.array(np.asarray(keys["modality"].to_pylist(), dtype=object) == modality))
    views = connection.views
    star, links = linked_source_id(views.catalogues) if modality == LRS else ("s.source_id", "")
    admitted = _admitted(mine["spec_id"])
    connection.duckdb.register("_wanted", mine)
    files = read_parquet_sql(views.spectra_files[modality])
    chosen = f"release, spec_id, source_id, ra, dec, {finite('snr')} AS snr, simulated"
    base = connection.rows(
        f"SELECT w.number, {star} AS source_id, s.* EXCLUDE (source_id) "
        f"FROM (SELECT {chosen} FROM {files} WHERE spec_id {admitted}) s {links} "
        "JOIN _wanted w ON w.spec_id = s.spec_id AND w.release = s.release"
    )
    base = _first_of_each(base)
    connection.duckdb.unregister("_wanted")
    connection.duckdb.register("_base", base)
    only = {
        "source_id": f"AND source_id {_admitted(base['source_id'])}",
        "obsid": f"AND obsid {_admitted(base['spec_id'])}",
    }
    wanted = {field.name for field in fields}
    joins = label_joins(
        views.catalogues,
        "s.source_id",
        "CASE WHEN NOT s.simulated THEN s.spec_id END" if modality == LRS else None,
        wanted,
        only,
    )
    expressions = {
        "label_source": joins.source,
        "source_id": "s.source_id",
        "snr": "s.snr",
        "simulated": "s.simulated",
        "ra": "s.ra",
        "dec": "s.dec",
        **joins.label,
        **{name: f"coalesce(s.{name}, {others})" for name, others in joins.position.items()},
    }
    chosen = ", ".join(f"{expressions.get(field.name, 'NULL')} AS {field.name}" for field in fields)
    result = connection.rows(f"SELECT s.number{', ' + chosen if chosen else ''} FROM _base s {joins.sql}")
    connection.duckdb.unregister("_base")
    return result


def _first_of_each(table: pa.Table) -> pa.Table:
    _, first = np.unique(table["number"].to_numpy(), return_index=True)
    return table.take(pa.array(first))


def _admitted(ids: pa.ChunkedArray) -> str:
    """`IN (...)`, of numbers where they are few, else of nothing in particular."""
    values = np.unique(ids.drop_null().to_numpy())
    if len(values) == 0:
        return "IN (NULL)"
    if len(values) > _LITERALS:
        return f"BETWEEN {values[0]} AND {values[-1]}"
    return f"IN ({', '.join(map(str, values.tolist()))})"


def where_to_keys(connection: AtlasConnection, where: str, modality: str) -> pa.Table:
    """Keys of the spectra of one instrument for which a condition is true.

    Parameters
    ----------
    connection
        From `queries.sql.connect`.
    where
        One SQL expression on the columns of the view `spectra`, such as
        ``teff > 4500 AND feh < -2``. Only what it names is read.
    modality
        Instrument.

    Returns
    -------
    pa.Table
        release, spec_id.

    Raises
    ------
    QueryError
        If it is not one expression, or names a column that is not there.
    """
    views = connection.views
    if modality not in views.spectra_files:
        raise QueryError(
            f"The atlas holds no {modality} spectra.", f"It holds {', '.join(views.spectra_files) or 'none at all'}."
        )
    columns = [field.name for field in spectra_fields(views.catalogues)]
    named = {name.lower() for name in _column_names(_expression(connection, where, columns))}
    wanted = named & set(columns)
    connection.prepare(where)
    rows = spectra_sql({modality: views.spectra_files[modality]}, views.catalogues, wanted)
    try:
        return connection.rows(f"SELECT release, spec_id FROM ({rows}) spectra WHERE (\n{where}\n)")
    except QueryError as error:
        raise QueryError(
            f"The condition '{where}' cannot be used: {error.message.removeprefix('The statement cannot be run: ')}",
            f"Columns: {', '.join(columns)}.",
        ) from error


def _expression(connection: AtlasConnection, where: str, columns: Sequence[str]) -> dict[str, Any]:
    """The parsed expression, if it is one and nothing else."""
    parsed = json.loads(
        connection.duckdb.execute("SELECT json_serialize_sql(?::VARCHAR)", [f"SELECT (\n{where}\n)"]).fetchall()[0][0]
    )
    whole = (
        where.strip()
        and not parsed["error"]
        and len(parsed["statements"]) == 1
        and _only_selects(parsed["statements"][0]["node"])
    )
    if not whole:
        found = parsed.get("error_message", "more than an expression").splitlines()[0]
        raise QueryError(
            f"A condition must be one SQL expression, such as teff > 4500 AND feh < -2; found '{where}' ({found}).",
            f"Columns: {', '.join(columns)}.",
        )
    return parsed["statements"][0]["node"]["select_list"][0]


def _only_selects(node: dict[str, Any]) -> bool:
    return (
        node.get("type") == "SELECT_NODE"
        and len(node["select_list"]) == 1
        and not node["select_list"][0].get("alias")
        and not node["modifiers"]
        and node["from_table"]["type"] == "EMPTY"
        and node["where_clause"] is None
        and not node["group_expressions"]
        and node["having"] is None
        and node["qualify"] is None
        and not node["cte_map"]["map"]
    )


def _column_names(node: Any) -> Iterator[str]:
    """Last parts of all names of columns in a parsed expression."""
    if isinstance(node, dict):
        if node.get("type") == "COLUMN_REF":
            yield node["column_names"][-1]
        for value in node.values():
            yield from _column_names(value)
    elif isinstance(node, list):
        for value in node:
            yield from _column_names(value)
