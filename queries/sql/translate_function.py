"""`translate(target)` in SQL: the predicted spectrum of the other instrument, as a table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from specclip_search.atlas.arrays import column_to_matrix
from specclip_search.errors import QueryError, Reason, SpectrumError
from specclip_search.keys import parse_key

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas

    from ..views.connection import AtlasConnection
    from ..views.views import AtlasViews

_PIXEL = "STRUCT(modality VARCHAR, wavelength DOUBLE, flux FLOAT)[]"
_PIXEL_TYPE = pa.list_(pa.struct([("modality", pa.string()), ("wavelength", pa.float64()), ("flux", pa.float32())]))
_MACRO = (
    "CREATE OR REPLACE MACRO translate(target) AS TABLE "
    "(SELECT h.* FROM (SELECT unnest(_translate(target::VARCHAR)) h))"
)


def add_translate(connection: AtlasConnection, atlas: Atlas, files: bool) -> None:
    """Register `translate` on `connection`.

    Parameters
    ----------
    files
        Whether a target may be the path of a spectrum file.
    """
    from duckdb.func import FunctionNullHandling, PythonUDFType

    def translate(targets: pa.ChunkedArray) -> pa.Array:
        try:
            return _predicted(connection.views, targets.to_pylist(), files)
        except Exception as error:
            connection.failures.keep(error)
            raise

    connection.duckdb.create_function(
        "_translate",
        translate,
        ["varchar"],
        connection.duckdb.type(_PIXEL),
        type=PythonUDFType.ARROW,
        null_handling=FunctionNullHandling.SPECIAL,
        side_effects=True,
    )
    connection.duckdb.execute(_MACRO)


def _predicted(views: AtlasViews, targets: Sequence[str | None], files: bool) -> pa.Array:
    """A list of pixels for each target, null for null; targets of one instrument are translated in one batch."""
    from specclip_search.surveys import get_modality

    model = _model(views.atlas)
    inputs = {i: _spectrum(views, text, files) for i, text in enumerate(targets) if text is not None}
    pixels: dict[int, pa.Array] = {}
    for modality in sorted({name for name, _ in inputs.values()}):
        here = [i for i, (name, _) in inputs.items() if name == modality]
        other = next((name for name in model.modalities if name != modality), modality)
        fluxes = model.translate(modality, np.stack([inputs[i][1] for i in here]))
        wavelength = np.asarray(get_modality(other).wavelength, dtype=np.float64)
        names = pa.array([other] * len(wavelength), pa.string())
        for i, flux in zip(here, fluxes, strict=True):
            columns = [names, pa.array(wavelength), pa.array(np.asarray(flux, dtype=np.float32))]
            pixels[i] = pa.StructArray.from_arrays(columns, fields=list(_PIXEL_TYPE.value_type))
    lengths = [len(pixels[i]) if i in pixels else 0 for i in range(len(targets))]
    ends = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    flat = pa.concat_arrays([pixels[i] for i in sorted(pixels)]) if pixels else pa.array([], _PIXEL_TYPE.value_type)
    return pa.ListArray.from_arrays(ends, flat)


def _model(atlas: Atlas) -> Any:
    folder = atlas.model_folder(atlas.require_model())
    changed = max((entry.stat().st_mtime_ns for entry in os.scandir(folder)), default=0) if folder.is_dir() else 0
    return _loaded(str(folder), changed)


@lru_cache(maxsize=2)
def _loaded(folder: str, changed: int) -> Any:
    """Loaded model, cached while its folder is unchanged."""
    from specclip_search.training.model import load_model

    return load_model(Path(folder))


def _spectrum(views: AtlasViews, target: str, files: bool) -> tuple[str, np.ndarray]:
    """Instrument and model input of a key (`lamost:101001`, `@release` after it) or of a spectrum's file."""
    if files and ":" not in target and Path(target).exists():
        return _from_file(Path(target))
    text, _, release = target.partition("@")
    key = parse_key(text)
    shards = views.spectra_files.get(key.modality)
    if not shards:
        raise QueryError(
            f"{target} is not in this atlas: it holds no {key.modality} spectra.",
            f"It holds {', '.join(views.spectra_files) or 'none at all'}.",
        )
    from specclip_search.keys import release_order
    from specclip_search.surveys import encoder_of

    from ..space.lookup import open_lookup

    lookup = open_lookup(views.atlas, f"spectra_{key.modality}", shards, "spec_id")
    _, rows = lookup.find(np.array([key.spec_id], dtype=np.int64))
    found = lookup.take(rows, ["release", "flux"])
    names = found["release"].to_pylist()
    wanted = [i for i, name in enumerate(names) if not release or name == release]
    if not wanted:
        held = f" in release '{release}'; it is here in {', '.join(sorted(set(names)))}" if names else ""
        raise QueryError(
            f"{target} is not in this atlas{held}.", "Check the id's digits and the survey before the colon."
        )
    newest = max(wanted, key=lambda i: release_order(names[i]))
    return encoder_of(key.modality), np.asarray(column_to_matrix(found["flux"].slice(newest, 1)))[0]


def _from_file(path: Path) -> tuple[str, np.ndarray]:
    from specclip_search.surveys import get_modality, own_encoders
    from specclip_search.surveys.batch import prepare_batch

    from ..space.file_spectrum import read_for_encoder

    spectrum, _ = read_for_encoder(path, own_encoders())
    prepared = prepare_batch(get_modality(spectrum.modality), [spectrum])
    if not bool(prepared.keep[0]):
        reason = prepared.reasons[0] or Reason.UNREADABLE
        raise SpectrumError(
            reason, f"{path} cannot be translated ({reason}): {prepared.messages[0]}", "Choose another spectrum."
        )
    return spectrum.modality, np.asarray(prepared.flux)[0]
