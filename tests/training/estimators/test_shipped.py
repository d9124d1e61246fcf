"""The estimators that come with `mini`."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from specclip_search.errors import CheckpointError
from specclip_search.readers import read_spectrum
from specclip_search.surveys import get_modality
from specclip_search.surveys.batch import prepare_batch
from specclip_search.training.checkpoints.shipped import find_model
from specclip_search.training.estimators.estimators import CARD, load_estimators
from specclip_search.training.model import load_model


@pytest.mark.parametrize(("modality", "size"), [("gaia_xp", 343), ("lamost_lrs", 1462)])
def test_mini_estimates_every_label(modality: str, size: int) -> None:
    model = load_model("mini", device="cpu")
    inputs = 1 + 0.1 * np.random.default_rng(1).normal(size=(3, size))
    got = model.estimate(modality, inputs, np.array([50.0, np.nan, 100.0]))
    for label in ("teff", "logg", "feh", "alpha_fe", "c_fe"):
        assert got[label].shape == (3,)
        assert np.isfinite(got[label]).all()
        assert (got[label + "_err"] > 0).all()
    assert np.isfinite(got["rv"]).all() == (modality == "lamost_lrs")
    assert (got["flag"] & 8 > 0).tolist() == [False, True, False]


def test_all_weights_of_mini_fit_their_allowance() -> None:
    assert sum(path.stat().st_size for path in find_model("mini").iterdir()) <= 14_000_000


def test_a_copy_made_without_estimators_has_the_shipped_ones(tmp_path: Path) -> None:
    copy = tmp_path / "mini"
    shutil.copytree(find_model("mini"), copy, ignore=shutil.ignore_patterns("estimators*"))
    found = load_estimators(load_model(copy, device="cpu"))
    assert found is not None
    shutil.copy(find_model("mini") / CARD, copy / CARD)
    with pytest.raises(CheckpointError, match="missing or does not match"):
        load_estimators(load_model(copy, device="cpu"))


def test_real_lamost_spectra_have_believable_labels(shared_data: Path) -> None:
    """Bounds are wide: how well it does is a benchmark's matter; wrong units or a swapped column would show."""
    folder = shared_data / "lamost"
    rows = np.genfromtxt(folder / "labels.csv", delimiter=",", names=True, dtype=None, encoding="utf-8")
    spectra = [read_spectrum(folder / "table" / f"{row['obsid']}.fits.gz") for row in rows]
    prepared = prepare_batch(get_modality("lamost_lrs"), spectra)
    assert len(rows) > 8
    assert prepared.keep.all()
    got = load_model("mini", device="cpu").estimate("lamost_lrs", np.asarray(prepared.flux))
    for label, most, within in (("teff", 400, 0.9), ("logg", 0.8, 0.7), ("feh", 0.7, 0.7)):
        miss = np.abs(got[label] - np.array([row[label] for row in rows]))
        assert np.median(miss) < most, label
        assert np.mean(miss < 4 * got[label + "_err"]) > within, label
