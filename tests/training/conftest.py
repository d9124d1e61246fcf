"""Documented weights and inputs that the reference numbers of the published model were made with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from specclip_search.training.fit.pairs import ArrayPairs
from specclip_search.training.fit.recipe import DataSettings, OptimiserSettings, Recipe
from specclip_search.training.networks.mini import MiniSizes
from specclip_search.training.networks.published import build


def filled_entry(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """One state_dict entry, a function of its key and shape alone."""
    if key.endswith("num_batches_tracked"):
        return np.array(1, dtype=np.int64)
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    z = np.random.Generator(np.random.PCG64(seed)).standard_normal(shape)
    if key.endswith("running_var"):
        return 1.0 + 0.1 * np.abs(z)
    if key.endswith(".weight") and len(shape) == 1:
        return 1.0 + 0.1 * z
    return (0.1 if key.endswith(("running_mean", "bias")) else 0.02) * z


def filled_state(module: nn.Module, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    entries = {key: torch.from_numpy(filled_entry(key, tuple(v.shape))) for key, v in module.state_dict().items()}
    return {key: v.to(dtype) if v.is_floating_point() else v for key, v in entries.items()}


def filled_model(kind: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A published architecture with documented weights, in eval mode."""
    module = build(kind, "meta")
    module.load_state_dict(filled_state(module, dtype), assign=True)
    return module.eval()


@pytest.fixture(scope="session")
def make_filled_model() -> Callable[..., nn.Module]:
    return filled_model


@pytest.fixture(scope="session")
def golden(shared_data: Path) -> Callable[[str], dict[str, np.ndarray]]:
    def load(kind: str) -> dict[str, np.ndarray]:
        with np.load(shared_data / "golden" / f"{kind}_f64.npz") as archive:
            return dict(archive)

    return load


@pytest.fixture(scope="session")
def spectra(shared_data: Path) -> dict[str, torch.Tensor]:
    """Eight documented spectra an instrument, float64."""
    with np.load(shared_data / "golden" / "inputs.npz") as archive:
        return {"gaia_xp": torch.from_numpy(archive["xp"]), "lamost_lrs": torch.from_numpy(archive["lrs"])}


TINY = MiniSizes(dim=24, lrs_slice=86, lrs_width=8, lrs_layers=1, lrs_heads=2, lrs_queries=3, xp_hidden=16, xp_blocks=1,
                 xp_latent=8, xp_feature=8, decoder_hidden=(16,), dropout=0.1)


def made_up_pairs(stars: int = 480, seed: int = 3, uneven: bool = False) -> ArrayPairs:
    """Pairs whose two spectra depend on the same three numbers, with known noise; `uneven`: not the same for all."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(stars, 3))
    flux, error = {}, {}
    for name, pixels, noise in (("gaia_xp", 343, 0.01), ("lamost_lrs", 1462, 0.02)):
        clean = 1 + 0.2 * np.tanh(hidden @ rng.normal(size=(3, pixels)))
        flux[name] = (clean + noise * rng.normal(size=clean.shape)).astype(np.float32)
        error[name] = np.full(clean.shape, noise, np.float16)
        if uneven:
            error[name] *= rng.uniform(0.3, 5, (stars, 1)).astype(np.float16)
    return ArrayPairs(flux, np.arange(stars, dtype=np.int64) << 7, error=error)


@pytest.fixture(scope="session")
def pairs() -> ArrayPairs:
    return made_up_pairs()


@pytest.fixture
def tiny_recipe() -> Recipe:
    return Recipe("tiny", "mini", seed=5, model=TINY, data=DataSettings(batch_size=64),
                  optimiser=OptimiserSettings(rate=5e-3, warmup_steps=3, epochs=4, precision="float32"))
