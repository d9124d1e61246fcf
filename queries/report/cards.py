"""Cards of a report: one per star, with its spectra, translations, residuals, neighbours, labels and links."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from specclip_search.surveys import PAIR

from ..space.spectra import SpectrumRows, read_spectra
from .spectra_svg import Panel, panel_svg
from .words import catalogue_row, emp_words, evidence_rows, sky_links, written

if TYPE_CHECKING:
    import pandas as pd

    from ..space.space import Space

INSTRUMENTS = {modality.short: modality.name for modality in PAIR}
PREFIX = {modality.name: modality.prefix for modality in PAIR}
NEIGHBOURS = 5
NEIGHBOUR_COLUMNS = ("teff", "logg", "feh", "snr")


@dataclass(frozen=True, slots=True)
class Card:
    """Contents of one card; all texts are plain and escaped by the page."""

    number: str
    keys: tuple[str, ...]
    rank: int
    title: str
    kind: str
    simulated: str
    headline: list[tuple[str, str]]
    flags: list[str]
    reason: str
    panels: list[tuple[str, Markup]]
    neighbours: list[dict[str, str]]
    catalogue: list[tuple[str, str, str]]
    evidence: list[tuple[str, str, str]]
    links: list[tuple[str, str]]


def make_cards(space: Space, frame: pd.DataFrame, letter: str, headline: Sequence[str]) -> list[Card]:
    """One card per row of `anomalies` or `emp`.

    Parameters
    ----------
    frame
        The rows, with `lrs_spec_id`, `xp_spec_id` and their releases.
    letter
        First letter of the cards' anchors.
    headline
        Columns to show at the top of a card.
    """
    if frame.empty:
        return []
    ids = {side: _ids(frame, f"{side}_spec_id") for side in INSTRUMENTS}
    releases = {side: _texts(frame, f"{side}_release") for side in INSTRUMENTS}
    spectra = {
        side: read_spectra(space.atlas, name, ids[side], releases[side])
        for side, name in INSTRUMENTS.items()
        if name in space.modalities
    }
    predicted = _predictions(space, spectra)
    sigma = _window_sigmas(space, ids["lrs"], releases["lrs"])
    neighbours = _neighbours(space, ids, releases)
    about = frame.attrs.get("columns", {})
    cards = []
    for i in range(len(frame)):
        row = frame.iloc[i]
        number = f"{letter}{i + 1}"
        panels = [
            (panel.title, Markup(panel_svg(panel, f"{number}{side}")))
            for side, name in INSTRUMENTS.items()
            if (panel := _panel(name, i, spectra.get(side), predicted.get(side), sigma[i][side])) is not None
        ]
        star = _number(row, "source_id")
        cards.append(
            Card(
                number=number,
                keys=tuple(f"{PREFIX[INSTRUMENTS[s]]}:{ids[s][i]}" for s in ("xp", "lrs") if ids[s][i] >= 0),
                rank=int(row["rank"]),
                title=f"Gaia DR3 {star}" if star >= 0 else f"LAMOST {ids['lrs'][i]}",
                kind=str(row.get("kind") or ""),
                simulated=" and ".join(PREFIX[INSTRUMENTS[s]] for s, rows in spectra.items() if rows.simulated[i]),
                headline=[(name, written(row[name])) for name in headline if name in frame],
                flags=str(row.get("flags") or "").split(),
                reason=str(row.get("reason") or "") or emp_words(row),
                panels=panels,
                neighbours=neighbours[i],
                catalogue=catalogue_row(row, about),
                evidence=evidence_rows(row, about, set(headline)),
                links=sky_links(row, ids["lrs"][i], releases["lrs"][i], spectra.get("lrs"), i),
            )
        )
    return cards


def _ids(frame: pd.DataFrame, column: str) -> np.ndarray:
    if column not in frame:
        return np.full(len(frame), -1, dtype=np.int64)
    return frame[column].astype("Int64").fillna(-1).to_numpy(np.int64)


def _texts(frame: pd.DataFrame, column: str) -> list[str | None]:
    if column not in frame:
        return [None] * len(frame)
    return [value if isinstance(value, str) else None for value in frame[column].tolist()]


def _number(row: pd.Series, column: str) -> int:
    import pandas as pd

    value = row.get(column)
    return -1 if value is None or pd.isna(value) else int(value)


def _predictions(space: Space, spectra: dict[str, SpectrumRows]) -> dict[str, np.ndarray]:
    """For each instrument (N, n) spectra predicted from the other one, NaN if that is missing."""
    from specclip_search.surveys import get_modality

    model = space.loaded_model()
    result = {}
    for side, other in (("lrs", "xp"), ("xp", "lrs")):
        if other not in spectra or INSTRUMENTS[side] not in model.modalities:
            continue
        source = spectra[other]
        flux = np.full((len(source), get_modality(INSTRUMENTS[side]).size), np.nan)
        if source.found.any():
            flux[source.found] = model.translate(source.modality, source.flux[source.found].astype(np.float32))
        result[side] = flux
    return result


def _window_sigmas(
    space: Space, lrs_spec_id: np.ndarray, release: Sequence[str | None]
) -> list[dict[str, np.ndarray | None]]:
    """Window residuals of each card by instrument, as measured by `translate`."""
    nothing: dict[str, np.ndarray | None] = dict.fromkeys(INSTRUMENTS)
    stage = space.atlas.translations(space.model)
    if not stage.exists:
        return [nothing] * len(lrs_spec_id)
    from ..views.connection import connect

    wanted = ", ".join(str(int(value)) for value in np.unique(lrs_spec_id))
    with connect(space.atlas) as connection:
        statement = (
            "SELECT lrs_spec_id, lrs_release, lrs_window_sigma, xp_window_sigma FROM translations "
            f"WHERE lrs_spec_id IN ({wanted})"
        )
        connection.prepare(statement)
        rows = connection.rows(statement).to_pylist()
    known = {(row["lrs_spec_id"], row["lrs_release"]): row for row in rows}
    result: list[dict[str, np.ndarray | None]] = []
    for key in zip(lrs_spec_id.tolist(), release, strict=True):
        row = known.get(key)
        measured = {side: np.array(row[f"{side}_window_sigma"], dtype=float) for side in INSTRUMENTS} if row else {}
        result.append({**nothing, **measured})
    return result


def _panel(
    name: str, i: int, rows: SpectrumRows | None, predicted: np.ndarray | None, sigma: np.ndarray | None
) -> Panel | None:
    from specclip_search.surveys import get_modality

    observed = rows.flux[i] if rows is not None and rows.found[i] else None
    other = predicted[i] if predicted is not None and np.isfinite(predicted[i]).all() else None
    if observed is None and other is None:
        return None
    modality = get_modality(name)
    shown = "observed" if rows is not None and not rows.simulated[i] else "simulated"
    if observed is None:
        words = "as the model predicts it; none was observed"
    else:
        words = f"{shown}, and as predicted from the other instrument" if other is not None else shown
    return Panel(modality, observed, other, sigma if observed is not None else None, f"{modality.title}: {words}")


def _neighbours(
    space: Space, ids: dict[str, np.ndarray], releases: dict[str, list[str | None]]
) -> list[list[dict[str, str]]]:
    """Nearest other stars of each card, in each instrument from the star's own spectrum."""
    from ..similar.similar import similar

    result: list[list[dict[str, str]]] = [[] for _ in ids["lrs"]]
    for side, name in INSTRUMENTS.items():
        if name not in space.modalities:
            continue
        keys = {
            i: f"{PREFIX[name]}:{spec}" + (f"@{releases[side][i]}" if releases[side][i] else "")
            for i, spec in enumerate(ids[side].tolist())
            if spec >= 0
        }
        if not keys:
            continue
        distinct = list(dict.fromkeys(keys.values()))
        found = similar(space.atlas, distinct, NEIGHBOURS, name, model=space.model, exclude_repeats=True)
        lists = dict(iter(found.groupby("target", sort=False)))
        for i, key in keys.items():
            result[i] += [_neighbour(name, row) for _, row in lists[key].iterrows()] if key in lists else []
    return result


def _neighbour(name: str, row: pd.Series) -> dict[str, str]:
    shown = {column: written(row.get(column)) for column in NEIGHBOUR_COLUMNS}
    return {"key": f"{PREFIX[name]}:{int(row['spec_id'])}", "similarity": f"{row['similarity']:.3f}", **shown}
