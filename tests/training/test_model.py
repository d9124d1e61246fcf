"""The model as the rest of the program uses it, and the folder it lives in."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from specclip_search.errors import CheckpointError, QueryError, Reason, SpectrumError
from specclip_search.training.checkpoints.folder import build_module, export_model, load_card, new_card, save_model
from specclip_search.training.fit.pairs import ArrayPairs
from specclip_search.training.model import Model, load_model, pick_device
from specclip_search.training.networks.mini import MiniSizes
from specclip_search.training.networks.published import build


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = MiniSizes(dim=24, lrs_slice=86, lrs_width=8, lrs_layers=1, lrs_heads=2, lrs_queries=3, xp_hidden=16,
                      xp_blocks=1, xp_latent=8, xp_feature=8, decoder_hidden=(16,))
    torch.manual_seed(0)
    card = new_card("tiny", "mini", sizes)
    path = tmp_path_factory.mktemp("models") / "tiny"
    save_model(path, card, build_module(card).state_dict(), {"made": "up"})
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load_model(folder, device="cpu")


def test_vectors(model: Model, pairs: ArrayPairs) -> None:
    for modality in ("lamost_lrs", "gaia_xp"):
        inputs = pairs.flux[modality][:40]
        unit, norms = model.embed_raw(modality, inputs)
        assert (unit.shape, unit.dtype, norms.shape, norms.dtype) == ((40, 24), np.float32, (40,), np.float32)
        assert np.allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-6)
        with torch.no_grad():
            slow = model.module.encode(modality, torch.from_numpy(inputs))["shared"].numpy()
        assert np.allclose(unit * norms[:, None], slow, atol=1e-6)
        assert np.array_equal(model.embed(modality, inputs.astype(np.float64)), unit)


def test_batches_change_nothing_that_matters(folder: Path, model: Model, pairs: ArrayPairs) -> None:
    inputs = pairs.flux["lamost_lrs"][:37]
    for size in (1, 7):
        other = load_model(folder, device="cpu", batch_size=size)
        assert np.abs(other.embed("lamost_lrs", inputs) - model.embed("lamost_lrs", inputs)).max() < 1e-6
    assert model.embed("lamost_lrs", inputs[:0]).shape == (0, 24)
    assert model.translate("lamost_lrs", inputs[:0]).shape == (0, 343)
    rough = load_model(folder, device="cpu", precision="bf16").embed("lamost_lrs", inputs)
    assert 0 < np.abs(rough - model.embed("lamost_lrs", inputs)).max() < 0.05


def test_spectra_come_back_in_the_units_of_the_input(model: Model, pairs: ArrayPairs) -> None:
    lrs = pairs.flux["lamost_lrs"][:9]
    assert model.translate("lamost_lrs", lrs).shape == (9, 343)
    assert model.translate("gaia_xp", pairs.flux["gaia_xp"][:9]).shape == (9, 1462)
    back = model.reconstruct("lamost_lrs", lrs)
    with torch.no_grad():
        standardised = model.module.reconstruct("lamost_lrs", torch.from_numpy(lrs)).numpy()
    expected = standardised * lrs.std(axis=1, ddof=1, keepdims=True) + lrs.mean(axis=1, keepdims=True)
    assert np.allclose(back, expected, atol=1e-5)


def test_spectra_without_a_vector_are_named_not_silently_nan(model: Model, pairs: ArrayPairs) -> None:
    inputs = pairs.flux["lamost_lrs"][:6].copy()
    inputs[1] = 1.0
    inputs[3, 700] = np.nan
    inputs[4] = 0.0
    assert model.unusable("lamost_lrs", inputs) == {
        1: Reason.FLAT_OR_ZERO, 3: Reason.NOT_FINITE, 4: Reason.FLAT_OR_ZERO}
    with pytest.raises(SpectrumError, match="3 of 6 spectra have no vector; first row 1: flat_or_zero") as caught:
        model.embed("lamost_lrs", inputs)
    assert caught.value.reason is Reason.FLAT_OR_ZERO
    inputs = np.full((1, 343), 1e30)
    inputs[0, ::2] = -1e38
    with pytest.raises(SpectrumError, match=r"no finite vector for row 0"):
        model.embed("gaia_xp", inputs)


def test_bad_requests(model: Model, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match=r"shape \(N, 1462\); found \(1462,\)"):
        model.embed("lamost_lrs", np.ones(1462))
    with pytest.raises(QueryError, match="takes lamost_lrs and gaia_xp; found 'lamost'") as caught:
        model.embed("lamost", np.ones((1, 1462)))
    assert "Did you mean 'lamost_lrs'" in str(caught.value)
    with pytest.raises(QueryError, match="precision must be"):
        load_model(folder, precision="fp8")
    with pytest.raises(QueryError, match="'tpu9' is not a device"):
        pick_device("tpu9")
    with pytest.raises(CheckpointError, match="No model folder at 'nowhere'"):
        load_model("nowhere")
    with pytest.raises(CheckpointError, match=r"has no model\.toml"):
        load_model(tmp_path)


def test_a_damaged_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "weights.safetensors").write_bytes((folder / "weights.safetensors").read_bytes()[:-3])
    with pytest.raises(CheckpointError, match="its digest differs"):
        load_model(copy)
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_model(copy, verify=False)
    (copy / "weights.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has no weights\.safetensors"):
        load_model(copy)
    toml = (folder / "model.toml").read_text()
    (copy / "model.toml").write_text(toml.replace("lrs_width", "lrs_widht"))
    with pytest.raises(CheckpointError, match="sizes has no setting 'lrs_widht'"):
        load_model(copy)
    (copy / "model.toml").write_text(toml.replace("format_version = 1", "format_version = 7"))
    with pytest.raises(CheckpointError, match="has format 7; this version reads format 1"):
        load_model(copy)


def test_weights_of_another_architecture_are_refused(folder: Path, tmp_path: Path) -> None:
    card = load_card(folder)
    other = replace(card, sizes=replace(card.sizes, xp_blocks=2))
    save_model(tmp_path, other, load_model(folder).module.state_dict(), {})
    with pytest.raises(CheckpointError, match=r"does not fit its architecture: 6 missing \(gaia_xp_encoder\.backbone"):
        load_model(tmp_path)


def test_half_size_copy(folder: Path, model: Model, pairs: ArrayPairs, tmp_path: Path) -> None:
    card = export_model(folder, tmp_path / "half", name="small")
    half = load_model(tmp_path / "half")
    assert (half.name, half.card.dtype, half.digest) == ("small", "float16", card.digest)
    assert half.digest != model.digest
    size = (folder / "weights.safetensors").stat().st_size
    assert (tmp_path / "half/weights.safetensors").stat().st_size < 0.6 * size
    inputs = pairs.flux["gaia_xp"][:50]
    assert (half.embed("gaia_xp", inputs) * model.embed("gaia_xp", inputs)).sum(1).min() > 0.9999
    assert {p.name for p in (tmp_path / "half").iterdir()} == {"model.toml", "weights.safetensors", "metrics.json"}


def test_an_encoder_of_one_instrument(tmp_path: Path, pairs: ArrayPairs) -> None:
    save_model(tmp_path, new_card("oae", "xp_oae"), build("xp_oae").state_dict(), {})
    model = load_model(tmp_path, device="cpu")
    inputs = pairs.flux["gaia_xp"][:3]
    with torch.no_grad():
        latent = model.module(torch.from_numpy(inputs))["latent"].numpy()
    expected = latent / np.linalg.norm(latent, axis=1, keepdims=True)
    assert np.allclose(model.embed("gaia_xp", inputs), expected, atol=1e-6)
    with pytest.raises(QueryError, match="has no decoders"):
        model.translate("gaia_xp", inputs)
    with pytest.raises(QueryError, match="takes gaia_xp; found 'lamost_lrs'"):
        model.embed("lamost_lrs", pairs.flux["lamost_lrs"][:3])
