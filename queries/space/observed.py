"""Spectra as observed: flux and inverse variance as delivered, over the survey's full range."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

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
    row = lookup.take(rows[[best]], _COLUMNS).to_pylist()[0]
    grid = row["wavelength"] if row["segments"] is None else wavelengths(row["logarithmic"], row["segments"])
    meta = {name: row[name] for name in _SAID}
    return Spectrum(
        np.asarray(grid, np.float64),
        np.asarray(row["flux"], np.float64) * row["scale"],
        np.asarray(row["ivar"], np.float64) / row["scale"] ** 2,
        key.modality,
        key.spec_id,
        meta,
        epoch,
        row["frame"] or "barycentric",
    )


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
