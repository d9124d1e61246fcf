"""Spectra of a star for the viewer: own flux, prediction from the other instrument, neighbours, residuals."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from specclip_search.queries.similar.search import search_targets
from specclip_search.queries.space.observed import observed_of
from specclip_search.queries.space.pairs import star_color
from specclip_search.queries.space.spectra import SpectrumRows, read_spectra
from specclip_search.queries.space.targets import resolve_targets
from specclip_search.queries.translation.learned_errors import load_errors

from ...errors import QueryError
from ...keys import SpectrumKey, parse_key
from ...surveys import LRS, XP, get_modality

if TYPE_CHECKING:
    from ..session import Session

SIDES = {"lrs": LRS, "xp": XP}
BAND = (0.16, 0.5, 0.84)
NEIGHBOURS = 20
# an observed spectrum is shown where it goes this much (of a wavelength) beyond the model's range
REACH = 0.05
_RELEASE = re.compile(r"[\w.+-]{1,40}")
_FLUX = {LRS: "flux / continuum", XP: "flux / flux at 550 nm"}


@dataclass
class Panel:
    """One instrument's spectra of one star, on one grid of wavelengths.

    Attributes
    ----------
    name
        Name of the panel; the modality's for spectra on the model's grid.
    title, unit, flux
        What is shown, the unit of the wavelengths (vacuum), what the flux is.
    wavelength
        (n,) grid.
    curves
        (n,) values by what they are: flux, error, predicted, residual, low, median, high.
    windows
        Telling stretches: name, ends in `unit`, note, and sigma of the residual where it was measured.
    notes
        What is missing, and why.
    """

    name: str
    title: str
    unit: str
    flux: str
    wavelength: np.ndarray
    key: str = ""
    simulated: bool = False
    curves: dict[str, np.ndarray] = field(default_factory=dict)
    windows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def observed_panels(session: Session, keys: dict[str, tuple[int, str]]) -> list[Panel]:
    """Spectra as observed, over their full range, for the same viewer.

    A panel for each instrument whose observed spectra the atlas holds, where they reach beyond the model's range.

    Parameters
    ----------
    keys
        By modality: spec_id and release of the star's spectrum.
    """
    panels = []
    held = set(session.atlas.observed_names())
    for modality, (spec_id, release) in keys.items():
        if modality not in held:
            continue
        known = get_modality(modality)
        try:
            one = observed_of(session.atlas, SpectrumKey(modality, spec_id), release or None)
        except QueryError:
            # ingested without; the panel of the model's input is there
            continue
        grid = known.wavelength
        if one.wavelength[0] > grid[0] - REACH * grid[0] and one.wavelength[-1] < grid[-1] + REACH * grid[-1]:
            continue
        panel = Panel(f"observed_{modality}", f"{known.title}, as observed", known.unit,
                      one.meta.get("flux_unit") or "flux as delivered", one.wavelength)  # fmt: skip
        panel.key = str(SpectrumKey(modality, spec_id))
        measured = one.ivar > 0
        error = np.where(measured, np.where(measured, one.ivar, 1.0) ** -0.5, np.nan)
        panel.curves = {"flux": np.where(measured, one.flux, np.nan), "error": error}
        panels.append(panel)
    return panels


def star_panels(session: Session, keys: dict[str, tuple[int, str]], whole: bool = True) -> list[Panel]:
    """Panels of a star's spectra.

    Parameters
    ----------
    keys
        By modality: spec_id and release of the star's spectrum.
    whole
        With the prediction, residuals and neighbours; else only the star's own spectra.
    """
    rows = {
        modality: read_spectra(session.atlas, modality, np.array([spec_id], np.int64), [release or None])
        for modality, (spec_id, release) in keys.items()
    }
    rows = {modality: one for modality, one in rows.items() if one.found[0]}
    panels = {modality: _own_panel(modality, keys[modality][0], one) for modality, one in rows.items()}
    if whole:
        for modality, predicted in _predictions(session, rows).items():
            panel = panels.get(modality) or _empty_panel(modality)
            panels[modality] = panel
            panel.curves["predicted"] = predicted
            if modality in rows:
                panel.curves["residual"] = _residual(session, modality, rows, predicted)
        for modality, panel in panels.items():
            _add_neighbours(session, panel, modality, keys)
        _add_windows(session, panels, keys)
    ordered = [panels[modality] for modality in (LRS, XP) if modality in panels]
    return [*ordered, *(observed_panels(session, keys) if whole else [])]


def _empty_panel(modality: str) -> Panel:
    known = get_modality(modality)
    grid = np.asarray(known.wavelength, np.float64)
    return Panel(modality, known.title, known.unit, _FLUX.get(modality, "flux"), grid)


def _own_panel(modality: str, spec_id: int, rows: SpectrumRows) -> Panel:
    panel = _empty_panel(modality)
    panel.key = str(SpectrumKey(modality, spec_id))
    panel.simulated = bool(rows.simulated[0])
    error = rows.error[0]
    panel.curves = {"flux": rows.flux[0], "error": np.where(np.isfinite(error), error, np.nan)}
    return panel


def _predictions(session: Session, rows: dict[str, SpectrumRows]) -> dict[str, np.ndarray]:
    """By modality what the other instrument's spectrum says it should be."""
    result: dict[str, np.ndarray] = {}
    for target, source in ((LRS, XP), (XP, LRS)):
        if source not in rows:
            continue
        flux = rows[source].flux[:1].astype(np.float32)

        def translate(model: Any, source: str = source, target: str = target, flux: np.ndarray = flux) -> Any:
            usable = getattr(model, "can_translate", True) and {source, target} <= set(model.modalities)
            return model.translate(source, flux) if usable else None

        predicted = session.run_model(translate)
        if predicted is not None and np.isfinite(predicted).all():
            result[target] = np.asarray(predicted[0], np.float64)
    return result


def _residual(session: Session, modality: str, rows: dict[str, SpectrumRows], predicted: np.ndarray) -> np.ndarray:
    """(n,) residual in sigma of noise and model error, as `translate` measures it; positive where observed is above."""
    error = rows[modality].error[0]
    bias, sigma = np.zeros_like(predicted), np.zeros_like(predicted)
    folder = session.atlas.translations(session.space.model).folder
    learned = session.kept(("learned errors",), lambda: load_errors(folder))
    if learned is not None and XP in rows and LRS in rows:
        color = star_color(rows[XP].flux, np.asarray(get_modality(XP).wavelength))
        model_error, source = (learned.to_lrs, XP) if modality == LRS else (learned.to_xp, LRS)
        cell = int(model_error.cells(color, rows[source].snr)[0])
        bias, sigma = model_error.bias[cell], model_error.sigma[cell]
    total = np.sqrt(np.where(np.isfinite(error), error, np.nan) ** 2 + sigma**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        residual = (rows[modality].flux[0] - predicted - bias) / total
    return np.where(np.isfinite(residual), residual, np.nan)


def _add_neighbours(session: Session, panel: Panel, modality: str, keys: dict[str, tuple[int, str]]) -> None:
    """Median and 16-84 % band of the nearest spectra of this instrument."""
    space = session.space
    source = modality if modality in keys else next(iter(keys))
    if modality not in space.modalities or source not in space.modalities:
        return
    spec_id, release = keys[source]
    text = f"{SpectrumKey(source, spec_id)}{f'@{release}' if release else ''}"
    target = resolve_targets(space, [text])
    hits = search_targets(space, target, NEIGHBOURS, [modality], exclude_self=True, exclude_repeats=True)[0][0]
    found = space.keys(modality)
    spectra = read_spectra(
        session.atlas, modality, np.asarray(found.spec_id[hits.rows]), found.release_names(hits.rows)
    )
    near = spectra.flux[spectra.found]
    if len(near) >= 3:
        low, median, high = np.quantile(near, BAND, axis=0)
        panel.curves |= {"low": low, "median": median, "high": high}
    else:
        panel.notes.append("fewer than three neighbours, so that no band is drawn")


def _add_windows(session: Session, panels: dict[str, Panel], keys: dict[str, tuple[int, str]]) -> None:
    """The instrument's windows with what `translate` measured of this star in each."""
    from .scores import window_sigmas

    measured = window_sigmas(session, keys)
    for modality, panel in panels.items():
        sigma = measured.get(modality, {})
        for window in get_modality(modality).windows:
            value = sigma.get(window.name)
            panel.windows.append(
                {"name": window.name, "lo": window.lo, "hi": window.hi, "note": window.note,
                 "sigma": None if value is None or not np.isfinite(value) else round(float(value), 2)}
            )  # fmt: skip


def uploaded_panel(modality: str, flux: np.ndarray, error: np.ndarray) -> Panel:
    """The panel of a spectrum that is not in the atlas, on the model's grid."""
    panel = _empty_panel(modality)
    panel.curves = {"flux": flux, "error": np.where(np.isfinite(error), error, np.nan)}
    return panel


def packed_panels(panels: list[Panel]) -> bytes:
    """Panels as bytes: length of the head (uint32), the head as JSON padded to 4 bytes, then float32 little-endian."""
    arrays: list[np.ndarray] = []
    described = []
    offset = 0
    for panel in panels:
        places = {}
        for name, values in {"wavelength": panel.wavelength, **panel.curves}.items():
            places[name] = [offset, len(values)]
            arrays.append(np.asarray(values, dtype="<f4"))
            offset += len(values)
        described.append(
            {"name": panel.name, "title": panel.title, "unit": panel.unit, "flux": panel.flux, "key": panel.key,
             "simulated": panel.simulated, "windows": panel.windows, "notes": panel.notes, "arrays": places}
        )  # fmt: skip
    head = json.dumps({"panels": described}, ensure_ascii=True, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 4)
    return struct.pack("<I", len(head)) + head + b"".join(array.tobytes() for array in arrays)


def checked_key(text: str) -> str:
    """A key as it is written, `@release` after it where one was given; never the name of a file.

    Raises
    ------
    QueryError
        If the text is no key.
    """
    bare, at, release = text.partition("@")
    key = parse_key(bare)
    if at and not _RELEASE.fullmatch(release):
        raise QueryError(f"'{release[:40]}' is no data release.", f"Write {key}, or {key}@dr10.")
    return f"{key}@{release}" if at else str(key)


def star_keys(session: Session, text: str) -> tuple[SpectrumKey, dict[str, tuple[int, str]], int]:
    """What a key names, the star's best spectrum of each instrument, and its source_id (-1 unknown).

    Raises
    ------
    QueryError
        If the text is no key, or not in the atlas.
    """
    text = checked_key(text)
    key = parse_key(text.partition("@")[0])
    space = session.space
    target = resolve_targets(space, [text])[0]
    keys = space.keys(key.modality)
    row = np.array([target.row], dtype=np.int64)
    found = {key.modality: (key.spec_id, keys.release_names(row)[0])}
    source_id = -1 if target.source_id is None else target.source_id
    for modality in space.modalities:
        if modality == key.modality or source_id < 0:
            continue
        others = space.keys(modality)
        rows, _ = others.rows_of_sources(np.array([source_id], np.int64))
        if len(rows):
            best = rows[np.lexsort((-rows, others.release[rows]))][-1:]
            found[modality] = (int(others.spec_id[best[0]]), others.release_names(best)[0])
    return key, found, source_id
