"""Train a model from a recipe and paired spectra; interrupted runs can be resumed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn

from specclip_search.errors import CheckpointError
from specclip_search.stages.prefetch import read_ahead

from ..checkpoints.folder import ModelCard, new_card
from .distributed import Ranks, joined, own_device, share_norms, share_of
from .gradients import StepGradients
from .objective import DeviceBatch, Objective
from .pairs import PairSource
from .recipe import Recipe, load_recipe
from .run import Progress, Resume, RunFolder
from .start import compile_parts, fresh_module, make_optimiser, rate_at
from .tensorboard import TensorBoardLog
from .validation import validate

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas


@dataclass(frozen=True)
class Event:
    """Progress reported by `train` after every step, and with `metrics` after every epoch."""

    epoch: int
    """Current epoch, counted from 1."""
    epochs: int
    """Maximum number of epochs of the run."""
    step: int
    """Step within the epoch, counted from 1."""
    steps: int
    """Steps per epoch."""
    loss: float
    """Loss of this step, or mean over the epoch."""
    metrics: dict[str, float] | None = None
    """After an epoch: every loss for both splits, retrieval, rate, seconds."""


def train(recipe: str | Path | Recipe, data: Atlas | PairSource, output: str | Path, *, resume: Resume = "auto",
          progress: Callable[[Event], None] | None = None, device: str = "auto", stop_after: int | None = None,
          tensorboard: bool = False) -> Path:
    """Train a model, in a single process or as one of the processes started by `torchrun`.

    Parameters
    ----------
    recipe
        Name of a shipped recipe, a TOML file, or a `Recipe`.
    data
        An atlas with spectra of both instruments, or any `PairSource`.
    output
        Run folder: becomes a model folder for `load_model`, with the best weights by validation loss.
        It must be on a file system shared by all processes.
    resume
        ``auto``: resume a run in `output` if there is one, else start. True: resume, or fail.
        False: start, or fail if `output` contains a run.
    progress
        Called with an `Event` after every step and epoch, in the first process only.
    device
        Torch device, or ``auto``.
    stop_after
        Number of epochs after which to stop early; a later call resumes the run.
    tensorboard
        Whether to write curves under `output`/tensorboard.

    Returns
    -------
    Path
        The run folder.

    Raises
    ------
    CheckpointError
        If the recipe, the data or the run in `output` do not match, or the loss is not finite.
    """
    from ..model import pick_device

    recipe, run, chosen = load_recipe(recipe), RunFolder(Path(output)), own_device(pick_device(device))
    ranks = joined(chosen)
    with run.lock() if ranks.first else nullcontext():
        if ranks.first:
            source = _source(data, run, recipe)
            run.open(recipe, source.digest, resume)
        ranks.wait()
        if not ranks.first:
            source = _source(data, run, recipe)
        with torch.random.fork_rng():
            trainer = _Trainer(recipe, source, run, chosen, ranks)
            trainer.report = progress if progress and ranks.first else trainer.report
            if tensorboard and ranks.first:
                trainer.log = TensorBoardLog(run.path, trainer.progress.step)
            try:
                trainer.fit(stop_after)
            finally:
                if trainer.log:
                    trainer.log.close()
    return run.path


class _Trainer:
    """One run: module, optimiser and progress."""

    def __init__(self, recipe: Recipe, source: PairSource, run: RunFolder, device: torch.device, ranks: Ranks) -> None:
        self.recipe, self.source, self.run, self.ranks = recipe, source, run, ranks
        self.report: Callable[[Event], None] = lambda event: None
        self.log: TensorBoardLog | None = None
        self.card = new_card(recipe.name, recipe.kind, recipe.model, recipe.published,
                             origin=f"trained by recipe '{recipe.name}'")
        torch.manual_seed(recipe.seed)
        self.module = share_norms(fresh_module(recipe, self.card), ranks).to(device)
        self.optimiser = make_optimiser(self.module, recipe)
        self.progress = run.restore(self.module, self.optimiser) or Progress()
        self.gradients = StepGradients(Objective(self.module, self.card, recipe, device, ranks),
                                       recipe.optimiser.accumulate)
        self.validation = Objective(self.module, self.card, recipe, device)
        self.steps = source.stars("train") // recipe.data.batch_size
        self.share = share_of(recipe.data.batch_size, ranks)
        _check_source(source, self.card, recipe, self.steps)
        compile_parts(self.module, recipe.optimiser.compile, device)

    def fit(self, stop_after: int | None) -> None:
        """Run epochs until the recipe, patience or `stop_after` stops."""
        settings, progress = self.recipe.optimiser, self.progress
        while progress.epoch < settings.epochs and not self._out_of_patience():
            if stop_after is not None and progress.epoch >= stop_after:
                return
            started = time.perf_counter()
            self._seed()
            metrics = self._train_epoch()
            progress.epoch += 1
            if self.ranks.first:
                metrics |= validate(self.validation, self.source)
                metrics |= {"epoch": progress.epoch, "seconds": round(time.perf_counter() - started, 2)}
                self._keep(metrics)
                self._tell(metrics)
            progress.best_loss, best_epoch = self.ranks.from_first(progress.best_loss, progress.best_epoch)
            progress.best_epoch = int(best_epoch)
        if self.ranks.first:
            self.run.finish(progress)

    def _seed(self) -> None:
        """Seed dropout and masks from seed, epoch and process only."""
        entropy = [self.recipe.seed, self.progress.epoch] + ([self.ranks.rank] if self.ranks.rank else [])
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))

    def _out_of_patience(self) -> bool:
        patience = self.recipe.optimiser.patience
        return bool(patience) and self.progress.epoch - self.progress.best_epoch >= patience

    def _keep(self, metrics: dict[str, float]) -> None:
        progress, loss = self.progress, metrics["validation_total"]
        progress.history.append(metrics)
        if loss < progress.best_loss - self.recipe.optimiser.min_delta:
            progress.best_loss, progress.best_epoch = loss, progress.epoch
            self.run.save_best(self.card, self.module, progress)
        self.run.save_state(self.module, self.optimiser, progress)

    def _tell(self, metrics: dict[str, float]) -> None:
        epoch, epochs = self.progress.epoch, self.recipe.optimiser.epochs
        if self.log:
            self.log.epoch(self.progress.step, metrics)
        self.report(Event(epoch, epochs, self.steps, self.steps, metrics["train_total"], metrics))

    def _train_epoch(self) -> dict[str, float]:
        recipe, progress = self.recipe, self.progress
        self.module.train()
        sums: dict[str, float] = {}
        shared: dict[str, Any] = {"share": self.share} if self.share else {}  # other sources need not support it
        batches = read_ahead(self.source.batches("train", recipe.data.batch_size, recipe.seed, progress.epoch,
                                                 recipe.augment, **shared))
        with closing(batches):
            for number, batch in enumerate(batches, start=1):
                rate = self._set_rate()
                values = self._step(self.gradients.objective.on_device(batch), number)
                for name, value in values.items():
                    sums[name] = sums.get(name, 0.0) + value
                if self.log:
                    self.log.step(progress.step, values["total"], rate)
                self.report(Event(progress.epoch + 1, recipe.optimiser.epochs, number, self.steps, values["total"]))
        return {f"train_{name}": value / self.steps for name, value in sums.items()} | {"rate": rate}

    def _step(self, batch: DeviceBatch, number: int) -> dict[str, float]:
        self.optimiser.zero_grad()
        values = self.gradients.fill(batch)
        if not math.isfinite(values["total"]):
            raise CheckpointError(
                f"The loss became {values['total']} in epoch {self.progress.epoch + 1}, step {number}.",
                "Lower [optimiser] rate, or look for non-finite spectra; the last epoch is saved.")
        nn.utils.clip_grad_norm_(self.module.parameters(), self.recipe.optimiser.clip_norm)
        self.optimiser.step()
        self.progress.step += 1
        return values

    def _set_rate(self) -> float:
        settings = self.recipe.optimiser
        total = settings.total_steps or self.steps * settings.epochs
        rate = rate_at(self.progress.step, total, settings.warmup_steps, settings.rate, settings.final_fraction)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        return rate


def _source(data: Atlas | PairSource, run: RunFolder, recipe: Recipe) -> PairSource:
    if hasattr(data, "batches"):
        return data  # type: ignore[return-value]
    from .atlas_pairs import atlas_source

    return atlas_source(data, run.path / "pairs", recipe.kind, recipe.data)  # type: ignore[arg-type]


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
