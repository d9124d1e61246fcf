"""Train the emulator on a grid of model spectra.

    python -m specclip_search.training.emulator.train GRID.npz --output emulator.npz

Principal components of the normalised flux, and of ln flux (10 A bins and continuum together), each
predicted from the labels by fully connected networks. 15 % of the grid, chosen by the seed, is held
out: no weight, component or setting is fitted to it. Runs on a CPU in minutes.
The errors of the emulator are measured on these held-out stars.
"""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from specclip_search.atlas.files import whole_file, write_json
from specclip_search.simulation.spectra.emulator import (
    ERROR_CLASSES,
    FORMAT,
    STEFAN_BOLTZMANN,
    Emulator,
    Head,
    error_class,
    pack_head,
)
from specclip_search.simulation.spectra.labels import FloatArray, features

from .grid import ModelGrid, read_grid

if TYPE_CHECKING:
    import torch

LINE_WINDOW = (3900.0, 5700.0)
SHAPE_WINDOW = (3400.0, 10400.0)


def star_errors(emulator: Emulator, grid: ModelGrid, rows: np.ndarray) -> dict[str, FloatArray]:
    """Errors of each star in `rows`, (N,).

    Returns
    -------
    dict
        `normalised`: rms over 3900-5700 A of the normalised flux; `normalised_all`: over all
        pixels; `sed_shape`: rms over 3400-10400 A of ln flux after its mean is removed;
        `sed_level`: the removed mean of ln flux.
    """
    labels = grid.labels[rows]
    difference = emulator.normalised(labels) - grid.normalised[rows]
    lines = (grid.wavelength >= LINE_WINDOW[0]) & (grid.wavelength <= LINE_WINDOW[1])
    shape = (grid.sed_wavelength >= SHAPE_WINDOW[0]) & (grid.sed_wavelength <= SHAPE_WINDOW[1])
    log_ratio = np.log(emulator.sed(labels) / grid.sed[rows])[:, shape]
    level = log_ratio.mean(axis=1)
    return {
        "normalised": np.sqrt((difference[:, lines] ** 2).mean(axis=1)),
        "normalised_all": np.sqrt((difference**2).mean(axis=1)),
        "sed_shape": np.sqrt(((log_ratio - level[:, None]) ** 2).mean(axis=1)),
        "sed_level": np.abs(level),
    }


def populations(labels: FloatArray) -> dict[str, np.ndarray]:
    """Masks (N,) of the populations that errors are reported for; they may overlap."""
    teff, logg, feh, _, c_fe = labels.T
    cool = teff < 8000.0
    return {
        "all": np.ones(len(labels), dtype=bool),
        "hot (teff >= 8000 K)": ~cool,
        "teff < 4800 K": teff < 4800.0,
        "giants (logg < 3.5)": cool & (logg < 3.5),
        "feh < -2.2": cool & (feh < -2.2),
        "feh < -3": cool & (feh < -3.0),
        "carbon-rich (c_fe > 0.7)": cool & (c_fe > 0.7),
    }


def summary(errors: dict[str, FloatArray], labels: FloatArray) -> dict[str, dict[str, float | int]]:
    """Median, 90th percentile and maximum of each error in each population."""
    table: dict[str, dict[str, float | int]] = {}
    for name, mask in populations(labels).items():
        row: dict[str, float | int] = {"n": int(mask.sum())}
        for key, values in errors.items():
            if mask.any():
                row |= {
                    f"{key}_median": float(np.median(values[mask])),
                    f"{key}_90": float(np.percentile(values[mask], 90)),
                    f"{key}_max": float(values[mask].max()),
                }
        table[name] = row
    return table


def residual_curves(values: FloatArray, classes: np.ndarray) -> FloatArray:
    """Rms residual by wavelength of each class, (len(ERROR_CLASSES), P); an empty class gets that of all."""
    overall = np.sqrt((values**2).mean(axis=0))
    curves = [np.sqrt((values[classes == i] ** 2).mean(axis=0)) if (classes == i).any() else overall
              for i in range(len(ERROR_CLASSES))]  # fmt: skip
    return np.stack(curves)


def measure_errors(
    emulator: Emulator,
    arrays: dict[str, np.ndarray],
    grid: ModelGrid,
    held: np.ndarray,
    settings: dict[str, Any],
) -> dict[str, np.ndarray]:
    """`arrays` with the held-out error curves and the metrics added.

    Held-out stars outside the emulator's coverage are counted and left out.
    """
    labels = grid.labels[held]
    rows = held[emulator.covers(labels)]
    labels = grid.labels[rows]
    classes = error_class(labels)
    metrics = {
        "heldout_stars": len(held),
        "heldout_covered": len(rows),
        "errors": summary(star_errors(emulator, grid, rows), labels),
        "settings": settings,
    }
    normalised = emulator.normalised(labels) - grid.normalised[rows]
    sed = np.log(emulator.sed(labels) / grid.sed[rows])
    return arrays | {
        "normalised_error": residual_curves(normalised, classes).astype(np.float16),
        "sed_error": residual_curves(sed, classes).astype(np.float16),
        "metrics": np.array(json.dumps(metrics, sort_keys=True)),
    }


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """Training settings, saved with the weights."""

    seed: int = 0
    heldout_fraction: float = 0.15
    normalised_components: int = 150
    flux_components: int = 90
    width: int = 256
    hidden_layers: int = 3
    members: int = 2
    epochs: int = 1200
    batch: int = 128
    learning_rate: float = 3e-3
    component_weight: float = 0.75
    """Weight of a component in the loss: (its standard deviation)**component_weight."""


def split(n: int, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """Sorted rows of the training and of the held-out stars."""
    order = np.random.default_rng(settings.seed).permutation(n)
    n_held = round(n * settings.heldout_fraction)
    return np.sort(order[n_held:]), np.sort(order[:n_held])


def components(spectra: FloatArray, k: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean (P,), first k principal components (k, P) and the coefficients' standard deviations (k,)."""
    mean = spectra.mean(axis=0)
    _, singular, basis = np.linalg.svd(spectra - mean, full_matrices=False)
    return mean, basis[:k], singular[:k] / np.sqrt(len(spectra))


def network(n_in: int, n_out: int, settings: Settings) -> torch.nn.Sequential:
    """Fully connected layers with SiLU activations."""
    from torch import nn

    sizes = [n_in] + [settings.width] * settings.hidden_layers
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), nn.SiLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], n_out))


def fit_member(
    inputs: FloatArray, targets: FloatArray, weight: FloatArray, seed: int, settings: Settings
) -> list[tuple[FloatArray, FloatArray]]:
    """Train one network on standardised coefficients; the loss is the mean over stars of the weighted rms."""
    import torch

    torch.manual_seed(seed)
    x, y = torch.tensor(inputs, dtype=torch.float32), torch.tensor(targets, dtype=torch.float32)
    w = torch.tensor(weight, dtype=torch.float32)
    model = network(x.shape[1], y.shape[1], settings)
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=1e-5)
    n_batches = len(x) // settings.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=settings.epochs * n_batches, pct_start=0.1
    )
    for epoch in range(settings.epochs):
        for rows in torch.randperm(len(x))[: n_batches * settings.batch].split(settings.batch):
            loss = ((((model(x[rows]) - y[rows]) * w) ** 2).mean(dim=1) + 1e-9).sqrt().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        if epoch % 200 == 199:
            log.info("epoch %d of %d: loss %.5f", epoch + 1, settings.epochs, float(loss.detach()))
    linear = [layer for layer in model if isinstance(layer, torch.nn.Linear)]
    return [
        (layer.weight.detach().numpy().T.astype(float), layer.bias.detach().numpy().astype(float)) for layer in linear
    ]


def fit_head(inputs: FloatArray, spectra: FloatArray, k: int, stream: int, settings: Settings) -> Head:
    """Components of the training spectra and the networks that predict them."""
    mean, basis, scale = components(spectra, k)
    targets = (spectra - mean) @ basis.T / scale
    weight = (scale / scale[0]) ** settings.component_weight
    members = [
        fit_member(inputs, targets, weight, settings.seed + 100 * stream + m, settings) for m in range(settings.members)
    ]
    return Head(mean, basis, scale, members)


def train(grid: ModelGrid, settings: Settings) -> dict[str, np.ndarray]:
    """All arrays of the weights file, with the errors measured on the held-out stars."""
    fitted, held = split(len(grid.labels), settings)
    raw = features(grid.labels[fitted])
    # rounded as stored, so that training and inference use the same inputs
    mean, scale = raw.mean(axis=0).astype(np.float32), raw.std(axis=0).astype(np.float32)
    inputs = (raw - mean) / scale
    level = np.log(STEFAN_BOLTZMANN) + 4.0 * np.log(grid.labels[fitted, :1])
    log_flux = np.log(np.hstack([grid.sed[fitted], grid.continuum[fitted]])) - level
    arrays: dict[str, np.ndarray] = {
        "format": np.array(FORMAT),
        "label_low": np.maximum(grid.labels.min(axis=0), [4000.0, 0.0, -9.0, -9.0, -9.0]),
        "label_high": grid.labels.max(axis=0),
        "node_labels": grid.labels[fitted].astype(np.float32),
        "node_vmic": grid.vmic[fitted].astype(np.float16),
        "heldout_index": grid.index[held],
        "feature_mean": mean,
        "feature_scale": scale,
        "sed_wavelength": grid.sed_wavelength,
        "continuum_wavelength": grid.continuum_wavelength,
    }
    normalised = grid.normalised[fitted].astype(np.float64)
    arrays |= pack_head("normalised", fit_head(inputs, normalised, settings.normalised_components, 0, settings))
    arrays |= pack_head("flux", fit_head(inputs, log_flux, settings.flux_components, 1, settings))
    return measure_errors(Emulator(arrays), arrays, grid, held, asdict(settings))


def main(argv: list[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Train the emulator of model spectra on a grid.")
    parser.add_argument("grid", type=Path, help="npz file of the grid")
    parser.add_argument("--output", type=Path, required=True, help="weights file to write (.npz)")
    default = Settings()
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--epochs", type=int, default=default.epochs)
    parser.add_argument("--members", type=int, default=default.members)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(argv)
    import torch

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    arrays = train(read_grid(options.grid), Settings(seed=options.seed, epochs=options.epochs, members=options.members))
    with whole_file(options.output) as temporary, open(temporary, "wb") as handle:
        np.savez(handle, **arrays)  # type: ignore[arg-type]
    write_json(options.output.with_suffix(".json"), Emulator(arrays).metrics)
    log.info("wrote %s", options.output)


if __name__ == "__main__":
    main()
