"""Sky matches against astropy's own, at the poles and across 0 hours too."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord, search_around_sky
from astropy.time import Time

from specclip_search.errors import QueryError
from specclip_search.queries.sky.match import move, sky_match


def sky(
    count: int, seed: int, ra: tuple[float, float] = (0, 360), dec: tuple[float, float] = (-90, 90)
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(*ra, count), np.degrees(np.arcsin(rng.uniform(*np.sin(np.radians(dec)), count)))


@pytest.mark.parametrize(
    ("ra", "dec", "radius"),
    [
        ((0, 360), (-90, 90), 3600.0),
        ((0, 1), (-0.5, 0.5), 30.0),
        ((0, 360), (89.5, 90), 60.0),
        ((0, 360), (-90, -89.9), 10.0),
        ((40, 50), (41.5, 42.1), 100.0),
        ((10, 11), (10, 11), 1.0),
    ],
)
def test_same_pairs_as_astropy(ra: tuple[float, float], dec: tuple[float, float], radius: float) -> None:
    ra1, dec1 = sky(3000, 1, ra, dec)
    ra2, dec2 = sky(4000, 2, ra, dec)
    # near pairs for certain, and some on either side of 0 hours
    ra2[:500], dec2[:500] = ra1[:500] + 1e-5, dec1[:500]
    ra1[-2:], dec1[-2:], ra2[-2:], dec2[-2:] = [359.99999, 0.00001], dec[0] / 2, [0.00001, 359.99999], dec[0] / 2
    found = sky_match(ra1, dec1, ra2, dec2, radius)
    left, right, separation, _ = search_around_sky(
        SkyCoord(ra1, dec1, unit="deg"), SkyCoord(ra2, dec2, unit="deg"), radius * u.arcsec
    )
    mine = set(zip(found.left.tolist(), found.right.tolist(), strict=True))
    assert mine == set(zip(left.tolist(), right.tolist(), strict=True))
    assert len(mine) > 100
    np.testing.assert_allclose(np.sort(found.separation), np.sort(separation.arcsec), atol=1e-7)


def test_nearest_is_astropys_nearest() -> None:
    ra1, dec1 = sky(2000, 3, (0, 2), (-1, 1))
    ra2, dec2 = sky(5000, 4, (0, 2), (-1, 1))
    nearest = sky_match(ra1, dec1, ra2, dec2, 60).nearest()
    index, separation, _ = SkyCoord(ra1, dec1, unit="deg").match_to_catalog_sky(SkyCoord(ra2, dec2, unit="deg"))
    near = np.flatnonzero(separation.arcsec <= 60)
    assert np.array_equal(nearest.left, near)
    assert np.array_equal(nearest.right, index[near])


def test_two_candidates_are_told() -> None:
    found = sky_match(np.array([10.0, 20.0]), np.zeros(2), np.array([10.0, 10.0001, 20.0]), np.zeros(3), 3)
    assert found.ambiguous().tolist() == [0]


def test_unknown_positions_match_nothing() -> None:
    nothing = np.array([np.nan, 1.0])
    assert sky_match(nothing, np.array([0.0, np.nan]), nothing, np.zeros(2), 10).left.size == 0
    assert sky_match(np.empty(0), np.empty(0), np.ones(1), np.ones(1), 10).left.size == 0
    with pytest.raises(QueryError, match="at most 3600 arcsec"):
        sky_match(nothing, nothing, nothing, nothing, 5000)


def test_proper_motion_is_astropys() -> None:
    ra, dec = sky(500, 5, (0, 360), (-89.9, 89.9))
    rng = np.random.default_rng(6)
    pmra, pmdec = rng.normal(0, 2000, 500), rng.normal(0, 2000, 500)
    stars = SkyCoord(
        ra * u.deg,
        dec * u.deg,
        pm_ra_cosdec=pmra * u.mas / u.yr,
        pm_dec=pmdec * u.mas / u.yr,
        distance=np.full(500, 1e7) * u.pc,
        radial_velocity=np.zeros(500) * u.km / u.s,
        obstime=Time(2016.0, format="jyear"),
    )
    then = stars.apply_space_motion(new_obstime=Time(2000.0, format="jyear"))
    back = SkyCoord(*move(ra, dec, pmra, pmdec, -16.0), unit="deg")
    assert back.separation(SkyCoord(then.ra, then.dec)).mas.max() < 0.1


def test_unknown_motion_stays() -> None:
    ra, dec = move(np.array([10.0]), np.array([20.0]), np.array([np.nan]), np.array([np.nan]), 16)
    np.testing.assert_allclose([ra[0], dec[0]], [10, 20], atol=1e-12)
