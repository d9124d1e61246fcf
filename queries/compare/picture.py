"""Picture of a comparison: differences of every two sources against the label itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from specclip_search.errors import QueryError
from specclip_search.labels import LABELS
from specclip_search.tables.pictures import picture

from ..statistics.robust_trend import MAD_TO_SIGMA
from ..views.connection import connect
from .compare import Aligned, align, chosen_sources, wanted_labels
from .offsets import LEAST_SHARED, compare_pairs
from .sources import label_sources, unit_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from specclip_search.atlas import Atlas

MOST_PAIRS = 12
BINS = 60
#: from this number of stars on a density is drawn instead of points
DENSE = 2000
LEAST_IN_BIN = 20


def plot_comparison(atlas: Atlas, path: str | Path, label: str, sources: Sequence[str] | None = None) -> None:
    """Draw one panel a pair of sources: first minus second against the mean of both, with its running median.

    Parameters
    ----------
    path
        A .png, .svg or .pdf file.
    label
        The label to draw.

    Raises
    ------
    QueryError
        If fewer than two sources share stars with this label.
    """
    chosen = chosen_sources(label_sources(atlas), sources)
    wanted_labels(chosen, [label])
    with connect(atlas) as connection:
        aligned = align(atlas, connection, chosen, label, None)
    pairs = sorted(compare_pairs(aligned.values, aligned.errors), key=lambda pair: -pair.n)[:MOST_PAIRS]
    if not pairs:
        raise QueryError(
            f"No two sources of {label} share {LEAST_SHARED} stars.", "Compare another label, or other sources."
        )
    columns = min(3, len(pairs))
    rows = -(-len(pairs) // columns)
    with picture(Path(path), 4.4 * columns, 3.2 * rows, "The picture of a comparison") as figure:
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis, pair in zip(grid, pairs, strict=False):
            _draw(axis, aligned, pair.a, pair.b)
        for axis in grid[len(pairs) :]:
            axis.set_axis_off()


def _draw(axis: Axes, aligned: Aligned, a: int, b: int) -> None:
    first, second = aligned.values[:, a], aligned.values[:, b]
    both = np.isfinite(first) & np.isfinite(second)
    x, y = 0.5 * (first + second)[both], (first - second)[both]
    middle = np.median(y)
    reach = max(5.0 * MAD_TO_SIGMA * float(np.median(np.abs(y - middle))), 1e-6)
    low, high = np.quantile(x, (0.002, 0.998))
    extent = (low, high + 1e-9, min(middle - reach, -0.1 * reach), max(middle + reach, 0.1 * reach))
    if len(x) > DENSE:
        axis.hexbin(x, y, gridsize=BINS, extent=extent, bins="log", mincnt=1, cmap="Blues", linewidths=0.1)
    else:
        axis.plot(x, y, ".", ms=3, color="#3a6ea5", alpha=0.6)
    axis.axhline(0.0, color="0.6", lw=0.8)
    edges = np.quantile(x, np.linspace(0, 1, max(2, min(16, len(x) // LEAST_IN_BIN + 1))))
    where = np.clip(np.searchsorted(edges, x, "right") - 1, 0, len(edges) - 2)
    filled = [i for i in range(len(edges) - 1) if (where == i).any()]
    centres = np.array([(np.median(x[where == i]), np.median(y[where == i])) for i in filled])
    axis.plot(*centres.T, color="#b3421e", lw=1.5)
    axis.set_xlim(extent[:2])
    axis.set_ylim(extent[2:])
    names = aligned.sources[a], aligned.sources[b]
    unit = unit_of(aligned.label) or "dex"
    title = f"{names[0]} − {names[1]}: {middle:+.3g} {unit}, {len(x):,} stars"
    axis.set_title(title, fontsize=9, loc="left")
    description = next(one.description for one in LABELS if one.name == aligned.label)
    axis.set_xlabel(f"{description.split(',')[0]} [{unit}]", fontsize=8)
    axis.set_ylabel(f"difference [{unit}]", fontsize=8)
    axis.tick_params(labelsize=8)
