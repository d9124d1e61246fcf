"""Link LAMOST spectra to Gaia stars: by an id from a catalogue, else by position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from specclip_search.atlas.links import NO_SOURCE, linked_ids, star_links
from specclip_search.atlas.schemas import described
from specclip_search.errors import QueryError
from specclip_search.surveys import LAMOST_LRS, LRS, XP

from .match import move, sky_match

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas

LINKS = "links"
DEFAULT_RADIUS_ARCSEC = 2.0
LAMOST_EPOCH, GAIA_EPOCH = 2000.0, 2016.0

_SCHEMA = pa.schema(
    [
        described("obsid", pa.int64(), "LAMOST obsid", ucd="meta.id;meta.main"),
        described("source_id", pa.int64(), "Gaia source_id; null where the match is ambiguous", ucd="meta.id"),
        described(
            "separation_arcsec",
            pa.float64(),
            "angle to the nearest star at the epoch of the LAMOST position",
            "arcsec",
            "pos.angDistance",
        ),
        described("candidates", pa.int64(), "stars within the radius; above 1 nothing is linked", ucd="meta.number"),
    ]
)


@dataclass(frozen=True, slots=True)
class LinkReport:
    """Report of linking: spectra = by_id + by_position + ambiguous + unmatched + without_position.

    Attributes
    ----------
    spectra
        Observed LAMOST spectra (obsids) of the atlas.
    visits
        LAMOST spectra of these obsids: one obsid may stand in the atlas in several releases.
    by_id
        Linked by their own file or by a catalogue with obsid and source_id.
    by_position
        Linked to the only star within the radius.
    ambiguous
        More than one star within the radius: listed in the catalogue `links`, linked to none.
    unmatched, without_position
        No star within the radius; no position known.
    conflicts
        Obsids assigned to different stars by catalogues; they are matched by position.
    """

    spectra: int
    visits: int
    by_id: int
    by_position: int
    ambiguous: int
    unmatched: int
    without_position: int
    conflicts: int


def link_stars(
    atlas: Atlas,
    catalogue: str | None = None,
    *,
    radius_arcsec: float = DEFAULT_RADIUS_ARCSEC,
    lamost_epoch: float = LAMOST_EPOCH,
    gaia_epoch: float = GAIA_EPOCH,
) -> LinkReport:
    """Find the Gaia star of every LAMOST spectrum and store matches by position as catalogue `links`.

    Ids take precedence: a catalogue with `obsid` and `source_id` links without this command. The rest is
    matched by position to `catalogue`, whose stars are propagated with their proper motion to the epoch
    of LAMOST's positions. An ambiguous match is reported and not linked.

    Parameters
    ----------
    catalogue
        Catalogue of the atlas with `source_id`, `ra`, `dec` (deg) and, for proper motion, `pmra` and
        `pmdec` (mas/yr). None: the positions of the atlas's own XP spectra.
    radius_arcsec
        Largest separation.
    lamost_epoch, gaia_epoch
        Julian years. LAMOST's headers give input-catalogue positions of J2000.

    Raises
    ------
    QueryError
        If the catalogue lacks a column.
    AtlasError
        If the atlas has no LAMOST spectra, or no such catalogue.
    """
    from specclip_search.catalogs.ingest import ingest_catalog_table

    obsid, source_id, ra, dec, visits = _lamost(atlas)
    stars = _stars(atlas, catalogue, lamost_epoch - gaia_epoch)
    open_rows = np.flatnonzero(source_id == NO_SOURCE)
    placed = open_rows[np.isfinite(ra[open_rows]) & np.isfinite(dec[open_rows])]
    found = sky_match(ra[placed], dec[placed], stars[1], stars[2], radius_arcsec)
    rows, candidates = np.unique(found.left, return_counts=True)
    nearest = found.nearest()
    single = candidates == 1
    table = pa.table(
        [
            pa.array(obsid[placed[rows]]),
            pa.array(stars[0][nearest.right], mask=~single),
            pa.array(nearest.separation),
            pa.array(candidates.astype(np.int64)),
        ],
        schema=_SCHEMA,
    )
    if table.num_rows:
        ingest_catalog_table(
            atlas, LINKS, table, source=f"positions, {catalogue or XP + ' spectra'}, {radius_arcsec} arcsec"
        )
    else:
        _forget(atlas)
    return LinkReport(
        spectra=len(obsid),
        visits=visits,
        by_id=len(obsid) - len(open_rows),
        by_position=int(single.sum()),
        ambiguous=int((~single).sum()),
        unmatched=len(placed) - len(rows),
        without_position=len(open_rows) - len(placed),
        conflicts=len(star_links(atlas, LAMOST_LRS.link_column, without=(LINKS,)).conflicts),
    )


def _forget(atlas: Atlas) -> None:
    """Remove links of an earlier run if this one finds none."""
    stage = atlas.catalog(LINKS)
    if stage.exists:
        with stage.lock():
            for part in stage.parts():
                stage.remove(part.number)


def _lamost(atlas: Atlas) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """obsid, source_id if known by id, ra and dec of the observed LAMOST obsids; and how many spectra they have."""
    stage = atlas.spectra(LRS)
    if not stage.exists:
        raise stage.missing()
    table = stage.read(["spec_id", "source_id", "simulated", "ra", "dec"])
    table = table.filter(pc.invert(table["simulated"]))
    ids = linked_ids(table, star_links(atlas, LAMOST_LRS.link_column, without=(LINKS,)))
    spec_id = table["spec_id"].to_numpy()
    order = np.lexsort((ids == NO_SOURCE, spec_id))
    first = order[np.unique(spec_id[order], return_index=True)[1]]
    return spec_id[first], ids[first], _degrees(table, "ra")[first], _degrees(table, "dec")[first], len(spec_id)


def _stars(atlas: Atlas, catalogue: str | None, years: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """source_id, ra and dec of the stars to match, propagated by `years` if proper motions are known."""
    stage = atlas.catalog(catalogue) if catalogue else atlas.spectra(XP)
    if not stage.exists:
        raise stage.missing()
    names = pq.read_schema(stage.parts()[0].path).names
    lacking = [name for name in ("source_id", "ra", "dec") if name not in names]
    if lacking:
        raise QueryError(
            f"The {stage.label} lacks {', '.join(lacking)}; stars need source_id, ra and dec (deg).",
            "Name another catalogue with --catalog, or ingest one with these columns.",
        )
    moving = [name for name in ("pmra", "pmdec") if name in names]
    table = stage.read(["source_id", "ra", "dec", *(moving if len(moving) == 2 else ())])
    usable = pc.and_(table["source_id"].is_valid(), pc.and_(table["ra"].is_valid(), table["dec"].is_valid()))
    table = table.filter(usable)
    first = np.unique(table["source_id"].to_numpy(), return_index=True)[1]
    ra, dec = _degrees(table, "ra")[first], _degrees(table, "dec")[first]
    if len(moving) == 2 and years:
        ra, dec = move(ra, dec, _degrees(table, "pmra")[first], _degrees(table, "pmdec")[first], years)
    return table["source_id"].to_numpy()[first], ra, dec


def _degrees(table: pa.Table, name: str) -> np.ndarray:
    return table[name].cast(pa.float64()).to_numpy()
