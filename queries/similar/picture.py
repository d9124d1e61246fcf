"""A picture of what `similar` found: the query over its neighbours, one panel an instrument."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from specclip_search.errors import QueryError
from specclip_search.tables.pictures import picture

from ..space.spectra import SpectrumRows, read_spectra, read_target, sample_fluxes
from .similar_panel import Panel, draw_panel
from .summary import summarise
from .telling_windows import telling_windows

if TYPE_CHECKING:
    import pandas as pd

    from specclip_search.atlas import Atlas

MOST_LISTS = 6
MOST_NEIGHBOURS = 60


def plot_similar(atlas: Atlas, found: pd.DataFrame, path: str | Path) -> None:
    """Draw the result of `similar` as a file.

    Parameters
    ----------
    found
        What `similar` returned; its `.attrs` name the targets.
    path
        Ends in .png, .svg or .pdf.

    Raises
    ------
    QueryError
        If the name ends otherwise, nothing was found, or there are more than six lists to draw.
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
    drawn = []
    for title, targets, rows in lists:
        seen = _both_instruments(atlas, found.attrs["options"], model, targets, rows)
        drawn.append((title, _panels(atlas, model, targets, seen)))
    count = sum(len(panels) for _, panels in drawn)
    if not count:
        raise QueryError("Nothing was found: there is nothing to draw.", "Widen --where, or search both instruments.")
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
    """The rows, and where the merged list left an instrument out, its nearest as well.

    Similarities across instruments are lower than within one: a merged list may hold one instrument alone.
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


def _panels(atlas: Atlas, model: str, targets: Sequence[str], rows: pd.DataFrame) -> list[Panel]:
    spectra = [read_target(atlas, target) for target in targets]
    asked = rows["modality"].unique().tolist()
    order = [name for name in ("lamost_lrs", "gaia_xp") if name in asked or any(s.modality == name for s in spectra)]
    return [_panel(atlas, model, modality, targets, spectra, rows[rows["modality"] == modality]) for modality in order]


def _panel(
    atlas: Atlas,
    model: str,
    modality: str,
    targets: Sequence[str],
    spectra: Sequence[SpectrumRows],
    rows: pd.DataFrame,
) -> Panel:
    from specclip_search.surveys.modality import get_modality

    near = rows.head(MOST_NEIGHBOURS)
    shown = read_spectra(atlas, modality, near["spec_id"].to_numpy(np.int64), near["release"].tolist())
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
    """What stands for the query in a panel: itself, the same star's own spectrum there, or its translation."""
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
