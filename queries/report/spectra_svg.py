"""Spectra of a card as SVG: observed over predicted, with the residual of each window below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from ..space.windows import WindowSet

# lengths in SVG user units
WIDTH, LEFT, RIGHT = 7600, 420, 60
TOP, FLUX_HEIGHT, GAP, BAR_HEIGHT, BOTTOM = 60, 1300, 60, 480, 300
TELLING = 3.5
MOST_NAMED = 4
GREEK = {"Halpha": "Hα", "Hbeta": "Hβ", "Hgamma": "Hγ", "Hdelta": "Hδ"}


@dataclass(frozen=True, slots=True)
class Panel:
    """One instrument of a card.

    Attributes
    ----------
    modality
        The instrument (`Modality`).
    observed, predicted
        (n,) fluxes, or None if missing.
    window_sigma
        (w,) residual of each window in sigma, in the order of `WindowSet`; None if not measured.
    title
        Description of the panel.
    """

    modality: Any
    observed: np.ndarray | None
    predicted: np.ndarray | None
    window_sigma: np.ndarray | None
    title: str


def panel_svg(panel: Panel, number: str) -> str:
    """One panel as an inline SVG element; colours are defined in the page's style sheet."""
    wave = np.asarray(panel.modality.wavelength)
    across = _across(wave)
    bars = panel.window_sigma is not None
    height = TOP + FLUX_HEIGHT + (GAP + BAR_HEIGHT if bars else 0) + BOTTOM
    low, high = _limits(panel)
    shades, names = _marks(panel, _telling(panel), across)
    pieces = [
        f'<svg class="spectrum" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="{number}t {number}d">',
        f'<title id="{number}t">{escape(panel.title)}</title><desc id="{number}d">{escape(_words(panel))}</desc>',
        shades,
        _axes(panel, wave, across, low, high, height),
    ]
    for name, flux in (("pred", panel.predicted), ("obs", panel.observed)):
        if flux is not None:
            pieces.append(f'<path class="{name}" d="{_path(across, flux, low, high)}"/>')
    if bars:
        pieces.append(_bars(panel, across))
    return "".join([*pieces, names, "</svg>"])


def _across(wave: np.ndarray) -> np.ndarray:
    return LEFT + (wave - wave[0]) / (wave[-1] - wave[0]) * (WIDTH - LEFT - RIGHT)


def _limits(panel: Panel) -> tuple[float, float]:
    """Flux range of the panel, ignoring the noisy ends and single spikes."""
    shown = [flux for flux in (panel.observed, panel.predicted) if flux is not None]
    cut = len(shown[0]) // 60
    low = min(float(np.quantile(flux[cut:-cut], 0.002)) for flux in shown)
    high = max(float(np.quantile(flux[cut:-cut], 0.998)) for flux in shown)
    room = max(high - low, 1e-3)
    return low - 0.08 * room, high + 0.16 * room


def _path(across: np.ndarray, flux: np.ndarray, low: float, high: float) -> str:
    """SVG path with integer relative steps: a few bytes per point."""
    x = np.rint(across).astype(int)
    y = np.rint(TOP + FLUX_HEIGHT * (1 - np.clip((flux - low) / (high - low), 0, 1))).astype(int)
    steps = "".join(f"l{dx} {dy}" for dx, dy in zip(np.diff(x), np.diff(y), strict=True))
    return f"M{x[0]} {y[0]}{steps}".replace(" -", "-")


def _axes(panel: Panel, wave: np.ndarray, across: np.ndarray, low: float, high: float, height: int) -> str:
    step = 200 if panel.modality.unit == "Angstrom" else 100
    base = height - BOTTOM
    ticks = np.arange(np.ceil(wave[0] / step) * step, wave[-1] + 1, step)
    places = np.interp(ticks, wave, across)
    text = [f'<path class="frame" d="M{LEFT} {TOP}V{base}H{WIDTH - RIGHT}"/>']
    for tick, x in zip(ticks, places, strict=True):
        text.append(f'<path class="frame" d="M{x:.0f} {base}v30"/><text x="{x:.0f}" y="{base + 130}">{tick:.0f}</text>')
    for value in _round_numbers(low, high):
        y = TOP + FLUX_HEIGHT * (1 - (value - low) / (high - low))
        text.append(f'<path class="grid" d="M{LEFT} {y:.0f}H{WIDTH - RIGHT}"/>')
        text.append(f'<text class="end" x="{LEFT - 30}" y="{y + 35:.0f}">{value:g}</text>')
    unit = "vacuum wavelength, Å" if panel.modality.unit == "Angstrom" else "wavelength, nm"
    text.append(f'<text x="{(LEFT + WIDTH - RIGHT) // 2}" y="{base + 255}">{unit}</text>')
    return "".join(text)


def _round_numbers(low: float, high: float) -> list[float]:
    """Three to five round values in a range."""
    raw = (high - low) / 4
    power = 10.0 ** np.floor(np.log10(raw))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= raw)
    return [float(round(v, 10)) for v in np.arange(np.ceil(low / step) * step, high, step)]


def _telling(panel: Panel) -> list[tuple[str, float, float, float]]:
    """(name, lo, hi, sigma) of the significant windows, most significant first."""
    if panel.window_sigma is None:
        return []
    ends = {window.name: window for window in panel.modality.windows}
    names = WindowSet.of(panel.modality).names
    order = np.argsort(-np.abs(panel.window_sigma), kind="stable")[:MOST_NAMED]
    return [
        (names[i], ends[names[i]].lo, ends[names[i]].hi, float(panel.window_sigma[i]))
        for i in order
        if abs(panel.window_sigma[i]) >= TELLING
    ]


def _marks(panel: Panel, telling: Sequence[tuple[str, float, float, float]], across: np.ndarray) -> tuple[str, str]:
    """Shading of the significant windows, and their names where they do not overlap."""
    wave = np.asarray(panel.modality.wavelength)
    shades, names, taken = [], [], [(-1.0, -1.0)]
    for name, low, high, z in telling:
        lo, hi = np.interp([low, high], wave, across)
        shades.append(
            f'<rect class="shade" x="{lo:.0f}" y="{TOP}" width="{max(hi - lo, 12):.0f}" height="{FLUX_HEIGHT}"/>'
        )
        text = f"{GREEK.get(name, name)} {z:+.0f}σ"
        half = 33.0 * len(text)
        middle = float(np.clip((lo + hi) / 2, LEFT + half, WIDTH - RIGHT - half))
        if all(middle + half < start or middle - half > end for start, end in taken):
            taken.append((middle - half, middle + half))
            names.append(f'<text class="name" x="{middle:.0f}" y="{TOP + 110}">{escape(text)}</text>')
    return "".join(shades), "".join(names)


def _words(panel: Panel) -> str:
    telling = _telling(panel)
    if panel.window_sigma is None:
        return "No residual was measured."
    if not telling:
        return f"No window is off by {TELLING:g} sigma or more."
    return "Largest residuals: " + ", ".join(f"{name} {z:+.1f} sigma" for name, _, _, z in telling) + "."


def _bars(panel: Panel, across: np.ndarray) -> str:
    """Residuals of the windows; heights scaled by asinh, so that both 3 and 100 sigma are visible."""
    assert panel.window_sigma is not None
    wave = np.asarray(panel.modality.wavelength)
    names = WindowSet.of(panel.modality).names
    ends = {window.name: window for window in panel.modality.windows}
    zero = TOP + FLUX_HEIGHT + GAP + BAR_HEIGHT // 2
    scale = 0.48 * BAR_HEIGHT / np.arcsinh(max(float(np.abs(panel.window_sigma).max()), 8.0) / 2)
    text = [
        f'<path class="grid" d="M{LEFT} {zero}H{WIDTH - RIGHT}"/>',
        f'<text class="end" x="{LEFT - 30}" y="{zero + 35}">σ</text>',
    ]
    for name, z in zip(names, panel.window_sigma.tolist(), strict=True):
        lo, hi = np.interp([ends[name].lo, ends[name].hi], wave, across)
        size = scale * np.arcsinh(z / 2)
        y, tall = (zero - size, size) if z > 0 else (zero, -size)
        kind = "bar far" if abs(z) >= TELLING else "bar"
        told = f"{GREEK.get(name, name)}: {z:+.1f} σ"
        text.append(
            f'<rect class="{kind}" x="{lo:.0f}" y="{y:.0f}" width="{max(hi - lo, 12):.0f}" height="{max(tall, 6):.0f}">'
            f"<title>{escape(told)}</title></rect>"
        )
    return "".join(text)
