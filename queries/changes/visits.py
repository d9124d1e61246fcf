"""Visits of each star: spectra as observed, grouped by Gaia id, LAMOST's identifier and position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from specclip_search.constants import C_KM_S
from specclip_search.keys import release_order
from specclip_search.surveys import get_modality

from ..views.connection import connect

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas

# arcsec; fibres are 3.3 wide and positions are of the same input catalogues
SAME_STAR = 3.0
_COLUMNS = ("source_id", "uid", "release", "spec_id", "epoch", "time", "time_scale", "snr", "ra", "dec")


@dataclass(frozen=True)
class VisitTable:
    """Visits of one instrument that are observed spectra of stars with several.

    Attributes
    ----------
    modality
        The instrument.
    rows
        Columns of the view `epochs`, and `survey_rv` [km/s].
    star
        (N,) int64 number of the star of each row; rows are ordered by it and then by time.
    """

    modality: str
    rows: pa.Table
    star: np.ndarray

    def __len__(self) -> int:
        return self.rows.num_rows


def visit_table(atlas: Atlas, modality: str) -> VisitTable:
    """Visits of stars that have several; each observation once, in its newest release.

    Combined spectra are left out where their single exposures are there. Two spectra are of one star if they have the
    same `source_id` or `uid`, or lie within 3 arcsec of each other.
    """
    rows = _rows(atlas, modality)
    rows = rows.take(pa.array(_one_each(rows)))
    star = _stars(rows)
    count = np.bincount(star, minlength=star.max() + 1 if len(star) else 0)
    several = np.flatnonzero(count[star] > 1)
    time = rows["time"].fill_null(np.inf).to_numpy()[several]
    spec_id = rows["spec_id"].to_numpy()[several]
    order = several[np.lexsort((spec_id, time, star[several]))]
    number = np.unique(star[order], return_inverse=True)[1] if len(order) else np.empty(0, np.int64)
    return VisitTable(modality, rows.take(pa.array(order)), np.asarray(number, np.int64))


def _rows(atlas: Atlas, modality: str) -> pa.Table:
    """The instrument's rows of `epochs` that are kept as observed, with the survey's velocity."""
    names = {field.name for field in get_modality(modality).schema}
    if "rv" in names:
        velocity = "s.rv"
    else:
        # LAMOST writes -9999 where it has none
        velocity = f"CASE WHEN abs(s.z) < 0.01 THEN s.z * {C_KM_S} END" if "z" in names else "NULL::DOUBLE"
    same = "{0}.spec_id = e.spec_id AND {0}.release IS NOT DISTINCT FROM e.release"
    if "epoch" in names:
        same += " AND {0}.epoch IS NOT DISTINCT FROM e.epoch"
    statement = (
        f"SELECT {', '.join(f'e.{name}' for name in _COLUMNS)}, ({velocity})::DOUBLE AS survey_rv "
        f"FROM epochs e JOIN spectra_{modality} s ON {same.format('s')} "
        f"SEMI JOIN observed_{modality} o ON {same.format('o')} WHERE e.modality = '{modality}'"
    )
    with connect(atlas) as connection:
        connection.prepare(statement)
        return connection.rows(statement)


def _one_each(rows: pa.Table) -> np.ndarray:
    """Row of each observation in its newest release; combined spectra only where no exposure is there."""
    best: dict[tuple[int, int | None], int] = {}
    release = rows["release"].to_pylist()
    keys = list(zip(rows["spec_id"].to_pylist(), rows["epoch"].to_pylist(), strict=True))
    for number, key in enumerate(keys):
        known = best.get(key)
        if known is None or release_order(release[number] or "") > release_order(release[known] or ""):
            best[key] = number
    single = {spec_id for spec_id, epoch in best if epoch is not None}
    return np.array([n for (spec_id, epoch), n in best.items() if epoch is not None or spec_id not in single], np.int64)


def _stars(rows: pa.Table) -> np.ndarray:
    """(N,) number of the star of each row: connected by an id or by position."""
    size = rows.num_rows
    if not size:
        return np.empty(0, np.int64)
    links = [_same(rows[name], size) for name in ("source_id", "uid", "spec_id")]
    ra, dec = (np.radians(rows[name].fill_null(np.nan).to_numpy()) for name in ("ra", "dec"))
    placed = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    if len(placed):
        unit = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)[placed]
        radius = 2.0 * np.sin(np.radians(SAME_STAR / 3600.0) / 2.0)
        links.append(placed[cKDTree(unit).query_pairs(radius, output_type="ndarray")])
    pairs = np.concatenate(links)
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def _same(column: pa.ChunkedArray, size: int) -> np.ndarray:
    """(M, 2) rows that follow each other in the order of a column and have the same value."""
    codes = column.combine_chunks().dictionary_encode()
    if isinstance(codes, pa.ChunkedArray):
        codes = pa.concat_arrays(codes.unify_dictionaries().chunks)
    known = codes.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    order = np.argsort(known, kind="stable")
    same = (known[order][1:] == known[order][:-1]) & (known[order][1:] >= 0)
    return np.stack([order[:-1][same], order[1:][same]], axis=1)
