"""Two plain ways to find odd stars, on the same pairs, for comparison: isolation forest, reconstruction error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from specclip_search.atlas.arrays import column_to_matrix
from specclip_search.queries.anomalies.pair_table import PairTable
from specclip_search.surveys import LRS, XP

if TYPE_CHECKING:
    from specclip_search.queries.space.space import Space

READ_ROWS = 16_384


def pair_vectors(space: Space, pairs: PairTable) -> np.ndarray:
    """(N, 2 dim) float32 both vectors of each pair side by side."""
    sides = []
    for modality, rows in ((LRS, pairs.lrs_row), (XP, pairs.xp_row)):
        index = space.index(modality)
        sides.append(
            np.concatenate([index.vectors(rows[start : start + READ_ROWS]) for start in range(0, len(rows), READ_ROWS)])
        )
    return np.concatenate(sides, axis=1).astype(np.float32)


def reconstruction_error(space: Space, pairs: PairTable, batch: int = 1024) -> np.ndarray:
    """(N,) log of both spectra's mean squared error through the model's own decoders, each over its median.

    What an auto-encoder's user would rank by: no noise, no neighbours, no partner.
    """
    model = space.loaded_model()
    total = np.zeros(len(pairs))
    for modality, rows in ((LRS, pairs.lrs_row), (XP, pairs.xp_row)):
        error = np.full(len(space.keys(modality)), np.nan)
        start = 0
        for flux in _fluxes(space, modality, batch):
            given = np.asarray(model.reconstruct(modality, flux))
            error[start : start + len(flux)] = np.square(flux - given).mean(axis=1)
            start += len(flux)
        own = error[rows]
        total += own / np.median(own)
    return np.log(total)


def _fluxes(space: Space, modality: str, batch: int) -> Iterator[np.ndarray]:
    """Model inputs in the order of the vectors."""
    for part in space.atlas.vectors(space.model, modality).parts():
        path = space.atlas.spectra(modality).parquet_path(part.number)
        for rows in pq.ParquetFile(path).iter_batches(batch, columns=["flux"]):
            yield column_to_matrix(pa.chunked_array([rows.column("flux")])).astype(np.float32)
