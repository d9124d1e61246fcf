"""The stage of label estimates: one row a vector, resumable, bound to vectors and estimators."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from specclip_search.atlas import Atlas
from specclip_search.atlas.arrays import column_to_matrix
from specclip_search.cli.main import run
from specclip_search.errors import AtlasError, CheckpointError, QueryError
from specclip_search.indexing.vectors.embed import embed
from specclip_search.indexing.vectors.estimate import estimate
from specclip_search.training.estimators.data import LabelledVectors
from specclip_search.training.estimators.estimators import load_estimators, save_estimators
from specclip_search.training.estimators.train import EstimatorRecipe, fit_instrument
from specclip_search.training.model import load_model
from specclip_search.training.networks.label_scale import MEASURED

from ..fakes import FakeModel, fluxes, write_spectra

BIG = 2**60 + 1
QUICK = EstimatorRecipe(xp_axes=8, hidden=8, epochs=1, members=1, components=2)


def give_estimators(model: FakeModel, folder: Path, modality: str, seed: int = 0) -> None:
    """Estimators that have learned little, but take this model's vectors."""
    rng = np.random.default_rng(seed)
    vectors = model.embed_raw(modality, fluxes(1200, modality, seed))[0]
    labels = rng.normal([5500, 3, -1, 0.2, 0.1, 0], [300, 1, 1, 0.1, 0.3, 50], (1200, 6))[:, : len(MEASURED[modality])]
    data = LabelledVectors(vectors, labels, rng.uniform(5, 100, 1200), np.arange(1200) << 7, np.zeros(1200, bool))
    folder.mkdir(exist_ok=True)
    save_estimators(folder, model.digest, {modality: fit_instrument(modality, data, QUICK)}, {})


@pytest.fixture
def model(tmp_path: Path) -> FakeModel:
    made = FakeModel(folder=tmp_path / "fake")
    give_estimators(made, tmp_path / "fake", "gaia_xp")
    return made


@pytest.fixture
def atlas(tmp_path: Path, model: FakeModel) -> Atlas:
    made = Atlas.create(tmp_path / "atlas")
    for part in range(3):
        write_spectra(made, "gaia_xp", part, fluxes(50, seed=part), BIG + 50 * part)
    write_spectra(made, "lamost_lrs", 0, fluxes(30, "lamost_lrs"), 101001)
    embed(made, model)
    return made


def test_one_row_a_vector_with_the_estimators_numbers(atlas: Atlas, model: FakeModel) -> None:
    report = estimate(atlas, model)
    assert (report.written, report.current, report.estimated) == (3, 0, 150)
    assert report.rows == {"gaia_xp": 150}
    vectors, rows = atlas.vectors("fake", "gaia_xp").read(), atlas.estimates("gaia_xp").read()
    for name in ("spec_id", "source_id", "release"):
        assert rows.column(name).equals(vectors.column(name))
    assert rows.column("source_id").null_count == 30
    estimators = load_estimators(model)
    snr = atlas.spectra("gaia_xp").read(["snr"]).column("snr").to_numpy()
    expected = estimators.estimate("gaia_xp", column_to_matrix(vectors.column("vector")), snr)
    for name in ("teff", "feh_err", "distance"):
        np.testing.assert_allclose(rows.column(name).to_numpy(), expected[name], rtol=1e-5)
    np.testing.assert_array_equal(rows.column("flag").to_numpy(), expected["flag"])
    assert rows.column("rv").null_count == 150
    shown = atlas.sql("SELECT count(*), min(feh_p_below_m2) FROM estimates_gaia_xp").fetchall()[0]
    assert shown[0] == 150
    assert 0 <= shown[1] <= 1


def test_current_shards_stand_and_stale_ones_are_redone(atlas: Atlas, model: FakeModel, tmp_path: Path) -> None:
    estimate(atlas, model)
    first = {p.name: p.read_bytes() for p in atlas.estimates("gaia_xp").folder.iterdir()}
    assert estimate(atlas, model).current == 3
    atlas.estimates("gaia_xp").remove(1)
    assert estimate(atlas, model).written == 1
    assert {p.name: p.read_bytes() for p in atlas.estimates("gaia_xp").folder.iterdir()} == first
    write_spectra(atlas, "gaia_xp", 2, fluxes(40, seed=9), BIG + 100)
    atlas.spectra("gaia_xp").remove(0)
    embed(atlas, model)
    report = estimate(atlas, model)
    assert (report.written, report.current, report.removed) == (1, 1, 1)
    give_estimators(model, tmp_path / "fake", "gaia_xp", seed=3)
    assert estimate(atlas, model).written == 2


def test_what_does_not_fit_is_refused(atlas: Atlas, model: FakeModel, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="take gaia_xp; found 'lamost_lrs'"):
        estimate(atlas, model, ["lamost_lrs"])
    other = FakeModel(seed=1, folder=tmp_path / "fake")
    with pytest.raises(CheckpointError, match="belong to the weights"):
        estimate(atlas, other)
    give_estimators(other, tmp_path / "other", "gaia_xp")
    other.folder = tmp_path / "other"
    with pytest.raises(QueryError, match="holds vectors of the weights sha256:fake-0"):
        estimate(atlas, other)
    other.folder = None
    with pytest.raises(QueryError, match="has no label estimators"):
        estimate(atlas, other)
    empty = Atlas.create(tmp_path / "empty")
    with pytest.raises(AtlasError, match="holds no gaia_xp vectors"):
        estimate(empty, model)


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stop:
        run(list(arguments))
    return int(stop.value.code or 0), capsys.readouterr().err


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "atlas")
    made = Atlas.create(folder)
    write_spectra(made, "gaia_xp", 0, fluxes(20), BIG)
    code, text = told(capsys, "train", "estimators", "--atlas", folder)
    assert code == 2
    assert "none was given" in text
    code, text = told(capsys, "train", "estimators", "--atlas", folder, "--model", "mini")
    assert code == 2
    assert "holds no catalogue 'apogee'" in text
    embed(made, load_model("mini", device="cpu"))
    code, text = told(capsys, "estimate", "--atlas", folder)
    assert code == 0
    assert "20 vectors of 'mini' have label estimates; 0 shards were current" in text
    assert made.estimates("gaia_xp").rows == 20
    code, text = told(capsys, "estimate", "--atlas", folder, "--within", "lamost_lrs")
    assert code == 2
    assert "holds no lamost_lrs vectors" in text
