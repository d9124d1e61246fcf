"""The sky of the atlas: how many stars lie where, in equal areas."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...atlas.schemas import described
from ...errors import QueryError
from ..answers import Page

if TYPE_CHECKING:
    from ..session import Session

# cells across the whole sky; few stars are seen only in large cells
_WIDTHS = ((20_000, 180), (500_000, 360))
_WIDEST = 720
NSIDE = 64
FRAMES = ("icrs", "galactic")


def positions(session: Session) -> np.ndarray:
    """(N, 2) float64 ICRS degrees, one a star, of spectra that say where they are."""
    return session.kept(("positions",), lambda: _positions(session), grid=True)


def _positions(session: Session) -> np.ndarray:
    place, star = [], []
    for modality in session.atlas.modalities():
        for part in session.atlas.spectra(modality).parts():
            table = pq.ParquetFile(part.path).read(columns=["ra", "dec", "source_id", "spec_id"])
            one = np.column_stack(
                [table[name].fill_null(np.nan).to_numpy(zero_copy_only=False) for name in ("ra", "dec")]
            )
            known = np.isfinite(one).all(axis=1)
            place.append(one[known])
            ids = np.asarray(table["source_id"].fill_null(-1).to_numpy())
            own = -2 - np.asarray(table["spec_id"].to_numpy())
            star.append(np.where(ids >= 0, ids, own)[known])
    if not place:
        return np.empty((0, 2))
    _, first = np.unique(np.concatenate(star), return_index=True)
    return np.concatenate(place)[first]


def sky_page(session: Session, query: Mapping[str, str]) -> Page:
    """Stars a HEALPix cell (nside 64, nested, ICRS)."""
    from astropy import units
    from astropy_healpix import HEALPix

    place = positions(session)
    grid = HEALPix(nside=NSIDE, order="nested")
    cells, counts = np.empty(0, np.int64), np.empty(0, np.int64)
    ra, dec = np.empty(0), np.empty(0)
    if len(place):
        cell = grid.lonlat_to_healpix(place[:, 0] * units.deg, place[:, 1] * units.deg)
        cells, counts = np.unique(cell, return_counts=True)
        longitude, latitude = grid.healpix_to_lonlat(cells)
        ra, dec = longitude.to_value(units.deg), latitude.to_value(units.deg)
    schema = pa.schema(
        [
            described("healpix", pa.int32(), f"HEALPix cell, nested, nside {NSIDE}", ucd="pos.healpix"),
            described("stars", pa.int32(), "stars in the cell", ucd="meta.number"),
            described("ra", pa.float64(), "right ascension of the cell's centre, ICRS", "deg", "pos.eq.ra;meta.main"),
            described("dec", pa.float64(), "declination of the cell's centre, ICRS", "deg", "pos.eq.dec;meta.main"),
        ]
    )
    arrays = [pa.array(cells, pa.int32()), pa.array(counts, pa.int32()), pa.array(ra), pa.array(dec)]
    table = pa.Table.from_arrays(arrays, schema=schema)
    content = {
        "stars": len(place),
        "cells": len(cells),
        "cell_sq_deg": round(41_252.96 / (12 * NSIDE**2), 4),
        "densest": int(counts.max()) if len(counts) else 0,
        "frames": list(FRAMES),
    }
    return Page(content, table)


def density_bytes(session: Session, query: Mapping[str, str]) -> bytes:
    """Counts in equal-area cells of a Mollweide map: width, height (uint32), then uint16 rows from the north.

    Longitude grows to the left, as on the sky; the middle is 0 h (or the galactic centre).
    """
    frame = query.get("frame", "icrs")
    if frame not in FRAMES:
        raise QueryError(f"There is no frame '{frame[:40]}'.", f"Choose one of {', '.join(FRAMES)}.")
    counts = session.kept(("sky", frame), lambda: _density(positions(session), frame))
    return struct.pack("<II", counts.shape[1], counts.shape[0]) + counts.tobytes()


def _density(place: np.ndarray, frame: str) -> np.ndarray:
    across = next((width for most, width in _WIDTHS if len(place) < most), _WIDEST)
    down = across // 2
    if not len(place):
        return np.zeros((down, across), dtype="<u2")
    longitude, latitude = place[:, 0], place[:, 1]
    if frame == "galactic":
        from astropy.coordinates import SkyCoord

        turned = SkyCoord(longitude, latitude, unit="deg", frame="icrs").galactic
        longitude, latitude = turned.l.deg, turned.b.deg
    x, y = mollweide(longitude, latitude)
    ix = np.clip(((1 - x / 2) / 2 * across).astype(int), 0, across - 1)
    iy = np.clip(((1 - y) / 2 * down).astype(int), 0, down - 1)
    flat = np.bincount(iy * across + ix, minlength=across * down).reshape(down, across)
    return np.minimum(flat, 65_535).astype("<u2")


def mollweide(longitude: np.ndarray, latitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x in -2..2 and y in -1..1 of the Mollweide projection (Snyder 1987, eq. 31-1 to 31-3), degrees in."""
    phi = np.radians(np.asarray(latitude, np.float64))
    lam = np.radians((np.asarray(longitude, np.float64) + 180.0) % 360.0 - 180.0)
    theta = phi.copy()
    for _ in range(60):
        slope = 2 + 2 * np.cos(2 * theta)
        step = (2 * theta + np.sin(2 * theta) - np.pi * np.sin(phi)) / np.where(slope > 1e-12, slope, 1.0)
        step = np.where(slope > 1e-12, step, 0.0)
        theta = np.clip(theta - step, -np.pi / 2, np.pi / 2)
        if np.abs(step).max(initial=0.0) < 1e-9:
            break
    return 2 * lam / np.pi * np.cos(theta), np.sin(theta)
