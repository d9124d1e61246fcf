"""A small model folder, of which one file is damaged; digests follow the damage, as an attacker's would."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from specclip_search.surveys import LRS, XP

TOML, WEIGHTS, METRICS = "model.toml", "weights.safetensors", "metrics.json"
CARD, TENSORS, STAR_TEST = "estimators.json", "estimators.safetensors", "star_test.npz"
KINDS = {TOML: "settings", WEIGHTS: "safetensors", METRICS: "settings", CARD: "settings", TENSORS: "safetensors",
         STAR_TEST: "binary"}


@cache
def sound() -> dict[str, bytes]:
    """The files of a model folder with estimators and the test of training stars."""
    import torch

    from specclip_search.training.checkpoints.folder import new_card, save_model
    from specclip_search.training.estimators.calibration import Calibration
    from specclip_search.training.estimators.estimators import InstrumentEstimator, save_estimators
    from specclip_search.training.estimators.network import EstimatorModule, EstimatorSizes
    from specclip_search.training.estimators.star_test import AXES, MEASURES, StarTest, save_star_test
    from specclip_search.training.networks.label_scale import LABELS
    from specclip_search.training.networks.mini import MiniModel, MiniSizes

    torch.manual_seed(0)
    sizes = MiniSizes(dim=16, lrs_slice=34, lrs_width=8, lrs_layers=1, lrs_heads=2, lrs_queries=2, lrs_feature=8,
                      xp_hidden=8, xp_blocks=1, xp_latent=8, xp_feature=8, decoder_hidden=(8,), label_hidden=4)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        card = save_model(folder, new_card("small", "mini", sizes), MiniModel(sizes).state_dict(), {"recall": 0.5})
        count, knots = len(LABELS), 7
        calibration = Calibration((10.0, 20.0), np.ones((4, count)), np.tile(np.linspace(-1, 1, knots), (count, 1)),
                                  np.zeros((count, knots)))
        arrays = (np.zeros(count), np.ones(count), np.full(count, -9.0), np.full(count, 9e3))
        estimators = {name: InstrumentEstimator(tuple(LABELS), EstimatorModule(EstimatorSizes(16, 4, 8, 2, count, 1)),
                                                calibration, *arrays, far=3.0, lowest_snr=5.0) for name in (LRS, XP)}
        save_estimators(folder, card.digest, estimators, {})
        shape = (1, knots, len(MEASURES))
        test = StarTest(np.linspace(0, 3, knots), np.zeros(shape), np.ones(shape), np.ones(1), np.zeros(16, np.float32),
                        np.ones((16, AXES), np.float32), np.ones((9, AXES), np.float32), card.digest)
        save_star_test(folder / STAR_TEST, test)
        return {file: (folder / file).read_bytes() for file in KINDS}


def damaged(file: str) -> Callable[[Path], str]:
    """A target that reads a model folder in which the input stands for `file`."""
    def run(path: Path) -> str:
        folder = path.parent / "model"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, content in _consistent({**sound(), file: path.read_bytes()}).items():
            (folder / name).write_bytes(content)
        use(folder)
        return "accepted"

    return run


def _consistent(files: dict[str, bytes]) -> dict[str, bytes]:
    """The cards name the digests of the files beside them."""
    old, new = (_digest(one[WEIGHTS]) for one in (sound(), files))
    tensors = tuple(_digest(one[TENSORS]) for one in (sound(), files))
    if old != new:  # its own digest lies within its arrays
        del files[STAR_TEST]
    files[TOML] = files[TOML].replace(old, new)
    files[CARD] = files[CARD].replace(old, new).replace(*tensors)
    return files


def _digest(content: bytes) -> bytes:
    return f"sha256:{hashlib.sha256(content).hexdigest()}".encode()


def use(folder: Path) -> None:
    """Load a model and ask it all that a command asks."""
    from specclip_search.training.estimators.star_test import unlike_training
    from specclip_search.training.model import load_model

    model = load_model(folder, device="cpu")
    repr(model)
    for modality in model.modalities:
        size = {LRS: 1462, XP: 343}[modality]
        inputs = 1 + np.random.default_rng(0).normal(0, 0.1, (2, size)).astype(np.float32)
        vectors = model.embed(modality, inputs)
        assert np.isfinite(vectors).all()
        model.estimate(modality, inputs, np.array([20.0, np.nan]))
        unlike_training(model, modality, inputs, np.full(inputs.shape, 0.1), vectors, np.array([20.0, np.nan]))

