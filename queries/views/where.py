"""Select spectra by an SQL condition.

Conditions on spectra are mapped to rows of vectors without looking up ten million keys.
If the columns of a large atlas are cached, a condition gives rows of spectra. The vector row
of each spectrum is looked up once by key and cached with the columns.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from specclip_search.atlas.files import text_digest
from specclip_search.errors import QueryError
from specclip_search.indexing.vectors.keys import COMBINED
from specclip_search.surveys import get_modality

from ..space.lookup import fingerprint
from .kept_columns import ROW, column_path, kept_columns, load_column, store_columns
from .star_views import spectra_fields, spectra_sql

if TYPE_CHECKING:
    from specclip_search.indexing.vectors.keys import KeyTable

    from ..space.space import Space
    from .connection import AtlasConnection

def where_to_keys(connection: AtlasConnection, where: str, modality: str) -> pa.Table:
    """Keys of the spectra of one instrument for which a condition is true.

    Parameters
    ----------
    connection
        From `specclip_search.queries.views.connection.connect`.
    where
        One SQL expression on the columns of the view `spectra`, such as
        ``teff > 4500 AND feh < -2``. Only the columns in it are read.
    modality
        Instrument.

    Returns
    -------
    pa.Table
        release, spec_id; and epoch where single visits or exposures are among the spectra.

    Raises
    ------
    QueryError
        If it is not a single expression, or uses a missing column.
    """
    admitted = admitted_spectra(connection, where, modality)
    return admitted if isinstance(admitted, pa.Table) else admitted.keys()


@dataclass(frozen=True)
class AdmittedRows:
    """Spectra selected by a condition, by their rows in the cached columns.

    Attributes
    ----------
    kept
        From `specclip_search.queries.views.kept_columns.kept_columns`; contains at least release and spec_id.
    rows
        int32 rows of `kept`.
    """

    kept: pa.Table
    rows: pa.Array

    def keys(self) -> pa.Table:
        """Their release and spec_id, from the mapped files."""
        release, spec_id = (self.kept[name].combine_chunks().take(self.rows) for name in ("release", "spec_id"))
        return pa.table({"release": release.cast(pa.string()), "spec_id": spec_id})


def admitted_spectra(connection: AtlasConnection, where: str, modality: str) -> AdmittedRows | pa.Table:
    """As `where_to_keys`, but with rows of cached columns instead of keys if the atlas is large enough."""
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
    epochs = has_single_epochs(modality, views.spectra_files[modality])
    kept = None if every or epochs else kept_columns(connection, modality, wanted)
    try:
        if kept is not None:
            return _from_kept(connection, kept, where)
        rows = spectra_sql({modality: views.spectra_files[modality]}, views.catalogues, wanted, epochs=epochs)
        names = "release, spec_id, epoch" if epochs else "release, spec_id"
        return connection.rows(f"SELECT {names} FROM ({rows}) spectra WHERE (\n{where}\n)")
    except QueryError as error:
        raise QueryError(
            f"The condition '{where}' cannot be used: {error.message.removeprefix('The statement cannot be run: ')}",
            f"Columns: {', '.join(columns)}.",
        ) from error


def has_single_epochs(modality: str, files: Sequence[str]) -> bool:
    """Whether spectra of single visits or exposures are in these shards, by their statistics."""
    return get_modality(modality).has_epochs and _single_epochs(tuple(files), fingerprint(files))


@lru_cache(maxsize=32)
def _single_epochs(files: tuple[str, ...], changed: str) -> bool:
    for file in files:
        about = pq.read_metadata(file)
        column = about.schema.to_arrow_schema().get_field_index("epoch")
        for number in range(about.num_row_groups if column >= 0 else 0):
            group = about.row_group(number)
            place = next(i for i in range(group.num_columns) if group.column(i).path_in_schema == "epoch")
            statistics = group.column(place).statistics
            if statistics is None or statistics.null_count < group.num_rows:
                return True
    return False


def _from_kept(connection: AtlasConnection, kept: pa.Table, where: str) -> AdmittedRows:
    """Rows of cached columns for which a condition is true; DuckDB returns plain numbers only."""
    connection.duckdb.register("_kept_columns", kept)
    try:
        found = connection.rows(f"SELECT {ROW} FROM _kept_columns spectra WHERE (\n{where}\n)")
    finally:
        connection.duckdb.unregister("_kept_columns")
    return AdmittedRows(kept, found[ROW].combine_chunks())


def _expression(connection: AtlasConnection, where: str, columns: Sequence[str]) -> dict[str, Any]:
    """The parsed expression, if it is a single expression."""
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
    """Whether an expression contains `*` or COLUMNS(...), which refer to columns implicitly."""
    if isinstance(node, dict):
        return node.get("class") == "STAR" or any(_names_all(value) for value in node.values())
    return isinstance(node, list) and any(_names_all(value) for value in node)


def _column_names(node: Any) -> Iterator[str]:
    """Last parts of all column names in a parsed expression."""
    if isinstance(node, dict):
        if node.get("type") == "COLUMN_REF":
            yield node["column_names"][-1]
        for value in node.values():
            yield from _column_names(value)
    elif isinstance(node, list):
        for value in node:
            yield from _column_names(value)


_FORMAT = "1"
_making = threading.Lock()


def where_to_rows(connection: AtlasConnection, space: Space, where: str, modality: str) -> np.ndarray:
    """Vector rows of the spectra of one instrument for which a condition is true.

    Parameters
    ----------
    connection
        From `specclip_search.queries.views.connection.connect`.
    space
        The space with the vectors.
    where
        SQL expression on the columns of the view `spectra`; see `specclip_search.queries.views.annotate.where_to_keys`.
    modality
        Instrument.

    Returns
    -------
    (n,) int64, ascending; spectra without a vector are left out.

    Raises
    ------
    QueryError
        If the condition is not a single expression, or uses a missing column.
    """
    admitted = admitted_spectra(connection, where, modality)
    if isinstance(admitted, AdmittedRows):
        places = _vector_rows(connection, space, admitted.kept, modality)
        if places is not None:
            return _ascending(places[admitted.rows.to_numpy()])
        admitted = admitted.keys()
    return rows_of_keys(space.keys(modality), admitted)


def rows_of_keys(table: KeyTable, keys: pa.Table) -> np.ndarray:
    """(n,) int64 rows, ascending, of a table with release and spec_id; spectra without a vector are left out."""
    rows, queries = table.all_rows_of(keys["spec_id"].to_numpy())
    wanted = _release_numbers(table, keys["release"])
    same = table.release[rows] == wanted[queries]
    if table.epoch is not None and "epoch" in keys.column_names:
        same &= table.epoch[rows] == keys["epoch"].fill_null(COMBINED).to_numpy()[queries]
    return np.unique(rows[same])


def _ascending(rows: np.ndarray) -> np.ndarray:
    """Rows that are not -1, sorted; mostly they already are."""
    if len(rows) and rows.min() < 0:
        rows = rows[rows >= 0]
    if not (rows[1:] > rows[:-1]).all():
        rows = np.sort(rows)
    return rows.astype(np.int64)


def _vector_rows(connection: AtlasConnection, space: Space, kept: pa.Table, modality: str) -> np.ndarray | None:
    """(spectra,) int32 vector row of each row of cached columns, -1 if it has none.

    None if two spectra share a key: then only the lookup by key finds all of them.
    """
    atlas = connection.views.atlas
    folder = atlas.path / "indexes" / ".lookup"
    name = f"rows.{space.model}"
    vectors = atlas.vectors(space.model, modality).paths()
    digest = text_digest(_FORMAT, fingerprint(connection.views.spectra_files[modality]), fingerprint(vectors))
    with _making:
        column = load_column(column_path(folder, modality, name), digest)
        if column is not None and len(column) == kept.num_rows:
            return column.to_numpy()
        found = _by_key(space.keys(modality), kept)
        if found is not None:
            store_columns(folder, modality, {name: pa.array(found)}, {name: digest})
    return found


def _by_key(table: KeyTable, kept: pa.Table) -> np.ndarray | None:
    spec_id = kept["spec_id"].combine_chunks().to_numpy()
    release = _release_numbers(table, kept["release"])
    if np.array_equal(spec_id, table.spec_id) and np.array_equal(release, table.release):
        rows = np.arange(len(spec_id), dtype=np.int32)
    else:
        found, queries = table.all_rows_of(spec_id)
        same = table.release[found] == release[queries]
        rows = np.full(len(spec_id), -1, np.int32)
        rows[queries[same]] = found[same]
        if int(same.sum()) != int((rows >= 0).sum()):
            return None
    known = rows[rows >= 0]
    return rows if len(np.unique(known)) == len(known) else None


def _release_numbers(table: KeyTable, names: pa.ChunkedArray) -> np.ndarray:
    """(N,) int16 index of each release in the key table, -1 if missing."""
    number = {name: code for code, name in enumerate(table.releases)}
    encoded = names.combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = pa.concat_arrays(encoded.chunks)
    if not pa.types.is_dictionary(encoded.type):
        encoded = pc.dictionary_encode(encoded)
    codes = np.array([*(number.get(name, -1) for name in encoded.dictionary.to_pylist()), -1], np.int16)
    return codes[pc.fill_null(encoded.indices, len(codes) - 1).to_numpy(zero_copy_only=False)]
