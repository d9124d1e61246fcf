"""HEALPix tiles that partition rows on the sky, with a limited number of rows per tile.

A tile is (order, pixel) in the nested scheme. At the finest order a tile is a range of cells, so
that a cover of the sky is a sorted list of ranges and a cell's tile is found by binary search.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

INDEX_ORDER = 29
# smallest width of a cell over the square root of its area, reached at the edges of the polar caps
_NARROWEST = 0.4


@dataclass(frozen=True, slots=True)
class Tiles:
    """Tiles that do not overlap, in order of their first cell.

    Attributes
    ----------
    order, pixel
        (T,) int64 HEALPix order and nested number.
    """

    order: np.ndarray
    pixel: np.ndarray

    def starts(self, order: int = INDEX_ORDER) -> np.ndarray:
        """(T,) first cell of each tile at `order`, which no tile may be finer than."""
        return self.pixel << (2 * (order - self.order))

    def of(self, cells: np.ndarray, order: int = INDEX_ORDER) -> np.ndarray:
        """(N,) index of the tile that contains each cell of `order`; -1 if none does."""
        if not len(self.order):
            return np.full(len(cells), -1)
        starts = self.starts(order)
        position = np.searchsorted(starts, cells, "right") - 1
        tile = np.maximum(position, 0)
        inside = cells < starts[tile] + (np.int64(1) << (2 * (order - self.order[tile])))
        return np.where((position >= 0) & inside, position, -1)

    def __len__(self) -> int:
        return len(self.order)


def sky_cells(ra: np.ndarray, dec: np.ndarray, order: int = INDEX_ORDER) -> np.ndarray:
    """(N,) int64 nested HEALPix cells of positions in degrees, which must be finite."""
    import astropy.units as u

    if len(ra) == 0:
        return np.empty(0, np.int64)
    return healpix(order).lonlat_to_healpix((ra % 360) * u.deg, dec * u.deg).astype(np.int64)


def healpix(order: int) -> Any:
    """astropy-healpix's nested HEALPix of an order."""
    from astropy_healpix import HEALPix

    return HEALPix(nside=2**order, order="nested")


def share_out(counts: np.ndarray, order: int, max_rows: int) -> Tiles:
    """The largest tiles of at most `max_rows` rows each.

    Parameters
    ----------
    counts
        (12 * 4**order,) rows of each cell at `order`, the finest that a tile may have; a cell
        with more rows than `max_rows` still becomes one tile.

    Returns
    -------
    Tiles
        Only those that hold rows.
    """
    levels = [np.asarray(counts, np.int64)]
    for _ in range(order):
        levels.append(levels[-1].reshape(-1, 4).sum(axis=1))
    found = []
    candidates = np.arange(12, dtype=np.int64)
    for level in range(order + 1):
        rows = levels[order - level][candidates]
        whole = (rows > 0) & ((rows <= max_rows) | (level == order))
        found += [(level, int(pixel)) for pixel in candidates[whole]]
        split = candidates[(rows > 0) & ~whole]
        candidates = (4 * split[:, None] + np.arange(4)).ravel()
    return _sorted(found)


def with_gaps(tiles: Tiles) -> Tiles:
    """A cover of the whole sky: the tiles, and the largest tiles that fill the gaps."""
    split = {(o - up, p >> (2 * up)) for o, p in _pairs(tiles) for up in range(1, o + 1)}
    standing = set(_pairs(tiles))
    found = list(standing)
    todo = [(0, pixel) for pixel in range(12)]
    while todo:
        order, pixel = todo.pop()
        if (order, pixel) in split:
            todo += [(order + 1, 4 * pixel + i) for i in range(4)]
        elif (order, pixel) not in standing:
            found.append((order, pixel))
    return _sorted(found)


def margin_order(arcsec: float) -> int:
    """The finest order whose cells are everywhere wider than the margin.

    What lies within the margin of a tile's edge is then in a cell of the tile's edge or in a neighbour of one.
    """
    from astropy_healpix import nside_to_pixel_resolution

    order = INDEX_ORDER
    while order > 0 and _NARROWEST * nside_to_pixel_resolution(2**order).to_value("arcsec") < arcsec:
        order -= 1
    return order


def margin_rows(tiles: Tiles, cells: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows that lie near a tile other than their own.

    Parameters
    ----------
    tiles
        A cover of the whole sky.
    cells
        (N,) cells of the rows at `order`, from `margin_order`.

    Returns
    -------
    row, tile : (M,) int64
        Includes every row within the margin of a tile's edge, and some farther ones.
    """
    own = tiles.of(cells, order)
    with np.errstate(invalid="ignore"):
        around = healpix(order).neighbours(cells)
    # cells with seven neighbours have -1 for the eighth
    near = np.stack([np.where(cell >= 0, tiles.of(cell, order), own) for cell in around])
    rows, others = np.nonzero((near != own).T)
    pairs = np.unique(np.stack([rows, near.T[rows, others]]), axis=1) if len(rows) else np.empty((2, 0), np.int64)
    return pairs[0], pairs[1]


def _pairs(tiles: Tiles) -> list[tuple[int, int]]:
    return list(zip(tiles.order.tolist(), tiles.pixel.tolist(), strict=True))


def _sorted(found: list[tuple[int, int]]) -> Tiles:
    order = np.array([o for o, _ in found], np.int64)
    pixel = np.array([p for _, p in found], np.int64)
    by = np.argsort(pixel << (2 * (INDEX_ORDER - order)))
    return Tiles(order[by], pixel[by])
