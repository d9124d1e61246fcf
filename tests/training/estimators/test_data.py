"""Labels and vectors that estimators learn from: the right star, the right split, nothing with a bad label."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from specclip_search.atlas import Atlas
from specclip_search.atlas.arrays import table_from_columns
from specclip_search.atlas.schemas import spectra_schema, vectors_schema
from specclip_search.catalogs.ingest import ingest_catalog_table
from specclip_search.constants import C_KM_S
from specclip_search.errors import AtlasError, CheckpointError
from specclip_search.keys import split_of
from specclip_search.surveys import get_modality
from specclip_search.training.estimators.data import labelled_vectors
from specclip_search.training.estimators.estimators import load_estimators
from specclip_search.training.estimators.train import EstimatorRecipe, train_estimators

LRS, XP = "lamost_lrs", "gaia_xp"
SIZES = {LRS: 1462, XP: 343}
MADE = (12 * 4**12) << 35


class Tiny:
    """A model that is one projection."""

    name, dim, digest, modalities = "tiny", 24, "sha256:tiny", (XP,)

    def __init__(self, folder: Path | None = None) -> None:
        self.folder, self.embedded = folder, 0
        self._weights = np.random.default_rng(0).normal(size=(SIZES[XP], self.dim))

    def unusable(self, modality: str, inputs: np.ndarray) -> dict[int, str]:
        return {int(i): "flat" for i in np.flatnonzero(np.ptp(inputs, axis=1) == 0)}

    def embed(self, modality: str, inputs: np.ndarray) -> np.ndarray:
        self.embedded += len(inputs)
        raw = inputs @ self._weights[:, : self.dim] if inputs.shape[1] == SIZES[XP] else inputs[:, : self.dim]
        return (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)


def write(atlas: Atlas, modality: str, part: int, ids: np.ndarray, flux: np.ndarray, z: np.ndarray) -> None:
    schema = spectra_schema(get_modality(modality).columns, SIZES[modality])
    count = len(ids)
    given = {"spec_id": ids, "source_id": ids, "release": ["x"] * count, "source": ["f"] * count,
             "simulated": [modality == LRS] * count, "flux": flux, "error": np.ones_like(flux), "z": z,
             "snr": np.linspace(5, 60, count).astype(np.float32)}
    stage = atlas.spectra(modality)
    with stage.lock():
        stage.write(part, table_from_columns({f.name: given.get(f.name, [None] * count) for f in schema}, schema),
                    schema=schema, inputs=f"{part}")


@pytest.fixture
def atlas(tmp_path: Path) -> Atlas:
    """900 real stars and 100 made ones in both instruments; Teff and [Fe/H] set the spectra."""
    made = Atlas.create(tmp_path / "atlas")
    rng = np.random.default_rng(1)
    real = np.arange(1, 901, dtype=np.int64) << 7
    ids = np.concatenate([real, MADE + (np.arange(100, dtype=np.int64) << 7)])
    feh = np.concatenate([rng.normal(-0.3, 0.3, 900), rng.uniform(-4, -1, 100)])
    for modality, size in SIZES.items():
        flux = (1 + 0.1 * feh[:, None] * rng.normal(size=size) + 0.01 * rng.normal(size=(1000, size))).astype("f4")
        flux[7] = 1.0
        for part in range(2):
            rows = slice(500 * part, 500 * part + 500)
            write(made, modality, part, ids[rows], flux[rows], np.arange(1000)[rows].astype("f4") * 1e-6)
    teff_err = np.where(np.arange(900) == 3, 900.0, 50.0)
    apogee = {"source_id": real, "teff": np.full(900, 5000.0), "teff_err": teff_err, "logg": np.full(900, 3.0),
              "feh": feh[:900], "alpha_m": np.full(900, 0.1)}
    truth = {"source_id": ids[900:], "base_source_id": real[:100], "teff": np.full(100, 5200.0),
             "logg": np.full(100, 2.0), "feh": feh[900:], "alpha_fe": np.full(100, 0.3), "c_fe": np.full(100, 1.0)}
    for name, columns in (("apogee", apogee), ("truth", truth)):
        ingest_catalog_table(made, name, pa.table(columns), source="test")
    return made


def test_every_row_has_its_own_star(atlas: Atlas) -> None:
    data = labelled_vectors(atlas, Tiny(), LRS, ("truth", "apogee"))  # type: ignore[arg-type]
    assert not (split_of(data.source_id) == 9).any()
    ids = atlas.spectra(LRS).read(["source_id"]).column("source_id").to_numpy()
    assert set(ids) - set(data.source_id) == set(ids[split_of(ids) == 9]) | {ids[7]}
    place = {int(key): row for row, key in enumerate(ids)}
    rows = np.array([place[int(key)] for key in data.source_id])
    np.testing.assert_allclose(data.labels[:, 5], rows * 1e-6 * C_KM_S, rtol=1e-5)
    assert np.array_equal(data.simulated, data.source_id >= MADE)
    assert np.isnan(data.labels[rows == 3, 0]).all()
    assert np.isfinite(data.labels[rows == 4, 0]).all()
    # [C/Fe] is known of made metal-poor stars alone
    assert np.array_equal(np.isfinite(data.labels[:, 4]), data.simulated)
    assert (data.labels[data.simulated, 3] == 0.3).all()
    assert np.allclose(data.labels[~data.simulated, 3], 0.1)
    assert np.array_equal(data.vectors, data.vectors.astype(np.float16))


def test_vectors_of_these_weights_are_read_and_others_made_anew(atlas: Atlas) -> None:
    model = Tiny()
    plain = labelled_vectors(atlas, model, XP, ("apogee",))  # type: ignore[arg-type]
    assert model.embedded == len(plain.source_id)
    stage, schema = atlas.vectors("tiny", XP), vectors_schema(24)
    keys = atlas.spectra(XP).read(["spec_id", "source_id", "release"]).slice(0, 500)
    columns = {name: keys.column(name) for name in keys.column_names}
    kept = np.full((500, 24), 0.5)
    for digest, reads in ((model.digest, True), ("sha256:other", False)):
        with stage.lock():
            stage.write(0, table_from_columns({**columns, "vector": kept, "norm": np.ones(500)}, schema),
                        schema=schema, inputs=digest, extra={"model_digest": digest})
        first = labelled_vectors(atlas, model, XP, ("apogee",)).vectors[0]  # type: ignore[arg-type]
        assert np.allclose(first, 0.5) == reads
        assert np.array_equal(first, plain.vectors[0]) != reads


def test_training_ends_with_estimators_of_the_model(atlas: Atlas, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    model = Tiny(folder)
    told: list[str] = []
    recipe = EstimatorRecipe(xp_axes=12, hidden=16, epochs=3, members=1)
    made = train_estimators(atlas, model, recipe, progress=lambda d, t, what: told.append(what))  # type: ignore[arg-type]
    assert made.modalities == (XP,)
    assert made.metrics["catalogues"] == ["truth", "apogee"]
    assert {"gaia_xp", "gaia_xp epochs"} <= set(told)
    again = load_estimators(model)  # type: ignore[arg-type]
    vectors = model.embed(XP, np.random.default_rng(3).normal(1, 0.1, (4, 343)))
    assert again is not None
    assert np.array_equal(again.estimate(XP, vectors)["feh"], made.estimate(XP, vectors)["feh"])
    twice = train_estimators(atlas, model, recipe)  # type: ignore[arg-type]
    assert twice.digest == made.digest


def test_what_is_missing_is_said(atlas: Atlas, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no folder"):
        train_estimators(atlas, Tiny())  # type: ignore[arg-type]
    with pytest.raises(AtlasError, match="catalogue 'nowhere'"):
        train_estimators(atlas, Tiny(tmp_path), catalogues=("nowhere",))  # type: ignore[arg-type]
    other = SimpleNamespace(folder=tmp_path, modalities=("none",), name="m", digest="d")
    with pytest.raises(AtlasError, match="holds no none spectra"):
        train_estimators(atlas, other)  # type: ignore[arg-type]
