"""Adapting a model to a user's own labelled spectra by small low-rank changes of one encoder (LoRA, Hu et al. 2022).

Every linear layer W of the encoder becomes W + U V with V (rank, in) and U (out, rank). Only U and V
are trained and kept, in half precision, so that an adapter of the shipped model has some 200 kB. It
names the digest of the weights it belongs to; the adapted model has a digest of its own, so that its
vectors are not compared with those of the base or of another adapter.

The loss has three terms: the labels' likelihood under a linear readout of the vector; a contrast with labelled
stars of the other instrument, if there are any, whose weight should lie on stars of similar labels
(`specclip_search.training.real_spectra.fit.multi_instance_loss`); and the distance from the base model's vectors.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from specclip_search.atlas.files import file_digest, write_text
from specclip_search.errors import CheckpointError
from specclip_search.surveys import LRS
from specclip_search.version import __version__

from ..checkpoints.folder import load_module, load_tensors, save_tensors, whole_folder
from ..checkpoints.settings import read_settings
from ..checkpoints.shipped import find_model
from ..estimators.metrics import robust_sigma
from ..fit.augment import Augmentation, augment
from ..model import Model
from ..networks.aligned import AlignedModel
from ..networks.autoencoder import AutoEncoder
from ..networks.heads import Encoder
from ..networks.label_scale import from_scale, to_scale
from ..networks.losses import clip_logits, label_loss
from .fit import label_kernel, multi_instance_loss

ADAPTER, TENSORS = "adapter.toml", "adapter.safetensors"
FORMAT_VERSION = 1
FEWEST = 20
FEW_SHOT = (25, 50, 100, 200)
RIDGE = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
BLOCK = 512


@dataclass(frozen=True)
class AdaptSettings:
    """How an adapter is trained."""

    rank: int = 8
    """Rank of every layer's change."""
    targets: tuple[str, ...] = ()
    """Layers that are changed: those whose names contain one of these; all linear ones of the encoder unless given."""
    budget_kb: int = 1000
    """Largest size of the adapter, kB."""
    steps: int = 300
    """Steps of training."""
    rate: float = 2e-3
    """Highest learning rate of the one-cycle schedule."""
    batch_size: int = 96
    """Stars a step."""
    anchor: float = 0.3
    """Weight of one minus the cosine between adapted and base vectors."""
    contrast: float = 0.5
    """Weight of the contrast with labelled stars of the other instrument."""
    bank: int = 2000
    """Stars of the other instrument that a batch is contrasted with."""
    noise: float = 1.0
    """Largest extra noise in units of the spectra's own errors."""
    weight_decay: float = 0.01
    """Of AdamW."""
    seed: int = 1
    """Of everything random."""

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= 256 or self.steps < 1 or self.batch_size < 2:
            raise CheckpointError(f"rank must lie between 1 and 256, steps be at least 1 and batch_size at least 2; "
                                  f"found {self.rank}, {self.steps} and {self.batch_size}.", "Try --rank 8.")


@dataclass(frozen=True)
class LabelledSpectra:
    """Spectra with labels that a model is adapted to or judged on.

    Attributes
    ----------
    inputs, errors
        (N, n) float32 model inputs and 1 sigma, inf where a pixel says nothing.
    labels
        (N, k) in the labels' units, NaN where unknown.
    names
        Names of the labels, for example ``("teff", "logg", "feh")``.
    """

    inputs: np.ndarray
    errors: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, rows: np.ndarray) -> LabelledSpectra:
        """The rows asked for."""
        return LabelledSpectra(self.inputs[rows], self.errors[rows], self.labels[rows], self.names)

    def scaled(self) -> np.ndarray:
        """(N, k) labels on the scale they are learned on: Teff as its logarithm."""
        return np.stack([to_scale(name, self.labels[:, i]) for i, name in enumerate(self.names)], axis=1)


@dataclass(frozen=True)
class Bank:
    """Labelled stars of the other instrument: unit vectors (M, dim) and labels (M, 3) teff, logg, feh."""

    vectors: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Adapter:
    """What is kept of an adaptation.

    Attributes
    ----------
    name, modality, base, base_digest, settings
        What it is, of which instrument, and the model it belongs to.
    factors
        By name of a layer: U (out, rank) and V (rank, in).
    readout
        Weights (dim + 1, k) of a linear readout of the unit vector, the constant last, on the learned scale.
    labels
        Names of the readout's labels.
    """

    name: str
    modality: str
    base: str
    base_digest: str
    settings: AdaptSettings
    factors: Mapping[str, tuple[Tensor, Tensor]]
    readout: np.ndarray
    labels: tuple[str, ...]

    def estimate(self, vectors: np.ndarray) -> dict[str, np.ndarray]:
        """Labels (N,) of adapted unit vectors (N, dim) by the linear readout, in the labels' units."""
        values = vectors @ self.readout[:-1] + self.readout[-1]
        return {name: from_scale(name, values[:, i]) for i, name in enumerate(self.labels)}


class _LowRank(nn.Module):
    """The change U V of a layer's weight; as a parametrisation."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rank = min(rank, *weight.shape)
        self.down = nn.Parameter(torch.randn(rank, weight.shape[1]) / weight.shape[1] ** 0.5)
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank))

    def forward(self, weight: Tensor) -> Tensor:
        """The changed weight."""
        return weight + self.up @ self.down


def target_layers(module: nn.Module, modality: str) -> dict[str, nn.Linear]:
    """Linear layers of an instrument's encoder, by their name in the module.

    Raises
    ------
    CheckpointError
        If the module has no encoder of this instrument with such layers.
    """
    prefix = f"{modality}_encoder" if isinstance(module, AlignedModel) else ""
    encoder = module.get_submodule(prefix) if not prefix or hasattr(module, prefix) else None
    # attention's own projections are used through functions that read their weights before any hook
    layers = {f"{prefix}.{name}".strip("."): layer for name, layer in
              (encoder.named_modules() if encoder is not None else ())
              if isinstance(layer, nn.Linear) and type(layer) is nn.Linear and "decoder_" not in name}
    if not layers:
        raise CheckpointError(f"This model has no encoder of {modality} with layers to adapt.",
                              "Choose an instrument that the model takes.")
    return layers


def chosen_layers(module: nn.Module, modality: str, settings: AdaptSettings) -> dict[str, nn.Linear]:
    """The layers that settings name.

    Raises
    ------
    CheckpointError
        If they name none, or the adapter would be larger than its budget.
    """
    known = target_layers(module, modality)
    layers = {name: layer for name, layer in known.items()
              if not settings.targets or any(part in name for part in settings.targets)}
    if not layers:
        raise CheckpointError(f"No layer's name contains any of {', '.join(settings.targets)}.",
                              f"Layers are named like {', '.join(list(known)[:3])}.")
    row = sum(layer.in_features + layer.out_features for layer in layers.values())
    if 2 * row * settings.rank > 1000 * settings.budget_kb:
        raise CheckpointError(f"An adapter of rank {settings.rank} of {len(layers)} layers has "
                              f"{2 * row * settings.rank / 1000:.0f} kB; at most {settings.budget_kb} were expected.",
                              f"Choose --rank {max(1000 * settings.budget_kb // (2 * row), 1)} or fewer layers.")
    return layers


@contextmanager
def _adapted(module: nn.Module, layers: Mapping[str, nn.Linear], rank: int) -> Iterator[dict[str, _LowRank]]:
    """Layers with trainable changes; they are taken off again at the end."""
    from torch.nn.utils import parametrize

    changes: dict[str, _LowRank] = {}
    module.requires_grad_(False)
    frozen = [one for one in module.modules() if isinstance(one, Encoder) and one.frozen]
    try:
        for encoder in frozen:  # a frozen backbone would keep the changes from learning
            encoder.frozen = False
        for name, layer in layers.items():
            changes[name] = _LowRank(layer.weight, rank)
            parametrize.register_parametrization(layer, "weight", changes[name])
        yield changes
    finally:
        for encoder in frozen:
            encoder.frozen = True
        for name in changes:
            parametrize.remove_parametrizations(layers[name], "weight", leave_parametrized=False)


def shared_vectors(module: nn.Module, modality: str, x: Tensor) -> Tensor:
    """(B, dim) shared vectors, not of unit length, of any kind of model."""
    if isinstance(module, AlignedModel):
        return module.encode(modality, x)["shared"]
    features: Tensor = module.embed(x)  # type: ignore[operator]
    return features if isinstance(module, AutoEncoder) else features.mean(dim=1)


@torch.inference_mode()
def unit(module: nn.Module, modality: str, inputs: np.ndarray) -> np.ndarray:
    """(N, dim) float32 unit vectors."""
    module.eval()
    blocks = [F.normalize(shared_vectors(module, modality, torch.from_numpy(inputs[i : i + BLOCK])), dim=-1)
              for i in range(0, len(inputs), BLOCK)]
    return torch.cat(blocks).numpy()


def adapt(model: Model, modality: str, spectra: LabelledSpectra, settings: AdaptSettings | None = None, *,
          name: str = "adapted", bank: Bank | None = None) -> Adapter:
    """Train an adapter of a model on labelled spectra.

    Parameters
    ----------
    bank
        Labelled stars of the other instrument in the model's space; without it vectors are held
        near the base's alone, and what is found across instruments does not get better.

    Raises
    ------
    CheckpointError
        If there are fewer than 20 labelled spectra.
    """
    settings = settings or AdaptSettings()
    known = np.flatnonzero(np.isfinite(spectra.labels).any(axis=1))
    if len(known) < FEWEST:
        raise CheckpointError(f"{len(known)} of {len(spectra)} spectra have labels; {FEWEST} are needed to adapt.",
                              "Give more labelled spectra, or use the model as it is.")
    spectra, module = spectra.take(known), model.module
    base = torch.from_numpy(unit(module, modality, spectra.inputs))
    start = ridge_readout(base.numpy(), spectra.scaled())
    torch.manual_seed(settings.seed)
    readout = nn.Linear(base.shape[1], len(spectra.names))
    log_scale = nn.Parameter(torch.full((len(spectra.names),), -1.0))
    middle, width = _moments(spectra.scaled())
    with torch.no_grad():
        readout.weight.copy_(torch.from_numpy((start[:-1] / width).T))
        readout.bias.copy_(torch.from_numpy((start[-1] - middle) / width))
    target = torch.from_numpy(((spectra.scaled() - middle) / width).astype(np.float32))
    layers = chosen_layers(module, modality, settings)
    with _adapted(module, layers, settings.rank) as changes:
        trained = [p for change in changes.values() for p in change.parameters()]
        parameters = [*trained, *readout.parameters(), log_scale]
        _train(module, modality, spectra, target, base, readout, log_scale, parameters, settings, bank)
        factors = {key: (c.up.detach().half().float(), c.down.detach().half().float()) for key, c in changes.items()}
    adapter = Adapter(name, modality, model.name, model.digest, settings, factors,
                      np.zeros((base.shape[1] + 1, len(spectra.names))), spectra.names)
    with applied(module, adapter):
        vectors = unit(module, modality, spectra.inputs)
    return replace(adapter, readout=ridge_readout(vectors, spectra.scaled()))


def _train(module: nn.Module, modality: str, spectra: LabelledSpectra, target: Tensor, base: Tensor,
           readout: nn.Linear, log_scale: Tensor, parameters: list[nn.Parameter], settings: AdaptSettings,
           bank: Bank | None) -> None:
    rng = np.random.default_rng(settings.seed)
    optimiser = torch.optim.AdamW(parameters, settings.rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.rate, total_steps=settings.steps + 1,
                                                   pct_start=0.1)
    scale = float(module.scale()) if isinstance(module, AlignedModel) else 15.5
    first = [spectra.names.index(n) for n in ("teff", "logg", "feh") if n in spectra.names]
    seen = Augmentation(noise=settings.noise, mask_pixels=40 if modality == LRS else 0)
    module.train()
    for _ in range(settings.steps):
        rows = rng.integers(0, len(spectra), min(settings.batch_size, len(spectra)))
        flux, _ = augment(modality, spectra.inputs[rows], spectra.errors[rows], seen, rng)
        vector = F.normalize(shared_vectors(module, modality, torch.from_numpy(flux)), dim=-1)
        loss = label_loss(readout(vector), log_scale.expand(len(rows), -1), target[rows])
        loss = loss + settings.anchor * (1.0 - (vector * base[rows]).sum(1)).mean()
        if bank is not None and settings.contrast and len(first) == 3:
            some = rng.integers(0, len(bank.vectors), settings.bank)
            kernel = label_kernel(spectra.labels[rows][:, first], bank.labels[some])
            logits = clip_logits(vector, torch.from_numpy(bank.vectors[some]), scale)
            loss = loss + settings.contrast * multi_instance_loss(logits, torch.from_numpy(kernel.astype(np.float32)))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
    module.eval()


@contextmanager
def applied(module: nn.Module, adapter: Adapter) -> Iterator[nn.Module]:
    """The module with an adapter's changes, which are taken off at the end."""
    layers = target_layers(module, adapter.modality)
    kept = {name: layers[name].weight.detach().clone() for name in adapter.factors}
    merge(module, adapter)
    try:
        yield module
    finally:
        with torch.no_grad():
            for name, weight in kept.items():
                layers[name].weight.copy_(weight)


def merge(module: nn.Module, adapter: Adapter) -> None:
    """Add an adapter's changes to a module's weights, in place.

    Raises
    ------
    CheckpointError
        If the adapter's layers are not those of the module.
    """
    layers = target_layers(module, adapter.modality)
    with torch.no_grad():
        for name, (up, down) in adapter.factors.items():
            if name not in layers or layers[name].weight.shape != (up.shape[0], down.shape[1]):
                raise CheckpointError(f"Adapter '{adapter.name}' changes a layer {name} of shape "
                                      f"{(up.shape[0], down.shape[1])} that this model lacks.",
                                      f"Use it with the model '{adapter.base}' it was made for.")
            layers[name].weight += up @ down


def save_adapter(folder: Path, adapter: Adapter, metrics: Mapping[str, Any] | None = None) -> str:
    """Write an adapter's folder whole; returns the digest of its tensors."""
    import tomli_w

    tensors = {f"{key}/{part}": value.half() for key, both in adapter.factors.items()
               for part, value in zip(("up", "down"), both, strict=True)}
    tensors["readout"] = torch.from_numpy(adapter.readout.astype(np.float32))
    with whole_folder(folder) as beside:
        save_tensors(beside / TENSORS, tensors)
        digest = file_digest(beside / TENSORS)
        table = {"format_version": FORMAT_VERSION, "created_by": __version__, "name": adapter.name, "digest": digest,
                 "modality": adapter.modality, "base": adapter.base, "base_digest": adapter.base_digest,
                 "labels": list(adapter.labels), "settings": asdict(adapter.settings), "metrics": dict(metrics or {})}
        write_text(beside / ADAPTER, tomli_w.dumps(table))
    return digest


def read_adapter(folder: Path) -> Adapter:
    """An adapter from its folder.

    Raises
    ------
    CheckpointError
        If a file is missing, damaged or of another format.
    """
    path = folder / ADAPTER
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        if table["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format {table['format_version']}")
        if file_digest(folder / TENSORS) != table["digest"]:
            raise ValueError(f"{TENSORS} is not the file it was written for")
        settings = read_settings(AdaptSettings, table["settings"], ADAPTER)
        tensors = load_tensors(folder / TENSORS)
        layers = sorted({key.rpartition("/")[0] for key in tensors if "/" in key})
        factors = {key: (tensors[f"{key}/up"].float(), tensors[f"{key}/down"].float()) for key in layers}
        return Adapter(table["name"], table["modality"], table["base"], table["base_digest"], settings, factors,
                       tensors["readout"].double().numpy(), tuple(table["labels"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder} is not a readable adapter ({type(error).__name__}: {error}).",
                              "Make it again: specclip-search train adapt --from mini --output DIR.") from error


def load_adapted(folder: Path, device: str = "auto") -> Model:
    """The base model with an adapter's changes; its digest is that of both together.

    Raises
    ------
    CheckpointError
        If the adapter cannot be read, or the base model's weights are not those it was made for.
    """
    adapter = read_adapter(folder)
    base = find_model(adapter.base)
    card, module = load_module(base)
    if card.digest != adapter.base_digest:
        raise CheckpointError(f"Adapter '{adapter.name}' belongs to weights {adapter.base_digest[:19]} of "
                              f"'{adapter.base}'; found {card.digest[:19]}.",
                              "Adapt these weights: specclip-search train adapt --from "
                              f"{adapter.base} --output DIR.")
    merge(module, adapter)
    both = hashlib.sha256(f"{card.digest} {file_digest(folder / TENSORS)}".encode()).hexdigest()
    return Model(replace(card, name=adapter.name, digest=f"sha256:{both}"), module, device)


def ridge_readout(vectors: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(dim + 1, k) linear readout of unit vectors; the penalty is chosen by generalised cross-validation."""
    result = np.zeros((vectors.shape[1] + 1, target.shape[1]))
    for i in range(target.shape[1]):
        known = np.isfinite(target[:, i])
        if known.sum() < 2:
            continue
        x, y = vectors[known].astype(np.float64), target[known, i]
        center, middle = x.mean(0), y.mean()
        u, s, vt = np.linalg.svd(x - center, full_matrices=False)
        projected = u.T @ (y - middle)
        best = None
        for penalty in RIDGE:
            shrink = s**2 / (s**2 + penalty)
            left = ((y - middle) - u @ (shrink * projected))
            # one degree of freedom is the mean's
            score = (left**2).mean() / max(1.0 - (shrink.sum() + 1.0) / len(y), 1e-3) ** 2
            if best is None or score < best[0]:
                best = (score, vt.T @ (s / (s**2 + penalty) * projected))
        assert best is not None
        result[:-1, i] = best[1]
        result[-1, i] = middle - center @ best[1]
    return result


def compare(model: Model, adapter: Adapter, training: LabelledSpectra, held: LabelledSpectra,
            bank: Bank | None = None) -> list[dict[str, Any]]:
    """Before and after on held-out stars: a row a label, and for [Fe/H] of the 20 nearest of the bank.

    `before` is a linear readout of the base's vectors fitted to the same training labels, so that the
    difference is what the adapter did to the vectors.
    """
    module, modality = model.module, adapter.modality
    known = training.take(np.flatnonzero(np.isfinite(training.labels).any(axis=1)))
    base_readout = ridge_readout(unit(module, modality, known.inputs), known.scaled())
    before = unit(module, modality, held.inputs)
    with applied(module, adapter):
        after = unit(module, modality, held.inputs)
    sides = {"before": (before, base_readout), "after": (after, adapter.readout)}
    rows: list[dict[str, Any]] = []
    for i, name in enumerate(held.names):
        row: dict[str, Any] = {"what": name, "stars": int(np.isfinite(held.labels[:, i]).sum())}
        for side, (vectors, readout) in sides.items():
            found = from_scale(name, vectors @ readout[:-1, i] + readout[-1, i])
            _put(row, side, found - held.labels[:, i])
        rows.append(row)
    if bank is not None and "feh" in held.names:
        i = held.names.index("feh")
        row = {"what": "feh of the 20 nearest", "stars": int(np.isfinite(held.labels[:, i]).sum())}
        for side, (vectors, _) in sides.items():
            near = np.argpartition(-(vectors @ bank.vectors.T), 20, axis=1)[:, :20]
            _put(row, side, np.nanmedian(bank.labels[near, 2], axis=1) - held.labels[:, i])
        rows.append(row)
    return rows


def few_shot(model: Model, modality: str, training: LabelledSpectra, held: LabelledSpectra,
             settings: AdaptSettings | None = None, sizes: Sequence[int] = FEW_SHOT,
             bank: Bank | None = None) -> list[dict[str, Any]]:
    """`compare` for adapters of 25, 50, 100, 200 and all training stars: rows with a column `shots`."""
    settings = settings or AdaptSettings()
    order = np.random.default_rng([settings.seed, 3]).permutation(len(training))
    rows: list[dict[str, Any]] = []
    for size in (*(s for s in sizes if s < len(training)), len(training)):
        some = training.take(order[:size])
        made = adapt(model, modality, some, settings, bank=bank)
        rows += [{"shots": size} | row for row in compare(model, made, some, held, bank)]
    return rows




def _put(row: dict[str, Any], side: str, residual: np.ndarray) -> None:
    known = residual[np.isfinite(residual)]
    row[f"{side}_sigma"] = round(robust_sigma(known), 4) if len(known) else None
    row[f"{side}_bias"] = round(float(np.median(known)), 4) if len(known) else None


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with np.errstate(invalid="ignore"):
        middle, width = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
    return np.nan_to_num(middle), np.where(np.isfinite(width) & (width > 0), width, 1.0)
