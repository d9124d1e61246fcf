"""Training: a recipe and paired spectra in, a model folder out; stopped at any time, it goes on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from specclip_search.errors import CheckpointError

from .aligned import LRS, XP, AlignedModel
from .checkpoints import ModelCard, build_module, load_module, new_card
from .folders import key_differences
from .losses import error_weights
from .pairs import Batch, PairSource
from .published import ALIGNED
from .recipe import Recipe, load_recipe
from .retrieval import pair_retrieval
from .run_folder import Resume, RunFolder
from .run_state import Progress
from .schedule import rate_at

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas


@dataclass(frozen=True)
class Event:
    """What `train` tells its caller after every step, and with `metrics` after every epoch."""

    epoch: int
    """Epoch now running, counted from 1."""
    epochs: int
    """Most epochs of the run."""
    step: int
    """Step within the epoch, counted from 1."""
    steps: int
    """Steps in an epoch."""
    loss: float
    """Loss of this step, or mean of the epoch."""
    metrics: dict[str, float] | None = None
    """After an epoch: every loss for both splits, retrieval, rate, seconds."""


def train(recipe: str | Path | Recipe, data: Atlas | PairSource, output: str | Path, *, resume: Resume = "auto",
          progress: Callable[[Event], None] | None = None, device: str = "auto", stop_after: int | None = None,
          ) -> Path:
    """Train a model.

    Parameters
    ----------
    recipe
        Name of a shipped recipe, a TOML file, or a `Recipe`.
    data
        An atlas with spectra of both instruments, or any `PairSource`.
    output
        Run folder: becomes a model folder for `load_model`, with the best weights by validation loss.
    resume
        ``auto``: go on where a run stands in `output`, else begin. True: go on, or fail.
        False: begin, or fail if `output` holds a run.
    progress
        Called with an `Event` after every step and epoch.
    device
        Torch device, or ``auto``.
    stop_after
        Epochs after which to stop though the recipe has more; a later call goes on.

    Returns
    -------
    Path
        The run folder.

    Raises
    ------
    CheckpointError
        If the recipe, the data or the run in `output` do not fit together, or the loss is no number.
    """
    from .model import pick_device

    recipe, run = load_recipe(recipe), RunFolder(Path(output))
    with run.lock():
        source = _source(data, run, recipe)
        run.open(recipe, source.digest, resume)
        with torch.random.fork_rng():
            _Trainer(recipe, source, run, pick_device(device), progress).fit(stop_after)
    return run.path


class _Trainer:
    """One run: module, optimiser and where they stand."""

    def __init__(self, recipe: Recipe, source: PairSource, run: RunFolder, device: torch.device,
                 report: Callable[[Event], None] | None) -> None:
        self.recipe, self.source, self.run, self.device = recipe, source, run, device
        self.report = report or (lambda event: None)
        self.card = new_card(recipe.name, recipe.kind, recipe.model, origin=f"trained by recipe '{recipe.name}'")
        torch.manual_seed(recipe.seed)
        self.module = _fresh_module(recipe, self.card).to(device)
        self.optimiser = _optimiser(self.module, recipe)
        self.progress = run.restore(self.module, self.optimiser) or Progress()
        self.steps = source.stars("train") // recipe.data.batch_size
        _check_source(source, self.card, recipe, self.steps)

    def fit(self, stop_after: int | None) -> None:
        """Epochs until the recipe, patience or `stop_after` ends them."""
        settings, progress = self.recipe.optimiser, self.progress
        while progress.epoch < settings.epochs and not self._out_of_patience():
            if stop_after is not None and progress.epoch >= stop_after:
                return
            started = time.perf_counter()
            torch.manual_seed(int(np.random.SeedSequence([self.recipe.seed, progress.epoch]).generate_state(1)[0]))
            metrics = self._train_epoch() | self._validate()
            progress.epoch += 1
            metrics |= {"epoch": progress.epoch, "seconds": round(time.perf_counter() - started, 2)}
            progress.history.append(metrics)
            self._keep(metrics)
            self.report(Event(progress.epoch, settings.epochs, self.steps, self.steps, metrics["train_total"], metrics))
        self.run.finish(progress)

    def _out_of_patience(self) -> bool:
        patience = self.recipe.optimiser.patience
        return bool(patience) and self.progress.epoch - self.progress.best_epoch >= patience

    def _keep(self, metrics: dict[str, float]) -> None:
        progress, loss = self.progress, metrics["validation_total"]
        if loss < progress.best_loss - self.recipe.optimiser.min_delta:
            progress.best_loss, progress.best_epoch = loss, progress.epoch
            self.run.save_best(self.card, self.module, progress)
        self.run.save_state(self.module, self.optimiser, progress)

    def _train_epoch(self) -> dict[str, float]:
        recipe, progress = self.recipe, self.progress
        self.module.train()
        sums: dict[str, float] = {}
        batches = self.source.batches("train", recipe.data.batch_size, recipe.seed, progress.epoch, recipe.augment)
        for number, batch in enumerate(batches, start=1):
            rate = self._set_rate()
            terms = self._losses(batch)
            self.optimiser.zero_grad()
            terms["total"].backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.module.parameters(), recipe.optimiser.clip_norm)
            values = {name: term.item() for name, term in terms.items()}
            if not math.isfinite(values["total"]):
                raise CheckpointError(
                    f"The loss became {values['total']} in epoch {progress.epoch + 1}, step {number}.",
                    "Lower [optimiser] rate, or look for spectra that are not finite; the last epoch is kept.")
            self.optimiser.step()
            progress.step += 1
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value
            self.report(Event(progress.epoch + 1, recipe.optimiser.epochs, number, self.steps, values["total"]))
        return {f"train_{name}": value / self.steps for name, value in sums.items()} | {"rate": rate}

    def _set_rate(self) -> float:
        settings = self.recipe.optimiser
        total = settings.total_steps or self.steps * settings.epochs
        rate = rate_at(self.progress.step, total, settings.warmup_steps, settings.rate, settings.final_fraction)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        return rate

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        inputs = self._tensors(batch.inputs)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.optimiser.precision == "bf16"):
            if not isinstance(self.module, AlignedModel):
                return self.module.losses(inputs[self.card.modalities[0]])  # type: ignore[operator]
            settings, weights = self.recipe.loss, None
            if settings.error_weighted:
                errors = self._tensors(batch.errors)
                weights = {name: error_weights(error, settings.error_floor) for name, error in errors.items()}
            terms = self.module.losses(inputs[XP], inputs[LRS], weights, self._tensors(batch.targets))
        factor = {"clip": settings.contrast, "recon": settings.reconstruct, "pred": settings.predict}
        parts = [factor[name.split("_")[0]] * term for name, term in terms.items() if name != "total"]
        return terms | {"total": torch.stack(parts).sum()}

    def _tensors(self, arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
        return {name: torch.from_numpy(array).to(self.device) for name, array in arrays.items()}

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        data = self.recipe.data
        self.module.eval()
        sums: dict[str, float] = {}
        vectors: dict[str, list[np.ndarray]] = {XP: [], LRS: []}
        rows = 0
        for batch in self.source.batches("validation", data.batch_size, self.recipe.seed, 0,
                                         limit=data.validation_pairs):
            size = len(batch.source_id)
            rows += size
            for name, term in self._losses(batch).items():
                sums[name] = sums.get(name, 0.0) + size * term.item()
            if isinstance(self.module, AlignedModel):
                for name, x in self._tensors(batch.inputs).items():
                    vectors[name].append(self.module.encode(name, x)["shared"].float().cpu().numpy())
        result = {f"validation_{name}": value / rows for name, value in sums.items()}
        if vectors[XP]:
            found = pair_retrieval(np.concatenate(vectors[XP]), np.concatenate(vectors[LRS]))
            renamed = {"r1_a": "r1_xp_to_lrs", "r10_a": "r10_xp_to_lrs", "r1_b": "r1_lrs_to_xp",
                       "r10_b": "r10_lrs_to_xp"}
            result |= {renamed.get(name, name): value for name, value in found.items()}
        return result


def _source(data: Atlas | PairSource, run: RunFolder, recipe: Recipe) -> PairSource:
    if hasattr(data, "batches"):
        return data  # type: ignore[return-value]
    from .atlas_pairs import atlas_source

    return atlas_source(data, run.path / "pairs", recipe.kind)  # type: ignore[arg-type]


def _fresh_module(recipe: Recipe, card: ModelCard) -> nn.Module:
    module = build_module(card)
    folders = {name: getattr(recipe.backbones, name) for name in (XP, LRS)}
    if recipe.kind not in ALIGNED:
        if any(folders.values()):
            raise CheckpointError(f"Kind '{recipe.kind}' takes no pretrained backbones.", "Remove [backbones].")
        return module
    for name, folder in folders.items():
        if not folder:
            raise CheckpointError(
                f"Kind '{recipe.kind}' keeps its backbones frozen, and the recipe names no pretrained one for {name}.",
                f"Train or import an encoder and name its folder as [backbones] {name}.")
        loaded, pretrained = load_module(Path(folder))
        backbone = getattr(module, f"{name}_encoder").backbone
        wanted = {key: tuple(v.shape) for key, v in backbone.state_dict().items()}
        problems = key_differences(wanted, {key: tuple(v.shape) for key, v in pretrained.state_dict().items()})
        if problems:
            raise CheckpointError(f"{folder} (kind '{loaded.kind}') is no {name} backbone of kind '{recipe.kind}': "
                                  f"{problems}.", "Name the folder of the right encoder.")
        backbone.load_state_dict(pretrained.state_dict())
    return module


def _optimiser(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    settings = recipe.optimiser
    trained = [p for p in module.parameters() if p.requires_grad]
    decayed = [p for p in trained if p.ndim > 1 or settings.decay_vectors]
    spared = [p for p in trained if p.ndim <= 1 and not settings.decay_vectors]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=settings.rate,
                             betas=(settings.beta1, settings.beta2), fused=True)


def _check_source(source: PairSource, card: ModelCard, recipe: Recipe, steps: int) -> None:
    lacking: list[str] = [name for name in card.modalities if name not in source.modalities]
    if lacking:
        raise CheckpointError(f"Kind '{card.kind}' needs {' and '.join(card.modalities)} spectra; "
                              f"the data have no {lacking[0]}.", "Ingest them, or choose another recipe.")
    split: Literal["train", "validation"]
    for split, least in (("train", recipe.data.batch_size), ("validation", 2)):
        if source.stars(split) < least:
            raise CheckpointError(
                f"Training needs at least {least} {split} stars; the data have {source.stars(split)}.",
                "Ingest more stars with both spectra, or lower [data] batch_size.")
