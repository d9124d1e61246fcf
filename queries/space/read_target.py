"""The model input of what a user named: a key, a spectrum file, or a star that is to be computed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from specclip_search.errors import QueryError, Reason, SpectrumError
from specclip_search.keys import SpectrumKey, is_survey, parse_key
from specclip_search.readers.containers.archive_member import names_a_file
from specclip_search.surveys import LRS, encoder_of, get_modality

from .file_spectrum import read_for_encoder
from .lookup import open_lookup
from .made_stars import NEEDED, asks_for_made_star, changed_input, model_spectrum, parse_change, parse_stars
from .resolve import resolve
from .spectra import SpectrumRows, read_spectra

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas
    from specclip_search.spectrum import Spectrum


def read_target(atlas: Atlas, target: str | Path, stated: dict[str, Any] | None = None) -> SpectrumRows:
    """The spectrum of a key (`lamost:101001`, `@release` after it), of a file, of labels, or of what `resolve` finds.

    Parameters
    ----------
    stated
        What a file does not say; see `specclip_search.queries.space.file_spectrum.read_for_encoder`.

    Raises
    ------
    QueryError
        If the key is not in the atlas.
    SpectrumError
        If the file contains no usable spectrum.
    """
    text = str(target)
    if asks_for_made_star(text):
        return made_rows(atlas, text, stated or {})
    bare, _, release = text.partition("@")
    if names_a_file(text) or not is_survey(bare.partition(":")[0]):
        found = resolve(atlas, target)
        if found.file is not None:
            return _from_file(Path(found.file), stated or {})
        key = found.keys[0]
        release = found.releases[0] or ""
    else:
        key = parse_key(bare)
    rows = read_spectra(atlas, key.modality, np.array([key.spec_id], dtype=np.int64), [release or None])
    if not rows.found[0]:
        raise QueryError(f"{text} is not in this atlas.", "Check the id's digits and the survey before the colon.")
    return rows


def _from_file(path: Path, stated: dict[str, Any]) -> SpectrumRows:
    from specclip_search.opening.guard import reading
    from specclip_search.surveys import own_encoders

    spectrum, _ = read_for_encoder(path, own_encoders(), stated)
    with reading(path, "a spectrum"):
        return _prepared_rows(spectrum, str(path))


def _prepared_rows(spectrum: Spectrum, name: str, *, simulated: bool = False) -> SpectrumRows:
    from specclip_search.surveys.batch import prepare_batch

    prepared = prepare_batch(get_modality(spectrum.modality), [spectrum])
    if not bool(prepared.keep[0]):
        reason = prepared.reasons[0] or Reason.UNREADABLE
        raise SpectrumError(reason, f"{name} cannot be used ({reason}): {prepared.messages[0]}", "Choose another.")
    star = spectrum.meta.get("source_id")
    flux, error = (np.asarray(values, dtype=np.float64) for values in (prepared.flux, prepared.error))
    own = np.array([-1 if star is None else int(star)], dtype=np.int64)
    return SpectrumRows(spectrum.modality, flux, error, np.array([np.nan]), own, np.array([simulated]))


def made_rows(atlas: Atlas, text: str, stated: dict[str, Any], model: str | None = None) -> SpectrumRows:
    """The one spectrum of labels (``teff=4900,logg=1.8,feh=-3.1``), a mixture, or ``KEY but feh=-1``.

    Parameters
    ----------
    stated
        `modality`: the instrument of a computed star; LAMOST LRS by default, whose lines hold more than XP's.
    model
        Model whose estimates give the labels of a star that is changed; the active one by default.

    Raises
    ------
    QueryError
        If the text cannot be understood, the star of the atlas has no estimated labels, or the models do not cover
        the labels.
    """
    change = parse_change(text)
    if change is None:
        spectrum = model_spectrum(parse_stars(text), stated.get("modality") or LRS)
        return _prepared_rows(spectrum, text, simulated=True)
    found = resolve(atlas, change[0])
    if found.file is not None:
        raise QueryError(
            f"{change[0]} is a file, and labels are estimated of spectra in the atlas only.",
            "Ingest it first, or state all labels, as in teff=4900,logg=1.8,feh=-2",
        )
    key, release = found.keys[0], found.releases[0]
    rows = read_spectra(atlas, key.modality, np.array([key.spec_id], dtype=np.int64), [release])
    labels = _own_labels(atlas, atlas.require_model(model), key, release, change[0])
    rows.flux[0] = changed_input(rows.flux[0], encoder_of(key.modality), labels, change[1])
    rows.simulated[0] = True
    return rows


def _own_labels(atlas: Atlas, model: str, key: SpectrumKey, release: str | None, name: str) -> dict[str, float]:
    """Labels estimated from this spectrum."""
    files = atlas.estimates(key.modality, model).paths()
    if files:
        lookup = open_lookup(atlas, f"estimates-{model}-{key.modality}", files, "spec_id")
        found = lookup.take(lookup.find(np.array([key.spec_id]))[1], ["release", *NEEDED]).to_pylist()
        values = next((row for row in found if release in (None, row["release"])), None)
        if values is not None and all(values[label] is not None for label in NEEDED):
            return {label: float(values[label]) for label in NEEDED}
    raise QueryError(
        f"{name} has no labels estimated from its spectrum, to which a change could be added.",
        "Estimate them first: specclip-search estimate. Or state all labels, as in teff=4900,logg=1.8,feh=-2",
    )
