"""Cross-matching tables of an atlas by position, through SQL on either side."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from specclip_search.atlas.schemas import described
from specclip_search.errors import QueryError

from .skymatch import move, sky_match

if TYPE_CHECKING:
    from .sql import AtlasConnection

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
        From `queries.sql.connect`.
    left, right
        Name of a view or catalogue, or a SELECT; with columns `ra`, `dec` (deg).
    radius_arcsec
        Largest separation, at most one degree.
    left_epoch, right_epoch
        Julian years of the positions. Where they differ, the side that has `pmra`, `pmdec`
        (mas/yr) is moved to the other's epoch, the left one if both have.
    nearest
        Keep only the nearest right row of each left one; else all pairs.

    Returns
    -------
    pa.Table
        The left columns, the right columns (`_right` after names that both have),
        separation_arcsec, candidates; in the left table's order.

    Raises
    ------
    QueryError
        If a side has no position, epochs differ and no side has proper motions, or the radius
        is not usable.
    """
    tables = [_read(connection, side) for side in (left, right)]
    positions = [_position(table, side) for table, side in zip(tables, (left, right), strict=True)]
    if left_epoch is not None and right_epoch is not None and left_epoch != right_epoch:
        _to_one_epoch(tables, positions, (left_epoch, right_epoch))
    found = sky_match(*positions[0], *positions[1], radius_arcsec)
    rows, counts = np.unique(found.left, return_counts=True)
    if nearest:
        found = found.nearest()
    candidates = counts[np.searchsorted(rows, found.left)] if len(rows) else np.empty(0, np.int64)
    return _joined(
        tables[0].take(pa.array(found.left)), tables[1].take(pa.array(found.right)), found.separation, candidates
    )


def _read(connection: AtlasConnection, side: str) -> pa.Table:
    statement = f"SELECT * FROM {side}" if re.fullmatch(r"\w+", side) else side
    rows = connection.run(statement)
    if rows is None:
        raise QueryError(f"'{side}' is neither a table nor a SELECT.", "Name a view or catalogue, or give a SELECT.")
    return rows.arrow()


def _position(table: pa.Table, side: str) -> tuple[np.ndarray, np.ndarray]:
    if not {"ra", "dec"} <= set(table.column_names):
        raise QueryError(
            f"'{side}' has no columns ra and dec; it has {', '.join(table.column_names)}.",
            "Give a SELECT that names the position's columns ra and dec, in degrees.",
        )
    return _numbers(table, "ra"), _numbers(table, "dec")


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    return table[name].cast(pa.float64()).to_numpy()


def _to_one_epoch(
    tables: list[pa.Table], positions: list[tuple[np.ndarray, np.ndarray]], epochs: tuple[float, float]
) -> None:
    for side in (0, 1):
        if {"pmra", "pmdec"} <= set(tables[side].column_names):
            motion = (_numbers(tables[side], "pmra"), _numbers(tables[side], "pmdec"))
            positions[side] = move(*positions[side], *motion, epochs[1 - side] - epochs[side])
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
