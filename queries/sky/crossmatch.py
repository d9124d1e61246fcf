"""Cross-match tables of an atlas by position; both sides can be SQL statements."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from specclip_search.atlas.schemas import described
from specclip_search.errors import QueryError

from .match import SkyMatches, move, sky_match

if TYPE_CHECKING:
    from ..views.connection import AtlasConnection

SEPARATION = described(
    "separation_arcsec", pa.float64(), "angle between the two positions", "arcsec", "pos.angDistance"
)
CANDIDATES = described(
    "candidates",
    pa.int64(),
    "right rows within the radius of the left row; above 1 the match is ambiguous",
    ucd="meta.number",
)


def crossmatch(
    connection: AtlasConnection,
    left: str,
    right: str,
    radius_arcsec: float = 1.0,
    *,
    left_epoch: float | None = None,
    right_epoch: float | None = None,
    nearest: bool = True,
) -> pa.Table:
    """Match two tables by position.

    Parameters
    ----------
    connection
        From `specclip_search.queries.views.connection.connect`.
    left, right
        Name of a view or catalogue, or a SELECT; with columns `ra`, `dec` (deg).
    radius_arcsec
        Largest separation, at most one degree.
    left_epoch, right_epoch
        Epochs of the positions in Julian years. If they differ, the side with `pmra`, `pmdec`
        (mas/yr) is propagated to the other epoch, the left one if both have them.
    nearest
        Keep only the nearest right row of each left row; else all pairs.

    Returns
    -------
    pa.Table
        The left columns, the right columns (with suffix `_right` for names in both),
        separation_arcsec, candidates; in the left table's order.

    Raises
    ------
    QueryError
        If a side has no position, only one epoch is given, epochs differ and neither side has proper
        motions, or the radius is invalid.
    """
    if (left_epoch is None) != (right_epoch is None):
        raise _one_epoch(left_epoch, right_epoch)
    tables = [_read(connection, side) for side in (left, right)]
    places = [_places(table, side) for table, side in zip(tables, (left, right), strict=True)]
    found, candidates = matched(
        places[0], places[1], radius_arcsec, left_epoch=left_epoch, right_epoch=right_epoch, nearest=nearest
    )
    return _joined(
        tables[0].take(pa.array(found.left)), tables[1].take(pa.array(found.right)), found.separation, candidates
    )


def matched(
    left: Mapping[str, np.ndarray],
    right: Mapping[str, np.ndarray],
    radius_arcsec: float,
    *,
    left_epoch: float | None = None,
    right_epoch: float | None = None,
    nearest: bool = True,
) -> tuple[SkyMatches, np.ndarray]:
    """Match two lists of positions, propagated to one epoch; see `crossmatch`.

    Parameters
    ----------
    left, right
        (N,) `ra`, `dec` in degrees, and `pmra`, `pmdec` in mas/yr if known.

    Returns
    -------
    SkyMatches, and (M,) int64 the number of right rows within the radius of each pair's left row.
    """
    if (left_epoch is None) != (right_epoch is None):
        raise _one_epoch(left_epoch, right_epoch)
    positions = [(side["ra"], side["dec"]) for side in (left, right)]
    if left_epoch is not None and right_epoch is not None and left_epoch != right_epoch:
        _to_one_epoch((left, right), positions, (left_epoch, right_epoch))
    found = sky_match(*positions[0], *positions[1], radius_arcsec)
    rows, counts = np.unique(found.left, return_counts=True)
    if nearest:
        found = found.nearest()
    candidates = counts[np.searchsorted(rows, found.left)] if len(rows) else np.empty(0, np.int64)
    return found, candidates


def _one_epoch(left_epoch: float | None, right_epoch: float | None) -> QueryError:
    given, missing = ("left", "right") if right_epoch is None else ("right", "left")
    return QueryError(
        f"Epochs of both sides are needed to bring positions together; found only the {given} one, "
        f"{left_epoch if right_epoch is None else right_epoch:g}.",
        f"Add the {missing} epoch, or leave both out.",
    )


def _read(connection: AtlasConnection, side: str) -> pa.Table:
    statement = f"SELECT * FROM {side}" if re.fullmatch(r"\w+", side) else side
    rows = connection.run(statement)
    if rows is None:
        raise QueryError(f"'{side}' is neither a table nor a SELECT.", "Name a view or catalogue, or give a SELECT.")
    return rows.arrow()


def _places(table: pa.Table, side: str) -> dict[str, np.ndarray]:
    if not {"ra", "dec"} <= set(table.column_names):
        raise QueryError(
            f"'{side}' has no columns ra and dec; it has {', '.join(table.column_names)}.",
            "Give a SELECT that names the position's columns ra and dec, in degrees.",
        )
    names = ["ra", "dec"] + (["pmra", "pmdec"] if {"pmra", "pmdec"} <= set(table.column_names) else [])
    return {name: _numbers(table, name) for name in names}


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    return table[name].cast(pa.float64()).to_numpy()


def _to_one_epoch(
    sides: tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]],
    positions: list[tuple[np.ndarray, np.ndarray]],
    epochs: tuple[float, float],
) -> None:
    for number, side in enumerate(sides):
        if "pmra" in side:
            years = epochs[1 - number] - epochs[number]
            positions[number] = move(*positions[number], side["pmra"], side["pmdec"], years)
            return
    raise QueryError(
        f"The epochs {epochs[0]:g} and {epochs[1]:g} differ, and neither side has columns pmra and pmdec (mas/yr).",
        "Add proper motions to one side, or leave out the epochs and take a larger radius.",
    )


def _joined(left: pa.Table, right: pa.Table, separation: np.ndarray, candidates: np.ndarray) -> pa.Table:
    table = left
    for field in right.schema:
        name = f"{field.name}_right" if field.name in left.column_names else field.name
        table = table.append_column(field.with_name(name), right[field.name])
    return table.append_column(SEPARATION, pa.array(separation)).append_column(CANDIDATES, pa.array(candidates))
