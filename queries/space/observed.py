"""Spectra as observed: flux and inverse variance as delivered, over the survey's full range."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from specclip_search.errors import QueryError
from specclip_search.ingest.observed import wavelengths
from specclip_search.keys import SpectrumKey, release_order
from specclip_search.spectrum import Spectrum
from specclip_search.surveys import get_modality

from .lookup import open_lookup
from .resolve import resolve

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas

_SAID = ("release", "source", "time", "time_scale", "flux_unit")
_COLUMNS = (*_SAID, "frame", "scale", "logarithmic", "segments", "wavelength", "flux", "ivar")


def observed_spectrum(atlas: Atlas, target: str | Path, *, epoch: int | None = None) -> Spectrum:
    """The spectrum of a key, of a file, or of what `resolve` finds, as observed.

    Parameters
    ----------
    target
        `lamost:101001`, `@release` after it or not; a file.
    epoch
        Number of a visit or exposure; by default the combined spectrum.

    Returns
    -------
    Spectrum
        Vacuum wavelengths in the instrument's unit, flux in the survey's unit. What the atlas keeps is rounded: flux
        by at most 1/8 of its error, `ivar` by at most 1.6 %.

    Raises
    ------
    QueryError
        If the spectrum is not in the atlas, or not as observed.

    Examples
    --------
    >>> from specclip_search import Atlas, observed_spectrum
    >>> spectrum = observed_spectrum(Atlas("my-atlas"), "lamost:101001")    # doctest: +SKIP
    """
    found = resolve(atlas, target)
    if found.file is not None:
        from specclip_search.readers import read_spectrum

        return read_spectrum(found.file)
    return observed_of(atlas, found.keys[0], found.releases[0], epoch)


def observed_of(atlas: Atlas, key: SpectrumKey, release: str | None, epoch: int | None = None) -> Spectrum:
    """The same by key; the newest release where it is None."""
    stage = atlas.observed(key.modality)
    has_epochs = get_modality(key.modality).has_epochs
    files = stage.paths()
    if not files:
        raise QueryError(
            f"The atlas holds no {key.modality} spectra as observed.",
            "Run the same `specclip-search ingest ...` again with --observed; it reads the files again.",
        )
    lookup = open_lookup(atlas, f"observed_{key.modality}", files, "spec_id")
    _, rows = lookup.find(np.array([key.spec_id], np.int64))
    said = lookup.take(rows, ["release", *(["epoch"] if has_epochs else [])]).to_pylist()
    fitting = [
        place
        for place, row in enumerate(said)
        if (release is None or row["release"] == release) and (not has_epochs or row["epoch"] == epoch)
    ]
    if not fitting or (epoch is not None and not has_epochs):
        raise _not_kept(atlas, key, release, epoch, [row.get("epoch") for row in said])
    best = max(fitting, key=lambda place: release_order(said[place]["release"] or ""))
    return _spectra(lookup.take(rows[[best]], _COLUMNS), key.modality, [key.spec_id], [epoch])[0]


def _spectra(
    rows: pa.Table, modality: str, spec_id: Sequence[int], epoch: Sequence[int | None]
) -> list[Spectrum]:
    """Rows of `observed/<modality>` as spectra."""
    said = rows.drop_columns(["wavelength", "flux", "ivar"]).to_pylist()
    found = []
    for i, row in enumerate(said):
        flux, ivar = (np.asarray(rows[name][i].values, np.float64) for name in ("flux", "ivar"))
        grid = (
            np.asarray(rows["wavelength"][i].values, np.float64)
            if row["segments"] is None
            else wavelengths(row["logarithmic"], row["segments"])
        )
        flux, ivar = flux * row["scale"], ivar / row["scale"] ** 2
        meta = {name: row[name] for name in _SAID}
        frame = row["frame"] or "barycentric"
        found.append(Spectrum(grid, flux, ivar, modality, spec_id[i], meta, epoch[i], frame))
    return found


def observed_spectra(atlas: Atlas, modality: str, keys: Sequence[tuple[int, str | None, int | None]]) -> list[Spectrum]:
    """Observed spectra of one instrument by (spec_id, release, epoch), all of which the atlas must hold."""
    has_epochs = get_modality(modality).has_epochs
    lookup = open_lookup(atlas, f"observed_{modality}", atlas.observed(modality).paths(), "spec_id")
    query, rows = lookup.find(np.array([spec_id for spec_id, _, _ in keys], np.int64))
    said = lookup.take(rows, ["release", *(["epoch"] if has_epochs else [])]).to_pylist()
    place = np.full(len(keys), -1, np.int64)
    for number, row, one in zip(query.tolist(), rows.tolist(), said, strict=True):
        _, release, epoch = keys[number]
        if one["release"] == release and one.get("epoch") == epoch:
            place[number] = row
    return _spectra(lookup.take(place, _COLUMNS), modality, [key[0] for key in keys], [key[2] for key in keys])


def _not_kept(
    atlas: Atlas, key: SpectrumKey, release: str | None, epoch: int | None, epochs: list[int | None]
) -> QueryError:
    name = f"{key}{f'@{release}' if release else ''}"
    there = sorted(one for one in epochs if one is not None)
    if epoch is not None or there:
        asked = "its combined spectrum" if epoch is None else f"epoch {epoch}"
        held = ", ".join(map(str, there[:10])) or "none"
        return QueryError(f"{name}: {asked} is not kept as observed; epochs here: {held}.", "Give one with --epoch.")
    return QueryError(
        f"{name} is not kept as observed in {atlas.observed(key.modality).folder}.",
        "Run the same `specclip-search ingest ...` again with --observed; it reads the files again.",
    )
