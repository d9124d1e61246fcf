"""Link LAMOST spectra to Gaia stars: by an id from a catalogue, else by position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from specclip_search.atlas.cross_walk import UNKNOWN, CrossWalk, cross_walk
from specclip_search.atlas.links import LINKS, NO_SOURCE, linked_ids, star_links
from specclip_search.atlas.schemas import described
from specclip_search.catalogs.ingest import read_manifest
from specclip_search.errors import QueryError
from specclip_search.readers.gaia_bases import EPOCHS, epoch_of, release_named, release_of
from specclip_search.surveys import LAMOST_LRS, LRS, XP

from .match import move, sky_match

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas

DEFAULT_RADIUS_ARCSEC = 2.0
# a fibre is 3.3 arcsec wide; the rest is for proper motions that no catalogue gives
DISAGREE_ARCSEC = 10.0
LAMOST_EPOCH = 2000.0
EPOCH_COLUMN = "ref_epoch"

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
        described(
            "conflict", pa.bool_(), "true where a catalogue's star lies elsewhere on the sky: it is not linked"
        ),
        described("candidates", pa.int64(), "stars within the radius; above 1 nothing is linked", ucd="meta.number"),
    ]
)


@dataclass(frozen=True, slots=True)
class LinkReport:
    """Report of linking: spectra = by_id + by_position + ambiguous + unmatched + without_position + elsewhere.

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
    elsewhere
        A catalogue's star lies more than 10 arcsec away: listed in `links` as a conflict, linked to none.
    gaia_epoch
        Epoch of the stars' positions that was used [Julian year]; the median where rows differ.
    translated
        Of `by_position`, those whose star has an id of another release in the catalogue; they are linked to the id
        that the atlas's XP spectra have, by a cross-walk.
    """

    spectra: int
    visits: int
    by_id: int
    by_position: int
    ambiguous: int
    unmatched: int
    without_position: int
    conflicts: int
    elsewhere: int = 0
    gaia_epoch: float = EPOCHS["dr3"]
    translated: int = 0


@dataclass(frozen=True, slots=True)
class _Stars:
    """Stars to match, at the epoch of LAMOST's positions: (S,) ids, degrees; release of their ids, where known."""

    source_id: np.ndarray
    ra: np.ndarray
    dec: np.ndarray
    epoch: float
    release: str | None


def link_stars(
    atlas: Atlas,
    catalogue: str | None = None,
    *,
    radius_arcsec: float = DEFAULT_RADIUS_ARCSEC,
    lamost_epoch: float = LAMOST_EPOCH,
    gaia_epoch: float | None = None,
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
        Julian years. LAMOST's headers give input-catalogue positions of J2000. The stars' epoch is by default that of
        their column `ref_epoch`, else that of the release that the catalogue's name or file gives (2016.0 of DR3,
        2017.5 of DR4), else DR3's.

    Raises
    ------
    QueryError
        If the catalogue lacks a column.
    AtlasError
        If the atlas has no LAMOST spectra, or no such catalogue.
    """
    from specclip_search.catalogs.ingest import ingest_catalog_table

    obsid, source_id, ra, dec, own, visits = _lamost(atlas)
    stars = _stars(atlas, catalogue, lamost_epoch, gaia_epoch)
    walk = _walk(atlas, stars.release)
    # ids of another release than the stars' are compared as those of their partners
    known = np.where(walk.of(source_id) != UNKNOWN, walk.of(source_id), source_id)
    elsewhere = _elsewhere(known, ra, dec, stars) & ~own
    open_rows = np.flatnonzero(source_id == NO_SOURCE)
    placed = open_rows[np.isfinite(ra[open_rows]) & np.isfinite(dec[open_rows])]
    found = sky_match(ra[placed], dec[placed], stars.ra, stars.dec, radius_arcsec)
    rows, candidates = np.unique(found.left, return_counts=True)
    nearest = found.nearest()
    single = candidates == 1
    matched, translated = _as_spectra(stars.source_id[nearest.right], walk)
    table = pa.table(
        [
            pa.array(np.concatenate([obsid[placed[rows]], obsid[elsewhere]])),
            pa.array(
                np.concatenate([matched, source_id[elsewhere]]),
                mask=np.concatenate([~single, np.ones(elsewhere.sum(), bool)]),
            ),
            pa.array(np.concatenate([nearest.separation, _separation(known, ra, dec, stars)[elsewhere]])),
            pa.array(np.concatenate([np.zeros(len(rows), bool), np.ones(elsewhere.sum(), bool)])),
            pa.array(np.concatenate([candidates, np.zeros(elsewhere.sum())]).astype(np.int64)),
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
        by_id=len(obsid) - len(open_rows) - int(elsewhere.sum()),
        elsewhere=int(elsewhere.sum()),
        by_position=int(single.sum()),
        ambiguous=int((~single).sum()),
        unmatched=len(placed) - len(rows),
        without_position=len(open_rows) - len(placed),
        conflicts=len(star_links(atlas, LAMOST_LRS.link_column, without=(LINKS,)).conflicts),
        gaia_epoch=stars.epoch,
        translated=int((translated & single).sum()),
    )


def _walk(atlas: Atlas, release: str | None) -> CrossWalk:
    """From the ids of the atlas's XP spectra to those of the catalogue's release; empty where these are the same."""
    stage = atlas.spectra(XP)
    of_spectra = {release_of(name) for name in pc.unique(stage.read(["release"])["release"]).to_pylist()} if (
        stage.exists) else set()
    others = {"dr3" if name in ("edr3", "fpr") else name for name in of_spectra if name is not None}
    if release is None or release in others or len(others) != 1:
        return CrossWalk(np.empty(0, np.int64), np.empty(0, np.int64))
    return cross_walk(atlas, others.pop(), release)


def _as_spectra(source_id: np.ndarray, walk: CrossWalk) -> tuple[np.ndarray, np.ndarray]:
    """(N,) ids as the atlas's XP spectra have them, and which of them are others than the catalogue's."""
    order = np.argsort(walk.new, kind="stable")
    new, old = walk.new[order], walk.old[order]
    once = np.unique(new, return_counts=True)[1] == 1
    first = np.unique(new, return_index=True)[1][once]
    back = CrossWalk(new[first], old[first]).of(source_id)
    return np.where(back != UNKNOWN, back, source_id), back != UNKNOWN


def _forget(atlas: Atlas) -> None:
    """Remove links of an earlier run if this one finds none."""
    stage = atlas.catalog(LINKS)
    if stage.exists:
        with stage.lock():
            for part in stage.parts():
                stage.remove(part.number)


def _lamost(atlas: Atlas) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """obsid, source_id if known by id, ra, dec, whether the file names the star; and the number of spectra."""
    stage = atlas.spectra(LRS)
    if not stage.exists:
        raise stage.missing()
    table = stage.read(["spec_id", "source_id", "simulated", "ra", "dec"])
    table = table.filter(pc.invert(table["simulated"]))
    ids = linked_ids(table, star_links(atlas, LAMOST_LRS.link_column, without=(LINKS,)))
    own = np.asarray(table["source_id"].is_valid())
    spec_id = table["spec_id"].to_numpy()
    order = np.lexsort((ids == NO_SOURCE, spec_id))
    first = order[np.unique(spec_id[order], return_index=True)[1]]
    ra, dec = _degrees(table, "ra")[first], _degrees(table, "dec")[first]
    return spec_id[first], ids[first], ra, dec, own[first], len(spec_id)


def _elsewhere(
    source_id: np.ndarray, ra: np.ndarray, dec: np.ndarray, stars: _Stars
) -> np.ndarray:
    """(N,) whether the star that a row is given lies too far from the row's own position to be it.

    An id of another release of Gaia names another star, or none. Where either position is unknown, ids are believed.
    """
    return _separation(source_id, ra, dec, stars) > DISAGREE_ARCSEC


def _separation(
    source_id: np.ndarray, ra: np.ndarray, dec: np.ndarray, stars: _Stars
) -> np.ndarray:
    """(N,) arcsec between a row and the star it is given, at the epoch of LAMOST's positions; NaN where unknown."""
    if not len(stars.source_id):
        return np.full(len(source_id), np.nan)
    place = np.minimum(np.searchsorted(stars.source_id, source_id), len(stars.source_id) - 1)
    known = stars.source_id[place] == source_id
    one, two = np.radians(dec), np.radians(stars.dec[place])
    half = np.sin((two - one) / 2) ** 2 + np.cos(one) * np.cos(two) * np.sin(np.radians(stars.ra[place] - ra) / 2) ** 2
    return np.where(known, np.degrees(2 * np.arcsin(np.sqrt(np.clip(half, 0, 1)))) * 3600, np.nan)


def _stars(atlas: Atlas, catalogue: str | None, lamost_epoch: float, gaia_epoch: float | None) -> _Stars:
    """The stars to match, propagated to the epoch of LAMOST's positions if proper motions are known."""
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
    said = [name for name in (EPOCH_COLUMN, "release") if name in names]
    table = stage.read(["source_id", "ra", "dec", *said, *(moving if len(moving) == 2 else ())])
    usable = pc.and_(table["source_id"].is_valid(), pc.and_(table["ra"].is_valid(), table["dec"].is_valid()))
    table = table.filter(usable)
    first = np.unique(table["source_id"].to_numpy(), return_index=True)[1]
    release, epoch = _release_and_epoch(atlas, catalogue, table)
    epoch = np.full(table.num_rows, gaia_epoch) if gaia_epoch is not None else epoch
    ra, dec, years = _degrees(table, "ra")[first], _degrees(table, "dec")[first], (lamost_epoch - epoch)[first]
    if len(moving) == 2 and years.any():
        ra, dec = move(ra, dec, _degrees(table, "pmra")[first], _degrees(table, "pmdec")[first], years)
    used = float(np.median(epoch)) if len(epoch) else epoch_of(release)
    return _Stars(table["source_id"].to_numpy()[first], ra, dec, used, release)


def _release_and_epoch(atlas: Atlas, catalogue: str | None, table: pa.Table) -> tuple[str | None, np.ndarray]:
    """The Gaia release of a catalogue's ids, where anything says it, and the (N,) epoch of its positions."""
    of_rows = pc.unique(table["release"]).to_pylist() if "release" in table.column_names else []
    found = {release_of(name) for name in of_rows if isinstance(name, str)} - {None}
    release = found.pop() if len(found) == 1 else None
    if catalogue is not None and release is None:
        manifest = read_manifest(atlas.catalog(catalogue)) or {}
        file = str((manifest.get("source") or {}).get("path", "")).rpartition("/")[2]
        column = (table.schema.field("source_id").metadata or {}).get(b"original_name", b"").decode("utf-8", "replace")
        release = next((name for text in (catalogue, file, column) if (name := release_named(text))), None)
    epoch = np.full(table.num_rows, epoch_of(release))
    if catalogue is None:  # XP spectra may be of several releases
        names = table["release"].to_pylist()
        by_name = {name: epoch_of(name) for name in set(names)}
        epoch = np.array([by_name[name] for name in names], np.float64)
    if EPOCH_COLUMN in table.column_names and pa.types.is_floating(table[EPOCH_COLUMN].type):
        own = table[EPOCH_COLUMN].to_numpy()
        epoch = np.where(np.isfinite(own), own, epoch)
        if release is None and len(own) and len(set(own.tolist())) == 1:
            release = next((name for name in ("dr3", "dr4") if EPOCHS[name] == own[0]), None)
    return release, epoch


def _degrees(table: pa.Table, name: str) -> np.ndarray:
    return table[name].cast(pa.float64()).to_numpy()
