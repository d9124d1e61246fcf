"""Draw a map: single points for few spectra, the mean of each pixel for millions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from specclip_search.tables.pictures import picture

from .colours import Colouring, category_colours, colouring

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS_BELOW = 30_000
PIXELS = 640
# instruments are named on the map if at least this fraction of spectra is nearest to its own instrument's centre
LEAST_APART = 0.9


def draw_map(table: pa.Table, column: str | None, path: Path, title: str = "") -> None:
    """Draw a map as a file ending in .png, .svg or .pdf.

    Parameters
    ----------
    table
        From `specclip_search.queries.maps.map.map_table`.
    column
        Column to colour by; None shows the density of spectra.
    """
    x, y = table["x"].to_numpy(), table["y"].to_numpy()
    colours = None if column is None else colouring(table, column)
    with picture(path, 9.0, 7.6, "a picture of the map") as figure:
        axis = figure.subplots()
        _draw(figure, axis, x, y, colours)
        if column != "modality":
            _name_instruments(axis, x, y, table["modality"].to_pylist())
        axis.set_title(title, fontsize=10, loc="left")
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_xlabel("positions have no unit: near spectra lie near each other", fontsize=7, color="0.4")
        for side in ("left", "bottom"):
            axis.spines[side].set_visible(False)


def _name_instruments(axis: Axes, x: np.ndarray, y: np.ndarray, modality: list[str]) -> None:
    """Label each instrument's region of the map if the regions are separate."""
    from specclip_search.surveys import get_modality

    names = sorted(set(modality))
    owner = np.array(modality)
    middle = {name: (np.median(x[owner == name]), np.median(y[owner == name])) for name in names}
    nearest = np.argmin([np.hypot(x - a, y - b) for a, b in middle.values()], axis=0) if names else np.empty(0)
    if len(names) < 2 or (np.array(names)[nearest] == owner).mean() < LEAST_APART:
        return
    for name in names:
        top = float(y[owner == name].max())
        axis.annotate(
            get_modality(name).title, (middle[name][0], top), (0, 4), textcoords="offset points", ha="center",
            va="bottom", fontsize=9, color="0.25", bbox={"facecolor": "white", "alpha": 0.7, "lw": 0, "pad": 1},
        )  # fmt: skip


def _draw(figure: Figure, axis: Axes, x: np.ndarray, y: np.ndarray, colours: Colouring | None) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    extent = view_of(x, y)
    pixels = PIXELS if len(x) > POINTS_BELOW else int(np.clip(4 * np.sqrt(len(x)), 240, PIXELS))
    image, most = map_image(x, y, colours, extent, pixels, spread=len(x) <= POINTS_BELOW)
    axis.imshow(image, extent=extent, origin="lower", interpolation="nearest", aspect="equal")
    if colours is not None and colours.categories:
        for name, colour in zip(colours.categories, category_colours(colours), strict=True):
            axis.scatter([], [], s=30, color=colour, label=name)
        axis.legend(loc="upper right", fontsize=8, frameon=False, title=colours.label, title_fontsize=8)
        return
    norm = Normalize(0, most) if colours is None else Normalize(colours.low, colours.high)
    label = "spectra a pixel" if colours is None else colours.label
    figure.colorbar(ScalarMappable(norm, "viridis"), ax=axis, shrink=0.7, pad=0.01, label=label,
                    extend="neither" if colours is None else "both")  # fmt: skip


def view_of(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float, float]:
    """A square around all points: (left, right, bottom, top)."""
    centre = [0.5 * (float(values.min()) + float(values.max())) for values in (x, y)]
    half = 0.52 * max(float(np.ptp(x)), float(np.ptp(y)), 1e-6)
    return centre[0] - half, centre[0] + half, centre[1] - half, centre[1] + half


def map_image(
    x: np.ndarray,
    y: np.ndarray,
    colours: Colouring | None,
    extent: tuple[float, float, float, float],
    pixels: int,
    spread: bool = False,
) -> tuple[np.ndarray, float]:
    """The map as (pixels, pixels, 4) RGBA in 0-1, transparent where empty; and the largest count of a pixel.

    A pixel shows the mean of its spectra (numbers) or the most frequent value (categories); denser
    pixels are more opaque. Spectra without a value are grey.

    Parameters
    ----------
    spread
        Draw each point as a small disc, so that single points are visible.
    """
    cell = _cells(x, y, extent, pixels)
    count = np.bincount(cell, minlength=pixels**2).astype(np.float64)
    shown, known = _mean_colours(cell, count, colours, pixels)
    if spread:
        count, shown, known = _spread(count, shown, known, pixels)
    top = np.quantile(count[count > 0], 0.99)
    alpha = np.where(count > 0, 0.35 + 0.65 * np.clip(np.log1p(count) / np.log1p(top), 0, 1), 0.0)
    image = np.zeros((pixels**2, 4))
    image[:, :3] = np.where(known[:, None], shown, 0.72)
    image[:, 3] = np.where(known, alpha, 0.5 * alpha)
    return image.reshape(pixels, pixels, 4), float(count.max())


def _cells(x: np.ndarray, y: np.ndarray, extent: tuple[float, float, float, float], pixels: int) -> np.ndarray:
    left, right, bottom, top = extent
    column = np.clip(((x - left) / (right - left) * pixels).astype(np.int64), 0, pixels - 1)
    row = np.clip(((y - bottom) / (top - bottom) * pixels).astype(np.int64), 0, pixels - 1)
    return row * pixels + column


def _mean_colours(
    cell: np.ndarray, count: np.ndarray, colours: Colouring | None, pixels: int
) -> tuple[np.ndarray, np.ndarray]:
    """(pixels^2, 3) RGB of each pixel, and whether it has a value."""
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb

    viridis = colormaps["viridis"]
    if colours is None:
        return viridis(count / max(count.max(), 1.0))[:, :3], count > 0
    if colours.categories:
        table = np.array([to_rgb(name) for name in category_colours(colours)])
        votes = np.zeros((len(table), pixels**2), dtype=np.int64)
        given = colours.values >= 0
        np.add.at(votes, (colours.values[given], cell[given]), 1)
        return table[votes.argmax(axis=0)], np.asarray(votes.any(axis=0))
    given = np.isfinite(colours.values)
    weight = np.bincount(cell[given], minlength=pixels**2)
    # single extreme values must not dominate a pixel
    clipped = np.clip(colours.values[given], colours.low, colours.high)
    mean = np.bincount(cell[given], weights=clipped, minlength=pixels**2) / np.maximum(weight, 1)
    scaled = (mean - colours.low) / max(colours.high - colours.low, 1e-30)
    return viridis(np.clip(scaled, 0, 1))[:, :3], weight > 0


def _spread(
    count: np.ndarray, shown: np.ndarray, known: np.ndarray, pixels: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fill empty pixels next to filled ones with the mean colour of these."""
    shape: Any = (pixels, pixels)
    full = (count > 0).reshape(shape)
    value = (shown * known[:, None]).reshape(*shape, 3)
    weight = known.reshape(shape).astype(float)
    around = _neighbour_sum(full.astype(float))
    sums, weights, counts = _neighbour_sum(value), _neighbour_sum(weight), _neighbour_sum(count.reshape(shape))
    fill = ~full & (around > 0)
    mean = sums / np.maximum(weights, 1)[..., None]
    shown = np.where((fill & (weights > 0))[..., None], mean, shown.reshape(*shape, 3))
    count = np.where(fill, counts / np.maximum(around, 1), count.reshape(shape))
    known_grid = known.reshape(shape) | (fill & (weights > 0))
    return count.ravel(), shown.reshape(-1, 3), known_grid.ravel()


def _neighbour_sum(grid: np.ndarray) -> np.ndarray:
    """Sum over the four neighbours of each pixel."""
    total = np.zeros_like(grid)
    total[1:] += grid[:-1]
    total[:-1] += grid[1:]
    total[:, 1:] += grid[:, :-1]
    total[:, :-1] += grid[:, 1:]
    return total
