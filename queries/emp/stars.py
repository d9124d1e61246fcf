"""Stars of an atlas with the rows of their spectra: one row per star, the best spectrum of each instrument."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from specclip_search.surveys import LRS, XP

from ..space.spectra import read_columns

if TYPE_CHECKING:
    from ..space.space import Space


@dataclass(frozen=True)
class Stars:
    """Stars and their spectra.

    Attributes
    ----------
    source_id
        (N,) int64, -1 if the star of a LAMOST spectrum is unknown; it then counts as a separate star.
    row
        For each instrument (N,) int64 vector row, -1 if the star has no spectrum.
    snr
        For each instrument (N,) float64, NaN if unknown.
    """

    source_id: np.ndarray
    row: dict[str, np.ndarray]
    snr: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.source_id)

    def has(self, modality: str) -> np.ndarray:
        """(N,) bool: whether each star has a spectrum of that instrument."""
        return self.row[modality] >= 0

    def take(self, modality: str, values: np.ndarray) -> np.ndarray:
        """Values by vector row mapped to stars; NaN if a star has no spectrum."""
        row = self.row[modality]
        if len(values) == 0:
            return np.full(len(row), np.nan)
        return np.where(row >= 0, np.asarray(values, dtype=np.float64)[np.maximum(row, 0)], np.nan)


def read_stars(space: Space) -> Stars:
    """All stars with a vector; of several visits the spectrum with the highest S/N."""
    best: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    alone = np.empty(0, np.int64)
    row_snr: dict[str, np.ndarray] = {}
    for modality in (LRS, XP):
        if modality not in space.modalities:
            continue
        keys = space.keys(modality)
        rows = np.arange(len(keys), dtype=np.int64)
        snr = row_snr[modality] = read_columns(space, modality, rows, ("snr",))["snr"]
        source_id = np.asarray(keys.source_id)
        known = rows[source_id >= 0]
        order = known[np.lexsort((known, -np.nan_to_num(snr[known], nan=-1.0), source_id[known]))]
        stars, first = np.unique(source_id[order], return_index=True)
        best[modality] = (stars, order[first])
        if modality == LRS:
            alone = rows[source_id < 0]
    source_id = np.unique(np.concatenate([owners for owners, _ in best.values()]))
    row: dict[str, np.ndarray] = {}
    for modality in (LRS, XP):
        column = np.full(len(source_id) + len(alone), -1, dtype=np.int64)
        if modality in best:
            owners, best_rows = best[modality]
            column[np.searchsorted(source_id, owners)] = best_rows
        if modality == LRS:
            column[len(source_id) :] = alone
        row[modality] = column
    everyone = np.concatenate([source_id, np.full(len(alone), -1, dtype=np.int64)])
    result = Stars(everyone, row, {})
    result.snr.update({modality: result.take(modality, row_snr.get(modality, np.empty(0))) for modality in row})
    return result
