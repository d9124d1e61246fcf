"""Labels of stars and spectra from the atlas's catalogues, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .parquet import identifier, quoted

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas
    from specclip_search.indexing.vectors.keys import KeyTable


def star_labels(atlas: Atlas, source_id: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Labels of stars by source_id.

    Returns
    -------
    dict
        (N,) float64 for each of `names` in any catalogue; NaN if a star has none.
    """
    columns = _columns(atlas, "stars", ("source_id",), names)
    if columns is None:
        return {}
    order = np.argsort(columns["source_id"], kind="stable")
    known = columns["source_id"][order]
    place = np.minimum(np.searchsorted(known, source_id), max(len(known) - 1, 0))
    found = known[place] == source_id if len(known) else np.zeros(len(source_id), dtype=bool)
    return {
        name: np.where(found, columns[name][order][place], np.nan) if len(known) else np.full(len(source_id), np.nan)
        for name in names
        if name in columns
    }


def row_labels(atlas: Atlas, keys: KeyTable, modality: str, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Labels of an instrument's spectra, by vector row.

    Returns
    -------
    dict
        (rows,) float64 for each of `names` in any catalogue; NaN if a spectrum has none.
    """
    columns = _columns(atlas, "spectra", ("spec_id", "release"), names, modality)
    if columns is None:
        return {}
    rows, queries = keys.all_rows_of(columns["spec_id"])
    number = {name: code for code, name in enumerate(keys.releases)}
    wanted = np.array([number.get(name, -1) for name in columns["release"]], dtype=np.int64)
    same = keys.release[rows] == wanted[queries] if len(rows) else np.empty(0, dtype=bool)
    result = {}
    for name in names:
        if name in columns:
            values = np.full(len(keys), np.nan)
            values[rows[same]] = columns[name][queries[same]]
            result[name] = values
    return result


def _columns(
    atlas: Atlas, view: str, keys: Sequence[str], names: Sequence[str], modality: str | None = None
) -> dict[str, Any] | None:
    """Columns of a view for rows where at least one of `names` is known; None if no catalogue has any."""
    from .connection import connect

    with connect(atlas) as connection:
        if view not in connection.views.all:
            return None
        known = {field.name for field in connection.views.all[view].fields()}
        there = [name for name in names if name in known]
        if not there:
            return None
        conditions = "(" + " OR ".join(f"{identifier(name)} IS NOT NULL" for name in there) + ")"
        conditions += f" AND {keys[0]} IS NOT NULL"
        if modality is not None:
            conditions += f" AND modality = {quoted(modality)}"
        chosen = ", ".join([*keys, *(f"CAST({identifier(name)} AS DOUBLE) AS {identifier(name)}" for name in there)])
        connection.prepare(f"SELECT * FROM {view}")
        table = connection.rows(f"SELECT {chosen} FROM {view} WHERE {conditions}")
    result: dict[str, Any] = {}
    for name in table.column_names:
        column = table[name]
        result[name] = column.to_pylist() if name == "release" else column.to_numpy()
    return result
