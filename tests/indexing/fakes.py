"""A model that is plain algebra, and shards of spectra for it."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from specclip_search.atlas import Atlas
from specclip_search.atlas.arrays import table_from_columns
from specclip_search.atlas.schemas import spectra_schema
from specclip_search.errors import Reason, SpectrumError
from specclip_search.surveys import get_modality

SIZES = {"lamost_lrs": 1462, "gaia_xp": 343}


class FakeModel:
    """Projects a spectrum to `dim` numbers; refuses constant spectra like the real one."""

    kind = "mini"
    modalities = ("lamost_lrs", "gaia_xp")

    def __init__(self, seed: int = 0, dim: int = 32, name: str = "fake", delay: float = 0.0,
                 folder: Path | None = None, poison: float | None = None) -> None:
        self.name, self.dim, self.digest = name, dim, f"sha256:fake-{seed}"
        self.delay, self.folder, self.poison = delay, folder, poison
        rng = np.random.default_rng(seed)
        self._weights = {name: rng.normal(size=(size, dim)) for name, size in SIZES.items()}
        self.batches: list[int] = []

    def embed_raw(self, modality: str, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.batches.append(len(inputs))
        time.sleep(self.delay)
        if (np.ptp(inputs, axis=1) == 0).any():
            raise SpectrumError(Reason.FLAT_OR_ZERO, "constant spectrum")
        raw = (inputs.astype(np.float64) @ self._weights[modality]).astype(np.float32)
        norms = np.linalg.norm(raw, axis=1)
        vectors = raw / norms[:, None]
        if self.poison is not None:
            vectors[inputs[:, 0] == np.float32(self.poison)] = np.nan
        return vectors, norms


def write_spectra(atlas: Atlas, modality: str, part: int, flux: np.ndarray, first_id: int,
                  release: str = "dr7") -> None:
    """One shard of spectra with these fluxes; other columns are plain."""
    count, size = flux.shape
    schema = spectra_schema(get_modality(modality).columns, size)
    ids = first_id + np.arange(count, dtype=np.int64)
    given = {"spec_id": ids, "source_id": np.ma.masked_array(ids, mask=ids % 5 == 0), "release": [release] * count,
             "source": ["file"] * count, "simulated": [False] * count, "flux": flux,
             "snr": np.linspace(5, 60, count).astype(np.float32), "error": np.ones_like(flux)}
    columns = {field.name: given.get(field.name, [None] * count) for field in schema}
    stage = atlas.spectra(modality)
    with stage.lock():
        stage.write(part, table_from_columns(columns, schema), schema=schema, inputs=f"{part}-{first_id}")


def fluxes(count: int, modality: str = "gaia_xp", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(1, 0.1, (count, SIZES[modality])).astype(np.float32)
