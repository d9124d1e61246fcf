"""The map as tiles: counts and mean colours on a grid, single points where few are in view."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TILE = 256
# cells of the finest grid along one side; more stars deserve a finer one
_SIDES = ((100_000, 1024), (2_000_000, 2048))
_FINEST = 4096
MOST_POINTS = 50_000
NO_COLOUR = 255
_COLOURS = 254
MOST_COUNTED = 65_535


@dataclass(frozen=True)
class Extent:
    """The square of the map that the tiles cover: lower left corner and side."""

    x0: float
    y0: float
    side: float


class Tiles:
    """Points of a map sorted by the cell of a square grid.

    Parameters
    ----------
    x, y
        (N,) float32 positions.

    Attributes
    ----------
    extent
        The square that is covered.
    cells
        Cells along one side of the grid; a power of two times `TILE`.
    levels
        Tiles of level z lie on 2**z x 2**z places; the deepest level has one cell a pixel.
    order
        (N,) points by cell, row by row from the lower left.
    starts
        (cells**2 + 1,) place in `order` where each cell begins.
    pyramid
        Counts of each level, (256 * 2**z, 256 * 2**z) uint16; [iy, ix].
    """

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.x, self.y = np.asarray(x, np.float32), np.asarray(y, np.float32)
        self.extent = _extent(self.x, self.y)
        self.cells = next((side for most, side in _SIDES if len(self.x) < most), _FINEST)
        self.levels = int(np.log2(self.cells // TILE))
        cell = self._cell_of(self.x, self.y)
        self.order = np.argsort(cell, kind="stable").astype(np.int64)
        flat = np.bincount(cell, minlength=self.cells**2)
        self.starts = np.concatenate([[0], np.cumsum(flat)]).astype(np.int64)
        self._cell = cell.astype(np.int32)
        levels, counts = [], flat.astype(np.uint32).reshape(self.cells, self.cells)
        for _ in range(self.levels + 1):
            levels.append(np.minimum(counts, MOST_COUNTED).astype("<u2"))
            counts = halved(counts)
        self.pyramid = levels[::-1]

    def _cell_of(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        scale = self.cells / self.extent.side
        ix = np.clip(((x.astype(np.float64) - self.extent.x0) * scale).astype(np.int64), 0, self.cells - 1)
        iy = np.clip(((y.astype(np.float64) - self.extent.y0) * scale).astype(np.int64), 0, self.cells - 1)
        return iy * self.cells + ix

    def colour_grid(self, colour: np.ndarray) -> list[np.ndarray]:
        """Mean colour of each cell, level by level from the coarsest, as bytes of `colour_bytes`.

        Parameters
        ----------
        colour
            (N,) float, between 0 and 1; NaN where unknown.
        """
        known = np.isfinite(colour)
        size, shape = self.cells**2, (self.cells, self.cells)
        total = np.bincount(self._cell[known], weights=colour[known], minlength=size).reshape(shape)
        number = np.bincount(self._cell[known], minlength=size).astype(np.int32).reshape(shape)
        levels = []
        for _ in range(self.levels + 1):
            mean = np.divide(total, number, out=np.full(total.shape, np.nan, np.float32), where=number > 0)
            levels.append(colour_bytes(mean))
            total, number = halved(total), halved(number)
        return levels[::-1]

    def tile(self, level: int, tx: int, ty: int, grid: list[np.ndarray] | None) -> bytes:
        """One tile: (256, 256) uint16 counts, then (256, 256) uint8 mean colours, 255 for none; lower row first."""
        place = (slice(ty * TILE, (ty + 1) * TILE), slice(tx * TILE, (tx + 1) * TILE))
        colours = np.full((TILE, TILE), NO_COLOUR, np.uint8) if grid is None else grid[level][place]
        return self.pyramid[level][place].tobytes() + colours.tobytes()

    def within(self, x0: float, y0: float, x1: float, y1: float, most: int) -> np.ndarray | None:
        """Points in a box, ends included, in the order of their rows; None where there are more than `most`."""
        corners = self._cell_of(np.array([x0, x1]), np.array([y0, y1]))
        (iy0, ix0), (iy1, ix1) = (divmod(int(corner), self.cells) for corner in corners)
        # cells at the rim hold points beyond the box, so that the limit is for what is looked through
        row = np.arange(iy0, iy1 + 1) * self.cells
        first, last = self.starts[row + ix0], self.starts[row + ix1 + 1]
        if int((last - first).sum()) > 4 * most + 10_000:
            return None
        rows = [self.order[a:b] for a, b in zip(first, last, strict=True) if b > a]
        found = np.concatenate(rows) if rows else np.empty(0, np.int64)
        x, y = self.x[found].astype(np.float64), self.y[found].astype(np.float64)
        found = found[(x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)]
        return np.sort(found) if len(found) <= most else None

    def points(self, rows: np.ndarray, box: tuple[float, float, float, float], colour: np.ndarray | None) -> bytes:
        """Points for the browser: uint16 x, uint16 y across the box, uint32 row, uint8 colour, one array each."""
        x0, y0, x1, y1 = box
        across = np.clip((self.x[rows] - x0) / max(x1 - x0, 1e-30) * 65_535, 0, 65_535).astype("<u2")
        up = np.clip((self.y[rows] - y0) / max(y1 - y0, 1e-30) * 65_535, 0, 65_535).astype("<u2")
        colours = np.full(len(rows), NO_COLOUR, np.uint8) if colour is None else colour_bytes(colour[rows])
        return rows.astype("<u4").tobytes() + across.tobytes() + up.tobytes() + colours.tobytes()


def halved(grid: np.ndarray) -> np.ndarray:
    """Sums of 2 x 2 cells."""
    rows = grid[0::2] + grid[1::2]
    return np.asarray(rows[:, 0::2] + rows[:, 1::2])


def _extent(x: np.ndarray, y: np.ndarray) -> Extent:
    """A square around all points with a little room."""
    low = np.array([x.min(), y.min()], np.float64)
    high = np.array([x.max(), y.max()], np.float64)
    side = max(float((high - low).max()), 1e-6) * 1.04
    corner = 0.5 * (low + high) - 0.5 * side
    return Extent(float(corner[0]), float(corner[1]), side)


def colour_bytes(values: np.ndarray) -> np.ndarray:
    """Values between 0 and 1 as 0 to 254, 255 where there is none."""
    known = np.isfinite(values)
    scaled = np.where(known, np.clip(np.where(known, values, 0.0), 0, 1) * _COLOURS, NO_COLOUR)
    return np.rint(scaled).astype(np.uint8)


def inside_polygon(x: np.ndarray, y: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Which points lie inside a polygon, by the number of its edges crossed to the right (even-odd rule).

    Parameters
    ----------
    x, y
        (N,) positions.
    corners
        (m, 2) corners in order.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    inside = np.zeros(len(x), dtype=bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if ay == by:
            continue
        crossed = (ay > y) != (by > y)
        inside ^= crossed & (x < (bx - ax) * (y - ay) / (by - ay) + ax)
    return inside


def polygon_sql(corners: np.ndarray) -> str:
    """The same as a condition on columns x and y; a sum of crossings, flat however many corners there are."""
    terms = []
    ends = corners.tolist()
    for (ax, ay), (bx, by) in zip(ends, [*ends[1:], ends[0]], strict=True):
        if ay == by:
            continue
        terms.append(
            f"(({double(ay)} > y) <> ({double(by)} > y) AND x < {double(bx - ax)} * (y - {double(ay)}) / "
            f"{double(by - ay)} + {double(ax)})::INT"
        )
    return f"list_sum([{', '.join(terms)}]) % 2 = 1"


def double(value: float) -> str:
    """A number that SQL reads as the same double; without an exponent it would be a decimal."""
    text = repr(float(value))
    return f"({text if 'e' in text else text + 'e0'})"
