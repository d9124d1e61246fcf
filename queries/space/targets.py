"""Search targets: keys, spectra, spectrum files or stars named by their labels, converted to vectors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from specclip_search.errors import QueryError
from specclip_search.keys import SpectrumKey, is_survey, parse_key
from specclip_search.opening.regular import shown_path
from specclip_search.spectrum import Spectrum
from specclip_search.surveys import encoder_of, get_modality

if TYPE_CHECKING:
    from .space import Space

TargetLike = str | os.PathLike[str] | SpectrumKey | Spectrum


@dataclass(frozen=True, slots=True)
class Target:
    """One search target.

    Attributes
    ----------
    name
        As given by the user; shown in the `target` column.
    modality
        Instrument of the spectrum.
    vector
        (dim,) float32 unit vector.
    row
        Its row among the instrument's vectors, or None for a spectrum that is not in the atlas.
    source_id
        Gaia source_id of the star, or None where unknown.
    centred
        Whether the mean of its instrument has been subtracted from the vector.
    """

    name: str
    modality: str
    vector: np.ndarray
    row: int | None = None
    source_id: int | None = None
    centred: bool = False


def resolve_targets(space: Space, targets: Sequence[TargetLike], stated: dict[str, Any] | None = None,
                    ) -> list[Target]:
    """Find every target in the atlas or read it from its file; all are validated before any search.

    Parameters
    ----------
    targets
        Keys (`lamost:101001`, `lamost:101001@dr7`, `gaia:5853418002145112704`), `SpectrumKey`s, `Spectrum`s,
        spectrum files (`path`, `path#row`, `archive!member`), labels of a star that is to be computed
        (see `specclip_search.queries.space.made_stars`), or any other text that
        `specclip_search.queries.space.resolve.resolve` understands. Without `@release` the newest release with
        this id is used.
    stated
        What spectrum files do not say; see `specclip_search.queries.space.file_spectrum.read_for_encoder`.

    Raises
    ------
    QueryError
        If there are no targets, or nothing is found for one.
    SpectrumError
        If a file contains no usable spectrum; the reason is reported.
    """
    if len(targets) == 0:
        raise QueryError("No target was given.", "Name one, for example lamost:101001 or a spectrum file.")
    return [_resolve(space, target, stated or {}) for target in targets]


def _resolve(space: Space, target: TargetLike, stated: dict[str, Any]) -> Target:
    if isinstance(target, SpectrumKey):
        return _from_atlas(space, target, None, str(target))
    if isinstance(target, Spectrum):
        return _of_spectrum(space, target, target.modality, "spectrum")
    text = os.fspath(target)
    if "=" in text and not isinstance(target, os.PathLike):
        from .made_stars import asks_for_made_star

        if asks_for_made_star(text):
            return _made(space, text, stated)
    if not isinstance(target, os.PathLike) and _looks_like_key(text):
        key_text, _, release = text.partition("@")
        return _from_atlas(space, parse_key(key_text), release or None, text)
    from .resolve import resolve

    found = resolve(space.atlas, target)
    if found.file is not None:
        return _from_file(space, Path(found.file), stated)
    for key in found.keys:
        if key.modality in space.modalities and len(space.keys(key.modality).all_rows_of(np.array([key.spec_id]))[0]):
            return _from_atlas(space, key, None, text)
    raise QueryError(
        f"{text} is {', '.join(map(str, found.keys))} in this atlas, without a vector of '{space.model}'.",
        "Make its vectors first: specclip-search embed, then specclip-search index build.",
    )


def _looks_like_key(text: str) -> bool:
    prefix, colon, _ = text.strip().partition(":")
    return bool(colon) and is_survey(prefix)


def _from_atlas(space: Space, key: SpectrumKey, release: str | None, name: str) -> Target:
    if key.modality not in space.modalities:
        raise QueryError(
            f"{name} is not in this atlas: it holds no {key.modality} vectors of '{space.model}', "
            f"only {', '.join(space.modalities)}.",
            "Ingest and embed that instrument's spectra first.",
        )
    keys = space.keys(key.modality)
    rows, _ = keys.all_rows_of(np.array([key.spec_id], dtype=np.int64), release)
    if len(rows) == 0:
        raise _not_here(space, key, release, name)
    row = int(keys.rows_of(np.array([key.spec_id], dtype=np.int64), release)[0])
    source_id = int(keys.source_id[row])
    vector = space.index(key.modality).raw_vectors(np.array([row]))[0]
    return Target(name, key.modality, vector, row, source_id if source_id >= 0 else None)


def _not_here(space: Space, key: SpectrumKey, release: str | None, name: str) -> QueryError:
    keys = space.keys(key.modality)
    any_release, _ = keys.all_rows_of(np.array([key.spec_id], dtype=np.int64))
    if release is not None and len(any_release):
        held = ", ".join(sorted(set(keys.release_names(any_release))))
        return QueryError(
            f"{name} is not in this atlas: {key} is here in release {held}, not in '{release}'.",
            f"Write {key}@{held.split(', ')[0]}, or leave @release out for the newest.",
        )
    low, high = keys.spec_id[keys.by_spec[0]], keys.spec_id[keys.by_spec[-1]]
    label = get_modality(key.modality).id_name
    return QueryError(
        f"{name} is not in this atlas ({len(keys):,} {key.modality} spectra, {label} {low} to {high}).",
        "Check the id's digits and the survey before the colon; a spectrum file can be given as well.",
    )


def _from_file(space: Space, path: Path, stated: dict[str, Any]) -> Target:
    from specclip_search.opening.guard import reading

    from .file_spectrum import read_for_encoder

    known = tuple(getattr(space.loaded_model(), "modalities", space.modalities))
    spectrum, survey = read_for_encoder(path, known, stated)
    with reading(path, "a spectrum"):
        return _of_spectrum(space, spectrum, survey, shown_path(path))


def _of_spectrum(space: Space, spectrum: Spectrum, survey: str, name: str) -> Target:
    """The target of a spectrum at hand, of an instrument that the model supports."""
    from specclip_search.errors import Reason, SpectrumError
    from specclip_search.surveys.batch import prepare_batch

    modality = space_modality(space, spectrum.modality, name)
    prepared = prepare_batch(get_modality(modality), [spectrum])
    if not bool(prepared.keep[0]):
        reason = prepared.reasons[0] or Reason.UNREADABLE
        raise SpectrumError(
            reason,
            f"{name} cannot be searched with ({reason}): {prepared.messages[0]}",
            "Choose another spectrum; this one would also be rejected on ingest.",
        )
    source_id = spectrum.meta.get("source_id")
    star = None if source_id is None else int(source_id)
    return Target(name, _centred_as(space, survey, modality), _embedded(space, modality, prepared.flux), None, star)


def _embedded(space: Space, modality: str, flux: np.ndarray) -> np.ndarray:
    return np.asarray(space.loaded_model().embed(modality, np.asarray(flux))[0], np.float32)


def _made(space: Space, text: str, stated: dict[str, Any]) -> Target:
    """A star that is computed for labels, or a star of the atlas moved to other ones."""
    from .made_stars import parse_change
    from .read_target import made_rows

    change = parse_change(text)
    base = None if change is None else _resolve(space, change[0], stated)
    rows = made_rows(space.atlas, text, stated, space.model)
    modality = space_modality(space, encoder_of(rows.modality), text)
    vector = _embedded(space, modality, rows.flux.astype(np.float32))
    if base is None:
        return Target(text, _centred_as(space, modality, modality), vector)
    return Target(text, base.modality, vector, base.row, base.source_id)


def _centred_as(space: Space, survey: str, modality: str) -> str:
    """The instrument whose mean a file's vector is compared with: its survey's own, if the space has its vectors."""
    same = [survey, modality, *(name for name in space.modalities if encoder_of(name) == modality)]
    return next((name for name in same if name in space.modalities and encoder_of(name) == modality), modality)


def space_modality(space: Space, modality: str, path: Path | str) -> str:
    """`modality` if the model supports it, else a QueryError that names the file."""
    known = getattr(space.loaded_model(), "modalities", space.modalities)
    if modality not in known:
        raise QueryError(
            f"{path} is a {modality} spectrum; model '{space.model}' supports {', '.join(known)}.",
            "Give a spectrum of one of these instruments.",
        )
    return modality
