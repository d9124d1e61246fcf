"""A little paired survey with known truth and a linear model that knows its physics."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from specclip_search.atlas import Atlas
from specclip_search.atlas.arrays import table_from_columns
from specclip_search.atlas.schemas import spectra_schema, vectors_schema
from specclip_search.surveys import GAIA_XP, LAMOST_LRS, get_modality

LRS, XP = "lamost_lrs", "gaia_xp"
MODALITIES = {LRS: LAMOST_LRS, XP: GAIA_XP}
# ids above 2**53: a float anywhere on the way would merge neighbours
FIRST_SOURCE = 5_853_418_002_145_112_704
LATENT = 3
DIM = 48


def basis(modality: str) -> np.ndarray:
    """(LATENT, n): how each hidden parameter changes a spectrum; lines and, in XP, slopes."""
    wave = MODALITIES[modality].wavelength
    centres = [(4102, 4341, 4862), (4383, 5175, 5270, 4050), (4300, 4737, 5165)]
    scale, width = (1.0, 9.0) if modality == LRS else (0.1, 6.0)
    rows = [sum(-0.12 * np.exp(-0.5 * ((wave - c * scale) / width) ** 2) for c in group) for group in centres]
    if modality == XP:
        span = (wave - 550) / 300
        rows = [rows[0] - 0.35 * span, rows[1] + 0.12 * span**2, rows[2] + 0.08 * np.sin(4 * span)]
    return np.array(rows)


@dataclass
class LinearModel:
    """Recovers the hidden parameters by least squares; embeds them as random Fourier features."""

    name: str = "toy"
    kind: str = "toy"
    dim: int = DIM
    digest: str = "sha256:toy"
    modalities: tuple[str, ...] = (LRS, XP)
    calls: list[str] = field(default_factory=list)

    def hidden(self, modality: str, inputs: np.ndarray) -> np.ndarray:
        return (np.asarray(inputs, float) - 1.0) @ np.linalg.pinv(basis(modality))

    def embed(self, modality: str, inputs: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng(5)
        phase = self.hidden(modality, inputs) @ rng.normal(0, 0.8, (LATENT, DIM)) + rng.uniform(0, 6.3, DIM)
        offset = np.random.default_rng(7 if modality == LRS else 8).normal(0, 0.3, DIM)
        vectors = np.cos(phase) + offset
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    def translate(self, source: str, inputs: np.ndarray) -> np.ndarray:
        self.calls.append(source)
        other = XP if source == LRS else LRS
        return (1.0 + self.hidden(source, inputs) @ basis(other)).astype(np.float32)

    def reconstruct(self, modality: str, inputs: np.ndarray) -> np.ndarray:
        return (1.0 + self.hidden(modality, inputs) @ basis(modality)).astype(np.float32)


@dataclass
class Survey:
    """What a toy atlas was made from."""

    atlas: Atlas
    model: LinearModel
    source_id: np.ndarray
    obsid: np.ndarray
    hidden: np.ndarray
    planted: dict[str, np.ndarray]

    def index(self) -> None:
        from specclip_search.indexing.build.build import build_index

        for modality in self.atlas.modalities():
            build_index(self.atlas, self.model.name, modality)

    def embed(self) -> None:
        write_vectors(self.atlas, self.model)
        self.index()


def labels_of(hidden: np.ndarray) -> dict[str, np.ndarray]:
    """Teff, log g and [Fe/H] that stand for the hidden parameters."""
    return {"teff": 5500 - 700 * hidden[:, 0], "logg": 3.0 + 0.8 * hidden[:, 2], "feh": -1.2 + 0.7 * hidden[:, 1]}


def make_survey(
    folder: Path,
    stars: int = 900,
    seed: int = 1,
    shards: int = 3,
    wrong: int = 0,
    emission: int = 0,
    labelled: bool = True,
    hidden: np.ndarray | None = None,
    release: str = "dr9",
) -> Survey:
    rng = np.random.default_rng(seed)
    hidden = rng.normal(0, 1, (stars, LATENT)) if hidden is None else hidden
    # every seventh bit pattern: all ten splits occur
    source_id = FIRST_SOURCE + np.arange(stars, dtype=np.int64) * 128
    obsid = 101_001 + np.arange(stars, dtype=np.int64)
    spectra = {}
    for modality in (LRS, XP):
        snr = 10 ** rng.uniform(1.2, 2.2, stars)
        clean = 1.0 + hidden @ basis(modality)
        # peculiarities that no hidden parameter explains: the model's own error
        rough = 0.004 * rng.normal(0, 1, (stars, 40)) @ smooth_noise(modality)
        noise = np.ones_like(clean) / snr[:, None]
        spectra[modality] = [clean + rough + noise * rng.normal(0, 1, clean.shape), noise, snr]
    order = rng.permutation(stars)
    planted = {"wrong": np.sort(order[:wrong]), "emission": np.sort(order[wrong : wrong + emission])}
    swap = planted["wrong"]
    if len(swap):
        spectra[XP][0][swap] = np.roll(spectra[XP][0][swap], 1, axis=0)
        spectra[XP][2][swap] = np.roll(spectra[XP][2][swap], 1)
        spectra[XP][1][swap] = np.roll(spectra[XP][1][swap], 1, axis=0)
    wave = LAMOST_LRS.wavelength
    spectra[LRS][0][planted["emission"]] += 0.4 * np.exp(-0.5 * ((wave - 4862.7) / 6.0) ** 2)
    atlas = Atlas.create(folder)
    for modality in (LRS, XP):
        ids = obsid if modality == LRS else source_id
        write_spectra(atlas, modality, ids, source_id, *spectra[modality], shards=shards, release=release)
    if labelled:
        write_labels(atlas, source_id, hidden)
    return Survey(atlas, LinearModel(), source_id, obsid, hidden, planted)


def smooth_noise(modality: str) -> np.ndarray:
    wave = np.linspace(0, 1, MODALITIES[modality].size)
    return np.exp(-0.5 * ((wave - np.linspace(0, 1, 40)[:, None]) / 0.02) ** 2)


def write_spectra(
    atlas: Atlas,
    modality: str,
    spec_id: np.ndarray,
    source_id: np.ndarray,
    flux: np.ndarray,
    noise: np.ndarray,
    snr: np.ndarray,
    shards: int = 1,
    release: str = "dr9",
    first: int = 0,
) -> None:
    schema = spectra_schema(get_modality(modality).columns, MODALITIES[modality].size)
    stage = atlas.spectra(modality)
    with stage.lock():
        for number, rows in enumerate(np.array_split(np.arange(len(spec_id)), shards)):
            n = len(rows)
            plain: dict[str, Any] = {
                "spec_id": spec_id[rows],
                "source_id": np.ma.masked_less(source_id[rows], 0),
                "release": [release] * n,
                "source": ["toy"] * n,
                "simulated": [True] * n,
                "ra": 180 + rows * 1e-3,
                "dec": 10 + rows * 1e-3,
                "snr": snr[rows],
                "good_fraction": [1.0] * n,
                "n_repaired": [0] * n,
                "n_clipped": [0] * n,
                "flux": flux[rows],
                "error": noise[rows],
            }
            columns = {name: plain.get(name, pa.nulls(n, schema.field(name).type)) for name in schema.names}
            stage.write(first + number, table_from_columns(columns, schema), schema=schema, inputs=f"toy {number}")


def write_labels(atlas: Atlas, source_id: np.ndarray, hidden: np.ndarray) -> None:
    from specclip_search.catalogs.ingest import ingest_catalog_table

    ingest_catalog_table(atlas, "truth", pa.table({"source_id": source_id, **labels_of(hidden)}))


def write_vectors(atlas: Atlas, model: LinearModel) -> None:
    import pyarrow.parquet as pq

    from specclip_search.atlas.arrays import column_to_matrix

    for modality in atlas.modalities():
        stage = atlas.vectors(model.name, modality)
        with stage.lock():
            for part in atlas.spectra(modality).parts():
                table = pq.ParquetFile(part.path).read(columns=["spec_id", "source_id", "release", "flux"])
                vector = model.embed(modality, column_to_matrix(table["flux"]))
                columns = {
                    "spec_id": table["spec_id"],
                    "source_id": table["source_id"],
                    "release": table["release"],
                    "vector": vector,
                    "norm": np.ones(len(vector)),
                }
                stage.write(
                    part.number,
                    table_from_columns(columns, vectors_schema(model.dim)),
                    schema=vectors_schema(model.dim),
                    inputs=part.digest,
                    extra={"model_digest": model.digest},
                )
    atlas.use_model(model.name)
