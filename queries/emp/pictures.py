"""Plots of EMP candidates: a sky map and a histogram of [Fe/H]."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from specclip_search.atlas.files import whole_file
from specclip_search.errors import MissingExtra, QueryError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FRAMES = ("galactic", "equatorial")
SUFFIXES = (".png", ".svg", ".pdf")
FEH_BIN = 0.1
# probability limits drawn from light to dark
LIKELY = (0.1, 0.5, 0.9)
SHADES = ("#c6d7ea", "#7ba6cf", "#1f4e79")
CARBON_COLOUR = "#c44e00"


def draw(frame: pd.DataFrame, path: str | Path, galactic: bool = True) -> Path:
    """Sky map above, histogram below, in one figure; see `sky_map` and `histogram`."""
    with _figure(path, (9.0, 9.5)) as figure:
        grid = figure.add_gridspec(2, 1, height_ratios=(1.25, 1.0))
        _sky(figure.add_subplot(grid[0], projection="mollweide"), frame, galactic)
        _histogram(figure.add_subplot(grid[1]), frame)
    return Path(path)


def sky_map(frame: pd.DataFrame, path: str | Path, galactic: bool = True) -> Path:
    """All-sky map of candidates in Mollweide's equal-area projection.

    Parameters
    ----------
    frame
        A result of `emp_candidates`: ra and dec in degrees (ICRS), probability, flags.
    path
        PNG, SVG or PDF file to write.
    galactic
        Galactic coordinates, l = 0 in the middle and increasing to the left; else ICRS with RA = 0
        in the middle.

    Raises
    ------
    QueryError
        If no candidate has a position, or the file name has no known suffix.
    MissingExtra
        If matplotlib is not installed.
    """
    with _figure(path, (9.0, 5.4)) as figure:
        _sky(figure.add_subplot(projection="mollweide"), frame, galactic)
    return Path(path)


def histogram(frame: pd.DataFrame, path: str | Path) -> Path:
    """Histogram of the candidates' [Fe/H], by probability, and of the carbon-enhanced ones."""
    with _figure(path, (8.0, 4.6)) as figure:
        _histogram(figure.add_subplot(), frame)
    return Path(path)


@contextmanager
def _figure(path: str | Path, size: tuple[float, float]) -> Iterator[Figure]:
    """A figure that is written atomically when the block ends."""
    target = Path(path)
    if target.suffix.lower() not in SUFFIXES:
        raise QueryError(f"A picture must be one of {', '.join(SUFFIXES)}; found '{target.name}'.", "Rename the file.")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure as NewFigure
    except ImportError as error:
        raise MissingExtra("matplotlib", "plots", "Drawing candidates") from error
    figure = NewFigure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    yield figure
    kind = target.suffix.lower()[1:]
    # no date in the file: the same candidates give the same bytes
    metadata: dict[str, Any] = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
    with whole_file(target) as temporary:
        figure.savefig(temporary, format=kind, dpi=150, metadata=metadata)


def _sky(axes: Axes, frame: pd.DataFrame, galactic: bool) -> None:
    place = [frame[name].to_numpy(dtype=float, na_value=np.nan) for name in ("ra", "dec") if name in frame]
    if len(place) < 2 or not np.isfinite(place).all(axis=0).any():
        raise QueryError("None of the candidates has a position.", "Ingest a catalogue that has ra and dec.")
    known = np.isfinite(place).all(axis=0)
    x, y = _projected(place[0][known], place[1][known], galactic)
    probability = frame["probability"].to_numpy(dtype=float)[known]
    carbon = _carbon(frame)[known]
    order = np.argsort(probability, kind="stable")
    size = float(np.clip(4000 / max(len(order), 1), 6, 36))
    points = axes.scatter(
        x[order], y[order], c=probability[order], s=size, cmap="viridis_r", vmin=0, vmax=1, linewidths=0, zorder=3
    )
    if carbon.any():
        label = f"carbon-enhanced ({int(carbon.sum())})"
        axes.scatter(
            x[carbon], y[carbon], s=3 * size, facecolors="none", edgecolors=CARBON_COLOUR, label=label, zorder=4
        )
        axes.legend(loc="upper right", bbox_to_anchor=(1.02, 1.1), frameon=False, fontsize=9)
    axes.grid(color="0.8", linewidth=0.6)
    hours = np.arange(-150, 180, 30)
    axes.set_xticks(np.radians(hours), [f"{-h % 360:d}°" for h in hours], fontsize=8, color="0.3")
    axes.tick_params(axis="y", labelsize=8, labelcolor="0.3")
    bar = axes.figure.colorbar(points, ax=axes, orientation="horizontal", shrink=0.6, pad=0.06, aspect=40)
    bar.set_label("probability")
    middle = "Galactic, l = 0 in the middle" if galactic else "equatorial (ICRS), RA = 0 in the middle"
    without = f"; {int((~known).sum())} more without position" if (~known).any() else ""
    title = f"{int(known.sum())} candidates below [Fe/H] = {_below(frame)}: {middle}{without}"
    axes.set_title(title, fontsize=11, pad=16)


def _projected(ra: np.ndarray, dec: np.ndarray, galactic: bool) -> tuple[np.ndarray, np.ndarray]:
    """Radians on the map, longitude increasing to the left."""
    if not galactic:
        return -np.radians((ra + 180.0) % 360.0 - 180.0), np.radians(dec)
    from astropy import units
    from astropy.coordinates import SkyCoord

    sky = SkyCoord(ra, dec, unit="deg").galactic
    return -sky.l.wrap_at(180 * units.deg).radian, sky.b.radian


def _histogram(axes: Axes, frame: pd.DataFrame) -> None:
    feh = frame["feh"].to_numpy(dtype=float, na_value=np.nan)
    probability = frame["probability"].to_numpy(dtype=float)
    known = np.isfinite(feh)
    if not known.any():
        raise QueryError("None of the candidates has an estimate of [Fe/H].", "Ask for more candidates with --top.")
    edges = (np.arange(np.floor(feh[known].min() * 10), np.ceil(feh[known].max() * 10) + 2) / 10).tolist()
    axes.hist(feh[known], edges, color="0.88", label=f"all listed ({int(known.sum())})")
    for limit, shade in zip(LIKELY, SHADES, strict=True):
        chosen = known & (probability >= limit)
        axes.hist(feh[chosen], edges, color=shade, label=f"probability ≥ {limit:g} ({int(chosen.sum())})")
    carbon = known & _carbon(frame)
    if carbon.any():
        style = {"histtype": "step", "color": CARBON_COLOUR, "linewidth": 1.6}
        axes.hist(feh[carbon], edges, label=f"carbon-enhanced ({int(carbon.sum())})", **style)  # type: ignore[arg-type]
    below = frame.attrs.get("options", {}).get("below")
    if below is not None:
        axes.axvline(below, color="0.3", linestyle="--", linewidth=1)
    axes.set_xlabel("[Fe/H] from all evidence together, dex")
    axes.set_ylabel(f"stars per {FEH_BIN:g} dex")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)


def _carbon(frame: pd.DataFrame) -> np.ndarray:
    flags = frame["flags"].fillna("") if "flags" in frame else None
    return np.zeros(len(frame), bool) if flags is None else flags.str.contains("carbon_enhanced").to_numpy(bool)


def _below(frame: pd.DataFrame) -> str:
    below = frame.attrs.get("options", {}).get("below")
    return "?" if below is None else f"{below:g}"
