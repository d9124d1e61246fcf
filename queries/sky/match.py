"""Match two lists of sky positions with HEALPix pruning, with proper motion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from specclip_search.errors import MissingExtra, QueryError

ARCSEC_TO_RAD = np.pi / 180 / 3600
MAX_RADIUS_ARCSEC = 3600.0
_BLOCK = 50_000
_FINEST = 16


@dataclass(frozen=True, slots=True)
class SkyMatches:
    """Pairs within the radius, sorted by left row and then by separation.

    Attributes
    ----------
    left, right
        (M,) int64 rows of the two lists.
    separation
        (M,) float64 arcsec.
    """

    left: np.ndarray
    right: np.ndarray
    separation: np.ndarray

    def nearest(self) -> SkyMatches:
        """The nearest right row of each left row with a match."""
        _, first = np.unique(self.left, return_index=True)
        return SkyMatches(self.left[first], self.right[first], self.separation[first])

    def ambiguous(self) -> np.ndarray:
        """Left rows with more than one right row within the radius."""
        rows, counts = np.unique(self.left, return_counts=True)
        return rows[counts > 1]


def move(
    ra: np.ndarray, dec: np.ndarray, pmra: np.ndarray, pmdec: np.ndarray, years: float | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Propagate positions by `years`, assuming linear space motion without parallax or radial velocity.

    The unit vector moves by `years` times the proper motion along the local east and north and
    is renormalised (Hipparcos catalogue, vol. 1, sec. 1.5.5, with zero radial motion).

    Parameters
    ----------
    ra, dec
        (N,) degrees.
    pmra, pmdec
        (N,) mas/yr, pmra with the factor cos(dec); NaN counts as 0.
    years
        Julian years from the positions' epoch, one number or (N,); negative values go back in time.

    Returns
    -------
    ra, dec : (N,) degrees, ra in 0..360
    """
    east, north = _tangents(ra, dec)
    scale = np.asarray(years)[..., None] * ARCSEC_TO_RAD / 1000
    shift = np.nan_to_num(pmra)[:, None] * east + np.nan_to_num(pmdec)[:, None] * north
    moved = unit_vectors(ra, dec) + scale * shift
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    new_ra = np.degrees(np.arctan2(moved[:, 1], moved[:, 0])) % 360
    return new_ra, np.degrees(np.arctan2(moved[:, 2], np.hypot(moved[:, 0], moved[:, 1])))


def sky_match(ra1: np.ndarray, dec1: np.ndarray, ra2: np.ndarray, dec2: np.ndarray, radius_arcsec: float) -> SkyMatches:
    """All pairs of positions within the radius.

    Right positions are sorted by HEALPix cell, with cells no smaller than the radius; a left
    position is compared with those of its own and the eight neighbouring cells. Positions that are not
    finite have no matches.

    Parameters
    ----------
    ra1, dec1, ra2, dec2
        (N,) and (M,) degrees, of one epoch and frame.
    radius_arcsec
        At most one degree.

    Raises
    ------
    QueryError
        If the radius is not between 0 and one degree.
    """
    if not 0 < radius_arcsec <= MAX_RADIUS_ARCSEC:
        raise QueryError(
            f"The radius of a sky match must be above 0 and at most 3600 arcsec; found {radius_arcsec:g}.",
            "For larger areas use cone(ra, dec, radius_deg).",
        )
    healpix = _healpix(radius_arcsec)
    known = np.flatnonzero(np.isfinite(ra2) & np.isfinite(dec2))
    cells = _cells(healpix, ra2[known], dec2[known])
    order = np.argsort(cells, kind="stable")
    cells, rows = cells[order], known[order]
    targets = unit_vectors(ra2[rows], dec2[rows])
    queries = np.flatnonzero(np.isfinite(ra1) & np.isfinite(dec1))
    own = _cells(healpix, ra1[queries], dec1[queries])
    # process neighbours on the sky together, so that the same part of `cells` is searched repeatedly
    queries, own = queries[(by_cell := np.argsort(own))], own[by_cell]
    pieces = [
        _match_block(
            healpix,
            queries[start : start + _BLOCK],
            own[start : start + _BLOCK],
            (ra1, dec1),
            cells,
            targets,
            radius_arcsec,
        )
        for start in range(0, len(queries), _BLOCK)
    ]
    left = np.concatenate([piece[0] for piece in pieces]) if pieces else np.empty(0, np.int64)
    right = rows[np.concatenate([piece[1] for piece in pieces])] if pieces else np.empty(0, np.int64)
    separation = np.concatenate([piece[2] for piece in pieces]) if pieces else np.empty(0)
    by = np.lexsort((right, separation, left))
    return SkyMatches(left[by], right[by], separation[by])


def _healpix(radius_arcsec: float) -> object:
    """Cells whose smallest width exceeds the radius, so that no match is beyond a neighbouring cell."""
    try:
        from astropy_healpix import HEALPix, nside_to_pixel_resolution
    except ImportError as error:
        raise MissingExtra("astropy-healpix", "sky", "A sky match") from error
    level = _FINEST
    # the narrowest cells, at the edges of the polar caps, are about half as wide as the mean
    while level > 0 and nside_to_pixel_resolution(2**level).to_value("arcsec") < 2.5 * radius_arcsec:
        level -= 1
    return HEALPix(nside=2**level, order="nested")


def _cells(healpix: object, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    import astropy.units as u

    if len(ra) == 0:
        return np.empty(0, np.int64)
    return healpix.lonlat_to_healpix((ra % 360) * u.deg, dec * u.deg).astype(np.int64)  # type: ignore[attr-defined]


def _match_block(
    healpix: object,
    rows: np.ndarray,
    own: np.ndarray,
    positions: tuple[np.ndarray, np.ndarray],
    cells: np.ndarray,
    targets: np.ndarray,
    radius_arcsec: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(left row, sorted right position, separation) of the pairs of a block of left rows."""
    ra, dec = positions
    with np.errstate(invalid="ignore"):  # cells with seven neighbours have -1 for the eighth
        around = np.vstack([own[None], healpix.neighbours(own)])  # type: ignore[attr-defined]
    around[around < 0] = -1
    start, stop = np.searchsorted(cells, around, "left"), np.searchsorted(cells, around, "right")
    count = np.where(around >= 0, stop - start, 0)
    total = int(count.sum())
    which = np.repeat(np.broadcast_to(np.arange(len(rows)), count.shape).ravel(), count.ravel())
    offset = np.arange(total) - np.repeat(np.cumsum(count.ravel()) - count.ravel(), count.ravel())
    position = np.repeat(start.ravel(), count.ravel()) + offset
    separation = angle_arcsec(unit_vectors(ra[rows], dec[rows])[which], targets[position])
    near = separation <= radius_arcsec
    return rows[which[near]], position[near], separation[near]


def unit_vectors(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """(N, 3) unit vectors of positions in degrees."""
    lon, lat = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def angle_arcsec(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N,) angle between unit vectors in arcsec, from half the chord, accurate for small angles."""
    chord = np.linalg.norm(first - second, axis=-1)
    return 2 * np.arcsin(np.minimum(chord / 2, 1)) / ARCSEC_TO_RAD


def _tangents(ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors to the east and to the north, (N, 3) each."""
    lon, lat = np.radians(ra), np.radians(dec)
    zero = np.zeros_like(lon)
    east = np.stack([-np.sin(lon), np.cos(lon), zero], axis=-1)
    north = np.stack([-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)], axis=-1)
    return east, north
