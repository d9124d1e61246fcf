"""Labels of a few rows from catalogues, in arrays: the rules of `label_sources.label_joins` without a database."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from specclip_search.labels import LABEL_NAMES

from .label_sources import MAIN_LABELS, Catalogue, sides_of

Ids = tuple[np.ndarray, np.ndarray]
"""(N,) int64 ids, and (N,) bool whether each is known."""


@dataclass(frozen=True, slots=True)
class _Side:
    """One catalogue's columns for the rows asked: (N,) float64 values and whether each is known."""

    name: str
    labels: frozenset[str]
    columns: dict[str, tuple[np.ndarray, np.ndarray]]

    def known(self, name: str) -> np.ndarray:
        return self.columns[name][1]


def label_columns(
    sources: Sequence[Catalogue],
    star: Ids,
    spectrum: Ids | None,
    wanted: Collection[str],
    fetch: Callable[[Catalogue, str, np.ndarray, Sequence[str]], pa.Table],
) -> dict[str, pa.Array]:
    """Labels, positions (`ra`, `dec`) and `label_source` of rows, from the first catalogue that has each.

    Parameters
    ----------
    sources
        Catalogues in the order of precedence.
    star
        source_id of each row.
    spectrum
        obsid of each row, None for an instrument without.
    wanted
        Columns asked for; those that no catalogue has are left out.
    fetch
        Rows of a catalogue with one of some ids of a key, as a table with that key and some columns.

    Returns
    -------
    dict
        (N,) Arrow arrays by name, float64 but for `label_source`, which is text; null where unknown.
    """
    sides = [
        _side(source, key, spectrum if key == "obsid" and spectrum is not None else star, fetch)
        for source, key in sides_of(sources, spectrum is not None, wanted)
    ]
    found: dict[str, pa.Array] = {}
    for name in LABEL_NAMES:
        if name in wanted and (taken := _label(name, sides)) is not None:
            found[name] = pa.array(taken[0], mask=~taken[1])
    for name in ("ra", "dec"):
        having = [side.columns[name] for side in sides if name in side.columns]
        if name in wanted and having:
            values, known = _first(having)
            found[name] = pa.array(values, mask=~known)
    if "label_source" in wanted:
        found["label_source"] = _origin(sides, len(star[0]))
    return found


def _side(
    source: Catalogue, key: str, ids: Ids, fetch: Callable[[Catalogue, str, np.ndarray, Sequence[str]], pa.Table]
) -> _Side:
    """The first row of a catalogue for each id, column by column."""
    values, known = ids
    names = [*source.labels, *source.positions]
    table = fetch(source, key, np.unique(values[known]), names)
    listed, first = np.unique(table[key].to_numpy(), return_index=True)
    place = np.minimum(np.searchsorted(listed, values), max(len(listed) - 1, 0))
    here = known & (listed[place] == values) if len(listed) else np.zeros(len(values), dtype=bool)
    row = first[place] if len(listed) else np.zeros(len(values), dtype=np.int64)
    columns = {}
    for name in names:
        column = table[name]
        if table.num_rows == 0:
            columns[name] = (np.zeros(len(values)), here)
            continue
        numbers = np.asarray(column.fill_null(0).to_numpy(), dtype=np.float64)
        columns[name] = (numbers[row], here & np.asarray(column.is_valid())[row])
    return _Side(source.name, frozenset(source.labels), columns)


def _label(name: str, sides: Sequence[_Side]) -> tuple[np.ndarray, np.ndarray] | None:
    """A label from the first side that knows it; an error from the side that its value comes from."""
    base = name.removesuffix("_err")
    having = [side for side in sides if name in side.labels]
    if not having:
        return None
    valued = [side for side in sides if base in side.labels]
    if base == name or not valued:
        return _first([side.columns[name] for side in (having if base == name else having[:1])])
    nothing = np.zeros(len(valued[0].known(base)))
    pieces = [side.columns[name] if name in side.labels else (nothing, nothing > 0) for side in valued]
    return _first(pieces, [side.known(base) for side in valued])


def _first(
    pieces: Sequence[tuple[np.ndarray, np.ndarray]], deciding: Sequence[np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Values of the first piece that is known, or for which `deciding` is true, and whether they are known."""
    values, known = np.zeros(len(pieces[0][0])), np.zeros(len(pieces[0][0]), dtype=bool)
    open_rows = np.ones(len(values), dtype=bool)
    for number, (numbers, there) in enumerate(pieces):
        now = open_rows & (there if deciding is None else deciding[number])
        values[now], known[now] = numbers[now], there[now]
        open_rows &= ~now
    return values, known


def _origin(sides: Sequence[_Side], count: int) -> pa.Array:
    """The catalogue that the first of teff, logg, feh came from."""
    names = np.full(count, None, dtype=object)
    for side in sides:
        main = [side.known(name) for name in MAIN_LABELS if name in side.labels]
        if main:
            names[np.logical_or.reduce(main) & (names == None)] = side.name  # noqa: E711
    return pa.array(names.tolist(), pa.string())
