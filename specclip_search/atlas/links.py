"""Links from LAMOST spectra to Gaia stars, for spectrum files that do not name the star.

Links come from every catalogue of the atlas that has both `obsid` and `source_id`: LAMOST's own
catalogues do, and the command `link` creates one by position. An obsid that two catalogues assign
to different stars is not linked.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .files import text_digest

if TYPE_CHECKING:
    from .atlas import Atlas

LINKS = "links"
"""Catalogue that the command `link` makes."""
NO_SOURCE = -1
"""Marks an unknown star in integer arrays."""


@dataclass(frozen=True, slots=True)
class StarLinks:
    """Links of an atlas.

    Attributes
    ----------
    spec_id, source_id
        (L,) int64, sorted by spec_id, one star each.
    conflicts
        (C,) int64 spec_ids that catalogues assign to different stars.
    digest
        Digest of the catalogues that the links come from; empty if there are none.
    """

    spec_id: np.ndarray
    source_id: np.ndarray
    conflicts: np.ndarray
    digest: str

    def __len__(self) -> int:
        return len(self.spec_id)

    def fill(self, spec_id: np.ndarray, source_id: np.ndarray) -> np.ndarray:
        """`source_id` (N,) in which unknown values (`NO_SOURCE`) are filled from the links where possible."""
        if not len(self):
            return source_id
        place = np.minimum(np.searchsorted(self.spec_id, spec_id), len(self) - 1)
        linked = (source_id == NO_SOURCE) & (self.spec_id[place] == spec_id)
        return np.where(linked, self.source_id[place], source_id)


def star_links(atlas: Atlas, id_column: str | None, without: Collection[str] = ()) -> StarLinks:
    """Links of one instrument's spectra from the atlas's catalogues.

    Parameters
    ----------
    id_column
        Catalogue column with the ids of the instrument's spectra, see `Modality.link_column`; None: no links.
    without
        Catalogues to leave out.
    """
    empty = np.empty(0, np.int64)
    if id_column is None:
        return StarLinks(empty, empty, empty, "")
    pieces, digests = [], []
    refused = np.empty(0, np.int64)
    for name in atlas.catalogs():
        stage = atlas.catalog(name)
        columns = pq.read_schema(stage.parts()[0].path)
        if name in without or any(c not in columns.names for c in (id_column, "source_id")):
            continue
        if not all(pa.types.is_int64(columns.field(c).type) for c in (id_column, "source_id")):
            continue
        if name == LINKS and "conflict" in columns.names and pa.types.is_boolean(columns.field("conflict").type):
            checked = stage.read([id_column, "conflict"])
            refused = np.union1d(refused, checked.filter(checked["conflict"])[id_column].to_numpy())
        table = stage.read([id_column, "source_id"]).drop_null()
        pieces.append(np.stack([table[id_column].to_numpy(), table["source_id"].to_numpy()]))
        digests.append(stage.digest)
    if not pieces:
        return StarLinks(empty, empty, empty, "")
    spec_id, source_id = np.unique(np.concatenate(pieces, axis=1), axis=1)
    single, first, counts = np.unique(spec_id, return_index=True, return_counts=True)
    agreed = (counts == 1) & ~np.isin(single, refused)
    return StarLinks(single[agreed], source_id[first[agreed]], single[counts > 1], text_digest(*digests))


def linked_ids(table: pa.Table | pa.RecordBatch, links: StarLinks) -> np.ndarray:
    """(N,) int64 star of each row of a table with `spec_id` and `source_id`; `NO_SOURCE` where unknown."""
    own = table.column("source_id").fill_null(NO_SOURCE).to_numpy()
    return links.fill(table.column("spec_id").to_numpy(), own)
