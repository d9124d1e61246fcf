"""What estimators learn from: an atlas's vectors, with the labels of its catalogues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from specclip_search.atlas.arrays import column_to_matrix
from specclip_search.constants import C_KM_S
from specclip_search.errors import QueryError
from specclip_search.keys import ACCEPTANCE_SPLIT, VALIDATION_SPLIT, split_of
from specclip_search.progress import Progress
from specclip_search.surveys import LRS

from ..networks.label_scale import CARBON_MAX_FEH, LABELS, MEASURED

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas, Part

    from ..model import Model

MAX_ERROR = {"teff": 0.05, "logg": 0.3, "feh": 0.15, "alpha_fe": 0.15}
"""A catalogue's label with a larger error teaches nothing (Teff: as a fraction of it; dex)."""
_OTHER_NAMES = {"alpha_fe": ("alpha_fe", "alpha_m"), "c_fe": ("c_fe", "c_m")}
BATCH_ROWS = 1024


@dataclass(frozen=True)
class LabelledVectors:
    """Vectors of one instrument with labels.

    Attributes
    ----------
    vectors
        (N, dim) float32, rounded to float16 as an atlas keeps them.
    labels
        (N, labels) in the labels' units, NaN where unknown; the order of `MEASURED`.
    snr
        (N,) signal to noise.
    source_id
        (N,) int64.
    simulated
        (N,) bool: the star is a made one. A real star's simulated LRS is not marked.
    """

    vectors: np.ndarray
    labels: np.ndarray
    snr: np.ndarray
    source_id: np.ndarray
    simulated: np.ndarray

    @property
    def validation(self) -> np.ndarray:
        """(N,) bool: stars that calibrate and judge."""
        return split_of(self.source_id) == VALIDATION_SPLIT


@dataclass(frozen=True)
class _Catalogue:
    source_id: np.ndarray
    values: np.ndarray
    made: bool

    def lookup(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values (N, 5), NaN where unknown, and whether the star is in the catalogue (N,)."""
        place = np.searchsorted(self.source_id, ids).clip(max=len(self.source_id) - 1)
        found = self.source_id[place] == ids
        return np.where(found[:, None], self.values[place], np.nan), found


def read_label_catalogue(atlas: Atlas, name: str) -> _Catalogue:
    """Labels of a catalogue, one row a star (the first of several); those with too large errors as NaN."""
    stage = atlas.catalog(name)
    if not stage.exists:
        raise stage.missing()
    table = stage.read()
    if "source_id" not in table.column_names or "teff" not in table.column_names:
        raise QueryError(f"Catalogue '{name}' has no columns source_id and teff.",
                         "Name a catalogue of stellar labels.")
    ids = table.column("source_id").combine_chunks().fill_null(-1).to_numpy().astype(np.int64)
    values = np.full((len(ids), len(LABELS) - 1), np.nan)
    for i, label in enumerate(LABELS[:-1]):
        column = next((n for n in _OTHER_NAMES.get(label, (label,)) if n in table.column_names), None)
        if column is not None:
            values[:, i] = _floats(table, column)
            if label in MAX_ERROR and f"{column}_err" in table.column_names:
                error = _floats(table, f"{column}_err")
                values[(error / values[:, i] if label == "teff" else error) > MAX_ERROR[label], i] = np.nan
    unique, first = np.unique(ids, return_index=True)
    return _Catalogue(unique, values[first], "base_source_id" in table.column_names)


def known_labels(
    known: Sequence[_Catalogue], ids: np.ndarray, redshift: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Labels of stars from the first catalogue that knows each, and the spectra's own velocities.

    Parameters
    ----------
    ids
        (N,) int64 source_id, negative where unknown.
    redshift
        (N,) of the spectra; None for an instrument that shows none.

    Returns
    -------
    labels, made
        (N, 6) float64 in the order of `LABELS`, NaN where unknown, and (N,) whether the star is a made one.
    """
    labels, made = np.full((len(ids), len(LABELS)), np.nan), np.zeros(len(ids), bool)
    named = np.zeros(len(ids), bool)
    for catalogue in known:
        values, found = catalogue.lookup(ids)
        labels[found & ~named, :-1] = values[found & ~named]
        made |= found & ~named & catalogue.made
        named |= found
    # real stars have no [C/Fe] of their own, and made ones scatter about zero where it cannot be seen
    labels[~(labels[:, LABELS.index("feh")] < CARBON_MAX_FEH), LABELS.index("c_fe")] = np.nan
    if redshift is not None:
        labels[:, LABELS.index("rv")] = redshift * C_KM_S
    return labels, made


def _floats(table: pa.Table, column: str) -> np.ndarray:
    return np.asarray(table.column(column).cast(pa.float64()).combine_chunks().to_numpy(zero_copy_only=False))


def labelled_vectors(atlas: Atlas, model: Model, modality: str, catalogues: tuple[str, ...],
                     progress: Progress | None = None) -> LabelledVectors:
    """Vectors and labels of every labelled star of an instrument but acceptance stars.

    Vectors that the atlas holds of these very weights are read, others are made.

    Raises
    ------
    AtlasError
        If there are no such spectra, or a catalogue is missing.
    """
    stage = atlas.spectra(modality)
    if not stage.exists:
        raise stage.missing()
    known = [read_label_catalogue(atlas, name) for name in catalogues]
    parts, total, done = [], stage.rows, 0
    for part in stage.parts():
        parts.append(_of_part(atlas, model, modality, part, known))
        done += part.rows
        if progress is not None:
            progress(done, total, modality)
    return LabelledVectors(*(np.concatenate([part[i] for part in parts]) for i in range(5)))


def _of_part(atlas: Atlas, model: Model, modality: str, part: Part, known: list[_Catalogue]) -> tuple[np.ndarray, ...]:
    extra = ["z"] if modality == LRS else []
    table = pq.read_table(part.path, columns=["source_id", "snr", "flux", *extra])
    ids = table.column("source_id").combine_chunks().fill_null(-1).to_numpy().astype(np.int64)
    labels, made = known_labels(known, ids, _floats(table, "z") if modality == LRS else None)
    usable = (ids >= 0) & (split_of(ids) != ACCEPTANCE_SPLIT) & np.isfinite(labels[:, :-1]).any(axis=1)
    flux = column_to_matrix(table.column("flux"))
    usable[list(model.unusable(modality, flux))] = False
    wanted = np.flatnonzero(usable)
    vectors = _vectors(atlas, model, modality, part, flux, wanted)
    snr = _floats(table, "snr")
    return vectors, labels[wanted][:, : len(MEASURED[modality])], snr[wanted], ids[wanted], made[wanted]


def _vectors(atlas: Atlas, model: Model, modality: str, part: Part, flux: np.ndarray, rows: np.ndarray) -> np.ndarray:
    kept = atlas.vectors(model.name, modality).part(part.number)
    if kept is not None and kept.extra.get("model_digest") == model.digest and kept.rows == part.rows:
        whole = column_to_matrix(pq.read_table(kept.path, columns=["vector"]).column("vector"))
        return whole[rows].astype(np.float32)
    blocks = [model.embed(modality, flux[rows[start : start + BATCH_ROWS]])
              for start in range(0, len(rows), BATCH_ROWS)]
    made = np.concatenate(blocks) if blocks else np.empty((0, model.dim))
    return made.astype(np.float16).astype(np.float32)
