"""One instrument's panel in a picture of neighbours: the query over them, telling windows marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .telling_windows import MarkedWindow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = {"lamost_lrs": 0.9, "gaia_xp": 1.6}
FLUX = {"lamost_lrs": "flux / continuum", "gaia_xp": "flux / flux at 550 nm"}
GREEK = {"Halpha": "Hα", "Hbeta": "Hβ", "Hgamma": "Hγ", "Hdelta": "Hδ"}
QUERY, NEAR, MIDDLE, SHARED, APART, CLASSIC = "#0b3d91", "0.55", "#e08a00", "#2a78d6", "#c62828", "0.45"
# so many neighbours are drawn as their median and the band that holds two thirds of them
ENOUGH_FOR_BAND = 5
BAND = (0.16, 0.84)
# share of a spectrum's pixels that may lie outside the picture
LONE_PIXELS = 0.002


@dataclass(frozen=True, slots=True)
class Panel:
    """Everything in one panel: spectra as (N, n), NaN rows for what is not there."""

    modality: str
    queries: np.ndarray
    errors: np.ndarray
    labels: list[str]
    styles: list[str]
    neighbours: np.ndarray
    similarity: np.ndarray
    marked: list[MarkedWindow]


def draw_panel(axis: Axes, panel: Panel, title: str) -> None:
    """Neighbours, over them the queries, the windows marked, a legend."""
    from specclip_search.surveys.modality import get_modality

    modality = get_modality(panel.modality)
    wave = modality.wavelength
    _draw_neighbours(axis, panel, wave)
    colours = [QUERY] if len(panel.queries) == 1 else [f"C{i}" for i in range(len(panel.queries))]
    for flux, label, style, colour in zip(panel.queries, panel.labels, panel.styles, colours * 10, strict=False):
        axis.plot(wave, flux, color=colour, lw=WIDTH.get(panel.modality, 0.9), ls=style, label=label, zorder=4)
    low, high = _limits(panel)
    room = high - low
    axis.set_ylim(low - 0.12 * room, high + 0.35 * room)
    axis.set_xlim(wave[0], wave[-1])
    _mark(axis, panel.marked, wave)
    unit = "vacuum wavelength [Å]" if modality.unit == "Angstrom" else "wavelength [nm]"
    axis.set_xlabel(unit)
    axis.set_ylabel(FLUX.get(panel.modality, "flux"))
    axis.set_title(f"{title}\n{modality.title}".strip(), fontsize=9, loc="left")
    axis.legend(loc="lower right", fontsize=7, frameon=False, ncols=2 if len(panel.queries) < 3 else 3)


def _draw_neighbours(axis: Axes, panel: Panel, wave: np.ndarray) -> None:
    """Few neighbours one by one; of many the median and a band, for noise would bury the query."""
    if not len(panel.neighbours):
        return
    told = f"nearest, similarity {panel.similarity.max():.2f} to {panel.similarity.min():.2f}"
    if len(panel.neighbours) < ENOUGH_FOR_BAND:
        for flux in panel.neighbours[::-1]:
            axis.plot(wave, flux, color=NEAR, lw=0.5, alpha=0.6)
        axis.plot([], [], color=NEAR, lw=1, label=f"{len(panel.neighbours)} {told}")
        return
    low, middle, high = np.nanquantile(panel.neighbours, (BAND[0], 0.5, BAND[1]), axis=0)
    label = f"two thirds of {len(panel.neighbours)} {told}"
    axis.fill_between(wave, low, high, color=NEAR, alpha=0.45, lw=0, label=label)
    axis.plot(wave, middle, color=MIDDLE, lw=0.9, label="their median", zorder=3)


def _limits(panel: Panel) -> tuple[float, float]:
    """Lowest and highest flux to show: the queries but for lone pixels, and what nine of ten neighbours need."""
    # the ends of a spectrum are its noisiest pixels
    inner = slice(panel.queries.shape[1] // 50, -(panel.queries.shape[1] // 50))
    query, near = panel.queries[:, inner], panel.neighbours[:, inner]
    low, high = np.nanquantile(query, (LONE_PIXELS, 1 - LONE_PIXELS))
    if len(near) >= ENOUGH_FOR_BAND:
        near = np.nanquantile(near, BAND, axis=0)
    if len(near):
        low, high = min(low, np.quantile(near.min(axis=1), 0.1)), max(high, np.quantile(near.max(axis=1), 0.9))
    return float(low), float(max(high, low + 1e-3))


def _mark(axis: Axes, marked: Sequence[MarkedWindow], wave: np.ndarray) -> None:
    """Shade the windows and write their names at heights that keep them from running into each other."""
    span = float(wave[-1] - wave[0])
    ends = [-np.inf] * 4
    for window in marked:
        colour = APART if window.apart else SHARED if window.telling else CLASSIC
        axis.axvspan(window.lo, window.hi, color=colour, alpha=0.13 if window.telling else 0.07, lw=0)
        name = GREEK.get(window.name, window.name)
        text = f"{name} {window.z:+.0f}σ" if window.apart else name
        width = 0.0075 * span * len(text)
        middle = float(np.clip(0.5 * (window.lo + window.hi), wave[0] + width / 2, wave[-1] - width / 2))
        level = next((i for i, end in enumerate(ends) if middle - width / 2 > end), len(ends) - 1)
        ends[level] = middle + width / 2
        axis.text(
            middle, 0.985 - 0.065 * level, text, transform=axis.get_xaxis_transform(), ha="center", va="top",
            fontsize=7, color=colour,
        )  # fmt: skip
