"""Training of label estimators on the vectors of a finished model."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from specclip_search.errors import CheckpointError
from specclip_search.progress import Progress
from specclip_search.surveys import LRS, XP

from ..networks.label_scale import HOT_COMPOSITION, HOT_TEFF, MEASURED, to_scale
from .calibration import calibrate
from .data import LabelledVectors, labelled_vectors
from .estimators import Estimators, InstrumentEstimator, distance_of, save_estimators
from .metrics import measured
from .network import EstimatorModule, EstimatorSizes

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas

    from ..model import Model

MIN_STARS = 200
"""Fewest labelled training stars an instrument's estimator is made from."""


@dataclass(frozen=True)
class EstimatorRecipe:
    """How estimators are trained."""

    xp_axes: int = 320
    """Principal axes of Gaia XP vectors that are used, at most."""
    lrs_axes: int = 96
    """The same of LAMOST LRS vectors: few, since the weak axes of model spectra are where real ones leave them."""
    hidden: int = 192
    """Width of the two hidden layers."""
    components: int = 3
    """Normal distributions a label."""
    members: int = 2
    """Networks whose posteriors are pooled."""
    epochs: int = 20
    """Passes over the training stars."""
    batch_size: int = 256
    """Stars a step."""
    rate: float = 2e-3
    """Highest learning rate."""
    weight_decay: float = 0.1
    """Of AdamW."""
    dropout: float = 0.1
    """Of the hidden layers."""
    made_weight: float = 0.3
    """Weight of a made star against a real one."""
    made_below: float = -2.2
    """Made XP stars above this [Fe/H], where there are real ones, teach [C/Fe] alone."""
    balance: float = 0.15
    """Power of the star density in [Fe/H] that weights are divided by; 1 makes every metallicity count the same."""
    seed: int = 1
    """Of everything random."""


def train_estimators(atlas: Atlas, model: Model, recipe: EstimatorRecipe | None = None, *,
                     catalogues: tuple[str, ...] = ("truth", "truth_spread", "apogee"),
                     progress: Progress | None = None) -> Estimators:
    """Train estimators of a model's instruments and write them beside its weights.

    Stars of splits 0 to 7 train, split 8 calibrates and judges, acceptance stars are not touched.

    Parameters
    ----------
    atlas
        With labelled spectra; vectors of these weights are used where it has them.
    model
        Loaded from a folder.
    recipe
        The default one unless given.
    catalogues
        Catalogues of labels; where two name a star, the first counts. Those the atlas lacks are left out.
    progress
        Called with (done, total, what).

    Raises
    ------
    CheckpointError
        If the model has no folder, or too few stars have labels.
    """
    recipe = recipe or EstimatorRecipe()
    if model.folder is None:
        raise CheckpointError(f"Model '{model.name}' has no folder to keep label estimators in.", "Save it first.")
    present = tuple(name for name in catalogues if atlas.catalog(name).exists) or catalogues[-1:]
    instruments: dict[str, InstrumentEstimator] = {}
    metrics: dict[str, Any] = {"recipe": asdict(recipe), "catalogues": list(present)}
    for modality in (name for name in model.modalities if name in atlas.modalities()):
        started = time.process_time()
        data = labelled_vectors(atlas, model, modality, present, progress)
        instruments[modality] = fit_instrument(modality, data, recipe, progress)
        metrics[modality] = measured(modality, instruments[modality], data)
        metrics[modality]["cpu_seconds"] = round(time.process_time() - started, 1)
    if not instruments:
        raise atlas.spectra(" or ".join(model.modalities)).missing()
    return save_estimators(model.folder, model.digest, instruments, metrics)


def fit_instrument(modality: str, data: LabelledVectors, recipe: EstimatorRecipe,
                   progress: Progress | None = None) -> InstrumentEstimator:
    """Train and calibrate the estimator of one instrument; its weights are float16 numbers."""
    labels = MEASURED[modality]
    fit = np.flatnonzero(~data.validation)
    held = np.flatnonzero(data.validation)
    if len(fit) < MIN_STARS or not len(held):
        raise CheckpointError(f"{len(fit)} training and {len(held)} validation stars of {modality} have labels; "
                              f"{MIN_STARS} and 1 are needed.", "Ingest a catalogue of labels of more of these stars.")
    known = with_hot_compositions(data.labels, labels, recipe.seed)
    if modality == XP:
        overruled = data.simulated & ~data.validation & (data.labels[:, labels.index("feh")] > recipe.made_below)
        known[np.ix_(overruled, [i for i, name in enumerate(labels) if name != "c_fe"])] = np.nan
    scaled = np.stack([to_scale(n, known[:, i]) for i, n in enumerate(labels)], axis=1)
    mean, std = _moments(scaled[fit])
    target = ((scaled - mean) / std).astype(np.float32)
    axes = recipe.lrs_axes if modality == LRS else recipe.xp_axes
    sizes = EstimatorSizes(data.vectors.shape[1], min(axes, data.vectors.shape[1]), recipe.hidden, recipe.components,
                           len(labels), recipe.members)
    torch.manual_seed(recipe.seed)
    module = EstimatorModule(sizes, recipe.dropout)
    module.set_projection(data.vectors[fit])
    weight = star_weights(data.labels[:, labels.index("feh")], data.simulated, fit, recipe)
    _fit(module, modality, data.vectors[fit], target[fit], weight[fit], recipe, progress)
    for parameter in module.parameters():  # as they will be kept, so that calibration sees what users see
        parameter.data = parameter.data.half().float()
    _, mixture = _run(module, data.vectors[held])
    calibration = calibrate(modality, mixture, target[held], data.snr[held])
    values = [known[fit, i][np.isfinite(known[fit, i])] for i in range(len(labels))]
    low, high = (np.array([np.quantile(v, q) if len(v) else 0.0 for v in values]) for q in (0.001, 0.999))
    far = float(np.quantile(_run(module, data.vectors[fit])[0], 0.995))
    snr = data.snr[fit][np.isfinite(data.snr[fit])]
    return InstrumentEstimator(labels, module.eval().requires_grad_(False), calibration, mean, std, low, high, far,
                               float(np.quantile(snr, 0.005)) if len(snr) else 0.0)


def with_hot_compositions(labels: np.ndarray, names: tuple[str, ...], seed: int) -> np.ndarray:
    """Labels (N, labels) with unknown compositions of hot stars drawn from `HOT_COMPOSITION`."""
    drawn = labels.copy()
    rng = np.random.default_rng([seed, 7])
    for name, (mean, sigma) in HOT_COMPOSITION.items():
        column = drawn[:, names.index(name)]
        unknown = np.isnan(column) & (labels[:, names.index("teff")] > HOT_TEFF)
        column[unknown] = rng.normal(mean, sigma, int(unknown.sum()))
    return drawn


def star_weights(feh: np.ndarray, made: np.ndarray, fit: np.ndarray, recipe: EstimatorRecipe) -> np.ndarray:
    """(N,) weights of stars: less for made ones, more where few training stars have this [Fe/H]; of mean 1."""
    edges = np.arange(-4.2, 1.01, 0.2)
    counts, _ = np.histogram(feh[fit][np.isfinite(feh[fit])], edges)
    density = np.clip(counts, 20, None) / max(counts.max(), 20)
    place = np.clip(np.searchsorted(edges, np.nan_to_num(feh)) - 1, 0, len(counts) - 1)
    weight = np.where(made, recipe.made_weight, 1.0) * density[place] ** -recipe.balance
    return (weight / weight[fit].mean()).astype(np.float32)


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of what is known in each column; 0 and 1 where nothing is."""
    columns = [column[np.isfinite(column)] for column in values.T]
    mean = np.array([column.mean() if len(column) else 0.0 for column in columns])
    std = np.array([column.std() if len(column) > 1 else 1.0 for column in columns])
    return mean, np.where(std > 0, std, 1.0)


def _run(module: EstimatorModule, vectors: np.ndarray) -> tuple[np.ndarray, Any]:
    x, mixture = module.run(vectors)
    return distance_of(x), mixture


def _fit(module: EstimatorModule, modality: str, vectors: np.ndarray, target: np.ndarray, weight: np.ndarray,
         recipe: EstimatorRecipe, progress: Progress | None) -> None:
    with torch.no_grad():
        x = module.seen(module.coordinates(torch.from_numpy(vectors)))
    y, w = torch.from_numpy(target), torch.from_numpy(weight)
    steps = math.ceil(len(x) / recipe.batch_size)
    for number, member in enumerate(module.members):
        rng = np.random.default_rng([recipe.seed, number])
        optimiser = torch.optim.AdamW(member.parameters(), recipe.rate, weight_decay=recipe.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, total_steps=steps * recipe.epochs,
                                                       pct_start=0.1)
        member.train()
        for epoch in range(recipe.epochs):
            for rows in torch.from_numpy(rng.permutation(len(x))).split(recipe.batch_size):
                loss = (member.loss(x[rows], y[rows]).sum(1) * w[rows]).mean()  # type: ignore[operator]
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(member.parameters(), 5.0)
                optimiser.step()
                schedule.step()
            if progress is not None:
                progress(number * recipe.epochs + epoch + 1, recipe.members * recipe.epochs, f"{modality} epochs")
