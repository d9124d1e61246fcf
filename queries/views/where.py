"""Which spectra a condition in SQL admits."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from specclip_search.errors import QueryError

from .kept_columns import ROW, kept_columns
from .star_fields import spectra_fields
from .star_views import spectra_sql

if TYPE_CHECKING:
    from .connection import AtlasConnection


def where_to_keys(connection: AtlasConnection, where: str, modality: str) -> pa.Table:
    """Keys of the spectra of one instrument for which a condition is true.

    Parameters
    ----------
    connection
        From `specclip_search.queries.views.connection.connect`.
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
    admitted = admitted_spectra(connection, where, modality)
    return admitted if isinstance(admitted, pa.Table) else admitted.keys()


@dataclass(frozen=True)
class AdmittedRows:
    """Spectra that a condition admits, by their rows among kept columns.

    Attributes
    ----------
    kept
        From `specclip_search.queries.views.kept_columns.kept_columns`; holds release and spec_id at least.
    rows
        int32 rows of it.
    """

    kept: pa.Table
    rows: pa.Array

    def keys(self) -> pa.Table:
        """Their release and spec_id, picked from the mapped files."""
        release, spec_id = (self.kept[name].combine_chunks().take(self.rows) for name in ("release", "spec_id"))
        return pa.table({"release": release.cast(pa.string()), "spec_id": spec_id})


def admitted_spectra(connection: AtlasConnection, where: str, modality: str) -> AdmittedRows | pa.Table:
    """As `where_to_keys`; rows of kept columns instead of keys where the atlas is large enough to keep them."""
    views = connection.views
    if modality not in views.spectra_files:
        raise QueryError(
            f"The atlas holds no {modality} spectra.", f"It holds {', '.join(views.spectra_files) or 'none at all'}."
        )
    columns = [field.name for field in spectra_fields(views.catalogues)]
    expression = _expression(connection, where, columns)
    every = _names_all(expression)
    wanted = set(columns) if every else {name.lower() for name in _column_names(expression)} & set(columns)
    connection.prepare(where)
    kept = None if every else kept_columns(connection, modality, wanted)
    try:
        if kept is not None:
            return _from_kept(connection, kept, where)
        rows = spectra_sql({modality: views.spectra_files[modality]}, views.catalogues, wanted)
        return connection.rows(f"SELECT release, spec_id FROM ({rows}) spectra WHERE (\n{where}\n)")
    except QueryError as error:
        raise QueryError(
            f"The condition '{where}' cannot be used: {error.message.removeprefix('The statement cannot be run: ')}",
            f"Columns: {', '.join(columns)}.",
        ) from error


def _from_kept(connection: AtlasConnection, kept: pa.Table, where: str) -> AdmittedRows:
    """Rows of kept columns for which a condition is true; only plain numbers pass through DuckDB."""
    connection.duckdb.register("_kept_columns", kept)
    try:
        found = connection.rows(f"SELECT {ROW} FROM _kept_columns spectra WHERE (\n{where}\n)")
    finally:
        connection.duckdb.unregister("_kept_columns")
    return AdmittedRows(kept, found[ROW].combine_chunks())


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


def _names_all(node: Any) -> bool:
    """Whether an expression says `*` or COLUMNS(...), which name columns without spelling them."""
    if isinstance(node, dict):
        return node.get("class") == "STAR" or any(_names_all(value) for value in node.values())
    return isinstance(node, list) and any(_names_all(value) for value in node)


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
