"""Plot the result of `similar`: the query over its neighbours, one panel per instrument.

Informative windows are marked in each panel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from specclip_search.errors import QueryError
from specclip_search.surveys import MODALITIES
from specclip_search.tables.pictures import picture

from ..space.read_target import read_target
from ..space.spectra import SpectrumRows, read_spectra, sample_fluxes
from .summary import summarise
from .telling_windows import MarkedWindow, telling_windows

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from specclip_search.atlas import Atlas

GREEK = {"Halpha": "Hα", "Hbeta": "Hβ", "Hgamma": "Hγ", "Hdelta": "Hδ"}
QUERY, NEAR, MIDDLE, SHARED, APART, CLASSIC = "#0b3d91", "0.55", "#e08a00", "#2a78d6", "#c62828", "0.45"
# from this number on, neighbours are drawn as their median and a band containing two thirds of them
ENOUGH_FOR_BAND = 5
BAND = (0.16, 0.84)
# fraction of a spectrum's pixels that may lie outside the axes
LONE_PIXELS = 0.002


@dataclass(frozen=True, slots=True)
class Panel:
    """Contents of one panel: spectra as (N, n), NaN rows for missing ones."""

    modality: str
    queries: np.ndarray
    errors: np.ndarray
    labels: list[str]
    styles: list[str]
    neighbours: np.ndarray
    similarity: np.ndarray
    marked: list[MarkedWindow]


def draw_panel(axis: Axes, panel: Panel, title: str) -> None:
    """Draw neighbours, queries on top, marked windows and a legend."""
    from specclip_search.surveys import get_modality

    modality = get_modality(panel.modality)
    wave = modality.wavelength
    _draw_neighbours(axis, panel, wave)
    colours = [QUERY] if len(panel.queries) == 1 else [f"C{i}" for i in range(len(panel.queries))]
    for flux, label, style, colour in zip(panel.queries, panel.labels, panel.styles, colours * 10, strict=False):
        axis.plot(wave, flux, color=colour, lw=get_modality(panel.modality).line_width, ls=style, label=label, zorder=4)
    low, high = _limits(panel)
    room = high - low
    axis.set_ylim(low - 0.12 * room, high + 0.35 * room)
    axis.set_xlim(wave[0], wave[-1])
    _mark(axis, panel.marked, wave)
    unit = "vacuum wavelength [Å]" if modality.unit == "Angstrom" else "wavelength [nm]"
    axis.set_xlabel(unit)
    axis.set_ylabel(get_modality(panel.modality).flux_label)
    axis.set_title(f"{title}\n{modality.title}".strip(), fontsize=9, loc="left")
    axis.legend(loc="lower right", fontsize=7, frameon=False, ncols=2 if len(panel.queries) < 3 else 3)


def _draw_neighbours(axis: Axes, panel: Panel, wave: np.ndarray) -> None:
    """Draw few neighbours individually; many as median and band, so that noise does not hide the query."""
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
    """Flux range: the queries except single pixels, and 90 % of the neighbours."""
    # the ends of a spectrum are its noisiest part
    inner = slice(panel.queries.shape[1] // 50, -(panel.queries.shape[1] // 50))
    query, near = panel.queries[:, inner], panel.neighbours[:, inner]
    low, high = np.nanquantile(query, (LONE_PIXELS, 1 - LONE_PIXELS))
    if len(near) >= ENOUGH_FOR_BAND:
        near = np.nanquantile(near, BAND, axis=0)
    if len(near):
        low, high = min(low, np.quantile(near.min(axis=1), 0.1)), max(high, np.quantile(near.max(axis=1), 0.9))
    return float(low), float(max(high, low + 1e-3))


def _mark(axis: Axes, marked: Sequence[MarkedWindow], wave: np.ndarray) -> None:
    """Shade the windows and write their names at heights that avoid overlaps."""
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


MOST_LISTS = 6
MOST_NEIGHBOURS = 60


def plot_similar(atlas: Atlas, found: pd.DataFrame, path: str | Path) -> None:
    """Plot the result of `similar` to a file.

    Parameters
    ----------
    found
        Result of `similar`; its `.attrs` give the targets.
    path
        Output file; must end in .png, .svg or .pdf.

    Raises
    ------
    QueryError
        If the suffix is wrong, nothing was found, or there are more than six lists to plot.
    MissingExtra
        If matplotlib is not installed.
    """
    lists = _lists(found)
    if len(lists) > MOST_LISTS:
        raise QueryError(
            f"A picture holds at most {MOST_LISTS} targets; found {len(lists)}.",
            "Search with fewer at a time, or with --combine mean or any.",
        )
    model = str(found.attrs["model"])
    stated = {name: found.attrs["options"].get(name) for name in ("unit", "medium", "modality")}
    drawn = []
    for title, targets, rows in lists:
        seen = _both_instruments(atlas, found.attrs["options"], model, targets, rows)
        drawn.append((title, _panels(atlas, model, targets, seen, stated)))
    count = sum(len(panels) for _, panels in drawn)
    if not count:
        raise QueryError("Nothing was found: there is nothing to plot.", "Widen --where, or search both instruments.")
    with picture(Path(path), 11.0, 0.5 + 3.0 * count, "a picture of neighbours") as figure:
        axes = iter(np.atleast_1d(figure.subplots(count, 1)))
        for title, panels in drawn:
            for number, panel in enumerate(panels):
                draw_panel(next(axes), panel, title if number == 0 else "")


def _lists(found: pd.DataFrame) -> list[tuple[str, list[str], pd.DataFrame]]:
    """Title, targets and rows of each list that `found` holds."""
    targets = [str(name) for name in found.attrs["options"]["target"]]
    if "target" in found:
        return [(_title(name, rows), [name], rows) for name in targets if len(rows := found[found["target"] == name])]
    how = found.attrs["options"].get("combine", "each")
    name = targets[0] if len(targets) == 1 else f"{how} of {len(targets)} targets"
    return [(_title(name, found), targets, found)]


def _both_instruments(
    atlas: Atlas, options: dict[str, Any], model: str, targets: list[str], rows: pd.DataFrame
) -> pd.DataFrame:
    """The rows; if the merged list contains no rows of an instrument, also its nearest ones.

    Similarities across instruments are lower than within one, so a merged list may contain one instrument only.
    """
    import pandas as pd

    from ..space.space import open_space
    from .similar import similar

    if options.get("within") not in (None, "both"):
        return rows
    absent = [name for name in open_space(atlas, model).modalities if name not in set(rows["modality"])]
    again = {name: value for name, value in options.items() if name not in ("target", "within")}
    asked: Any = targets[0] if len(targets) == 1 else targets
    return pd.concat([rows, *(similar(atlas, asked, within=name, model=model, **again) for name in absent)])


def _title(name: str, rows: pd.DataFrame) -> str:
    """`gaia:4 · 20 nearest: Teff = 5000 +- 90 K, [Fe/H] = -2.4 +- 0.2`."""
    parts: dict[str, list[str]] = {}
    for text in summarise(rows)["text"] if len(rows) else []:
        having, _, value = text.partition(": ")
        parts.setdefault(having, []).append(value.replace("+-", "±"))
    told = "; ".join(f"{having}: {', '.join(values)}" for having, values in parts.items())
    return f"{name}\n{told or f'{len(rows)} nearest, without labels'}"


def _panels(
    atlas: Atlas, model: str, targets: Sequence[str], rows: pd.DataFrame, stated: dict[str, str | None]
) -> list[Panel]:
    spectra = [read_target(atlas, target, stated) for target in targets]
    asked = rows["modality"].unique().tolist()
    order = [name for name in MODALITIES if name in asked or any(s.modality == name for s in spectra)]
    return [_panel(atlas, model, modality, targets, spectra, rows[rows["modality"] == modality]) for modality in order]


def _panel(
    atlas: Atlas,
    model: str,
    modality: str,
    targets: Sequence[str],
    spectra: Sequence[SpectrumRows],
    rows: pd.DataFrame,
) -> Panel:
    from specclip_search.surveys import get_modality

    near = rows.head(MOST_NEIGHBOURS)
    epochs = None
    if "epoch" in near.columns:
        epochs = [None if number is pd.NA or number != number else int(number) for number in near["epoch"].tolist()]
    shown = read_spectra(atlas, modality, near["spec_id"].to_numpy(np.int64), near["release"].tolist(), epochs)
    shown_by = [_shown_in(atlas, model, modality, name, one) for name, one in zip(targets, spectra, strict=True)]
    queries, errors = (np.array([getattr(one, part)[0] for one, _, _ in shown_by]) for part in ("flux", "error"))
    marked = telling_windows(
        get_modality(modality),
        queries[0] if len(queries) == 1 else np.full_like(queries[0], np.nan),
        errors[0],
        shown.flux[shown.found],
        sample_fluxes(atlas, modality),
    )
    return Panel(
        modality,
        queries,
        errors,
        [label for _, label, _ in shown_by],
        [style for _, _, style in shown_by],
        shown.flux[shown.found],
        near["similarity"].to_numpy(np.float64)[shown.found],
        marked,
    )


def _shown_in(atlas: Atlas, model: str, modality: str, name: str, query: SpectrumRows) -> tuple[SpectrumRows, str, str]:
    """Spectrum representing the query in a panel: itself, the same star's spectrum, or its translation."""
    name = Path(name).name if ":" not in name else name
    if query.modality == modality:
        return query, name, "-"
    own = _same_star(atlas, model, modality, int(query.source_id[0]))
    if own is not None:
        return own, f"same star as {name}", "-"
    from specclip_search.training.model import load_model

    flux = np.asarray(load_model(atlas.model_folder(model)).translate(query.modality, query.flux), dtype=np.float64)
    nothing = np.full_like(flux, np.inf)
    predicted = SpectrumRows(modality, flux, nothing, query.snr, query.source_id, query.simulated)
    return predicted, f"{name} as translated by the model", "--"


def _same_star(atlas: Atlas, model: str, modality: str, source_id: int) -> SpectrumRows | None:
    if source_id < 0:
        return None
    from specclip_search.indexing.vectors.keys import KeyTable

    keys = KeyTable.open(atlas, model, modality)
    rows, _ = keys.rows_of_sources(np.array([source_id], dtype=np.int64))
    if len(rows) == 0:
        return None
    newest = rows[np.argmax(keys.release[rows])]
    return read_spectra(atlas, modality, keys.spec_id[[newest]], keys.release_names(np.array([newest])))
