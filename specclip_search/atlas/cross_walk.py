"""Ids of the same star in different Gaia releases, from cross-walk tables that are ingested as catalogues.

The archive has them as `gaiadr3.dr2_neighbourhood` and, with DR4, `dr3_neighbourhood`: columns like `dr3_source_id`,
`dr4_source_id`, `angular_distance`. A source of one release may have several neighbours in the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from .atlas import Atlas

DISTANCE = "angular_distance"
UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class CrossWalk:
    """From the ids of one release to those of another.

    Attributes
    ----------
    old, new
        (W,) int64, sorted by `old`, one partner each; both empty where the atlas has no such table.
    """

    old: np.ndarray
    new: np.ndarray

    def __len__(self) -> int:
        return len(self.old)

    def of(self, ids: np.ndarray) -> np.ndarray:
        """(N,) the other release's ids; `UNKNOWN` where there is none, or no single one."""
        ids = np.asarray(ids, np.int64)
        if not len(self):
            return np.full(len(ids), UNKNOWN, np.int64)
        place = np.minimum(np.searchsorted(self.old, ids), len(self) - 1)
        return np.where(self.old[place] == ids, self.new[place], UNKNOWN)


def cross_walk(atlas: Atlas, old: str, new: str) -> CrossWalk:
    """The cross-walk between two releases, from all catalogues that have both columns.

    The nearest neighbour is the partner, where the table gives distances; an id with several partners, of which
    none is nearest, has none.

    Parameters
    ----------
    old, new
        ``dr3``, ``dr4``.
    """
    wanted = [f"{release}_source_id" for release in (old, new)]
    pieces = []
    for name in atlas.catalogs():
        stage = atlas.catalog(name)
        parts = stage.parts()
        schema = pq.read_schema(parts[0].path) if parts else pa.schema([])
        if not all(column in schema.names and pa.types.is_int64(schema.field(column).type) for column in wanted):
            continue
        near = DISTANCE in schema.names and pa.types.is_floating(schema.field(DISTANCE).type)
        table = stage.read([*wanted, DISTANCE] if near else wanted)
        table = table.filter(pc.and_(table[wanted[0]].is_valid(), table[wanted[1]].is_valid()))
        distance = table[DISTANCE].cast(pa.float64()).fill_null(np.inf).to_numpy() if near else np.zeros(len(table))
        pieces.append((table[wanted[0]].to_numpy(), table[wanted[1]].to_numpy(), distance))
    if not pieces:
        return CrossWalk(np.empty(0, np.int64), np.empty(0, np.int64))
    ids, partners, distance = (np.concatenate(columns) for columns in zip(*pieces, strict=True))
    order = np.lexsort((partners, distance, ids))
    ids, partners, distance = ids[order], partners[order], distance[order]
    first = np.flatnonzero(np.concatenate([[True], ids[1:] != ids[:-1]]))
    rival = np.minimum(first + 1, len(ids) - 1)
    tied = (rival > first) & (ids[rival] == ids[first]) & (distance[rival] == distance[first])
    tied &= partners[rival] != partners[first]
    return CrossWalk(ids[first[~tied]], partners[first[~tied]])
