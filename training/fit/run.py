"""The folder of a training run: recipe, state, best weights, metrics.

The state needed to resume a run is written atomically after every epoch, without pickles.
"""

from __future__ import annotations

import json
import platform
import shutil
import tomllib
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from specclip_search.atlas.files import TEMPORARY_PREFIX, write_json, write_text, writer_lock
from specclip_search.errors import CheckpointError
from specclip_search.version import __version__

from ..checkpoints.folder import METRICS, ModelCard, fill_module, load_tensors, save_model, save_tensors, whole_folder
from .recipe import Recipe

STATES = "state"


@dataclass
class Progress:
    """Progress of a run after an epoch."""

    epoch: int = 0
    """Epochs done."""
    step: int = 0
    """Optimiser steps done."""
    best_loss: float = float("inf")
    """Lowest validation loss so far."""
    best_epoch: int = 0
    """Epoch in which it was reached, counted from 1."""
    history: list[dict[str, float]] = field(default_factory=list)
    """Metrics of each epoch."""


def save_state(run: Path, module: nn.Module, optimiser: Optimizer, progress: Progress) -> None:
    """Save the state of the run; the previous one is removed after the new one is synced to disk."""
    target = run / STATES / f"epoch-{progress.epoch:06d}"
    with whole_folder(target) as folder:
        save_tensors(folder / "weights.safetensors", module.state_dict())
        save_tensors(folder / "optimiser.safetensors", _optimiser_tensors(optimiser))
        (folder / "progress.json").write_text(json.dumps(asdict(progress), indent=1), encoding="utf-8")
    for other in (run / STATES).iterdir():
        if other != target:
            shutil.rmtree(other, ignore_errors=True)


def latest_state(run: Path) -> Path | None:
    """Folder of the newest complete state, or None."""
    folder = run / STATES
    states = sorted(folder.glob("epoch-*")) if folder.is_dir() else []
    return states[-1] if states else None


def load_state(state: Path, module: nn.Module, optimiser: Optimizer) -> Progress:
    """Restore a run exactly to the state saved by `save_state`.

    Raises
    ------
    CheckpointError
        If the state is damaged or belongs to another architecture.
    """
    try:
        progress = Progress(**json.loads((state / "progress.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{state} is not a readable training state ({error}).",
                              "Remove the run folder and train again.") from error
    # copied, not assigned, because the optimiser refers to the existing parameters
    fill_module(module, load_tensors(state / "weights.safetensors"), str(state), assign=False)
    _load_optimiser(optimiser, load_tensors(state / "optimiser.safetensors"))
    return progress


def clear_leftovers(run: Path) -> None:
    """Remove incomplete files of an interrupted run. Call only while holding the run's lock."""
    for folder in (run, run / STATES):
        for leftover in folder.glob(f"{TEMPORARY_PREFIX}*") if folder.is_dir() else ():
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def _optimiser_tensors(optimiser: Optimizer) -> dict[str, torch.Tensor]:
    state = optimiser.state_dict()["state"]
    return {f"{index}.{name}": torch.as_tensor(value)
            for index, entry in state.items() for name, value in entry.items()}


def _load_optimiser(optimiser: Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value.clone()
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


Resume = Literal["auto"] | bool
RECIPE = "run.toml"


class RunFolder:
    """Folder with the settings and state of a run.

    `run.toml` holds the recipe, the digest of the data and the versions; `state/` the newest complete
    state; `model.toml`, `weights.safetensors` and `metrics.json` the best model so far.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record: dict[str, Any] = {}

    def lock(self) -> AbstractContextManager[None]:
        """Writer lock of this run."""
        return writer_lock(self.path)

    def open(self, recipe: Recipe, digest: str, resume: Resume) -> None:
        """Start a run, or check that the existing one matches the request.

        Raises
        ------
        CheckpointError
            If a run exists but must not, is missing, or has another recipe or other data.
        """
        clear_leftovers(self.path)
        path, begun = self.path / RECIPE, latest_state(self.path) is not None
        if resume is True and not path.is_file():
            raise CheckpointError(f"There is no run to resume in {self.path}.", "Leave out --resume to start one.")
        if resume is False and begun:
            raise CheckpointError(f"{self.path} already holds a training run.",
                                  "Resume it with --resume, or name another output folder.")
        self.record = {"recipe": recipe.to_dict(), "data_digest": digest,
                       "versions": {"specclip_search": __version__, "torch": torch.__version__,
                                    "python": platform.python_version()}}
        if not begun:  # nothing was saved yet, so the run may be restarted with other settings
            import tomli_w

            write_text(path, tomli_w.dumps(self.record))
            return
        self._check_same(tomllib.loads(path.read_text(encoding="utf-8")))

    def _check_same(self, found: dict[str, Any]) -> None:
        # a setting newer than the run had its default value
        begun = _flat(Recipe("", "mini").to_dict()) | _flat(found.get("recipe", {}))
        changed = [name for name, value in _flat(self.record["recipe"]).items() if begun.get(name) != value]
        if changed:
            raise CheckpointError(f"The run in {self.path} was started with another recipe: "
                                  f"{', '.join(changed[:4])} differ{'s' if len(changed) == 1 else ''}.",
                                  "Use the recipe it was started with (its run.toml), or another output folder.")
        if found.get("data_digest") != self.record["data_digest"]:
            raise CheckpointError(f"The run in {self.path} was started with other data.",
                                  "Use the same spectra, or another output folder.")

    def restore(self, module: nn.Module, optimiser: Optimizer) -> Progress | None:
        """Restore module and optimiser to the saved state; None for a new run."""
        state = latest_state(self.path)
        return load_state(state, module, optimiser) if state else None

    def save_state(self, module: nn.Module, optimiser: Optimizer, progress: Progress) -> None:
        """Save everything needed to resume."""
        save_state(self.path, module, optimiser, progress)

    def save_best(self, card: ModelCard, module: nn.Module, progress: Progress) -> None:
        """Save the current weights as the model of the run."""
        save_model(self.path, card, module.state_dict(), self._metrics(progress))

    def finish(self, progress: Progress) -> None:
        """Write the metrics of all epochs."""
        write_json(self.path / METRICS, self._metrics(progress))

    def _metrics(self, progress: Progress) -> dict[str, Any]:
        content = asdict(progress)
        return {"training": {"best_epoch": content["best_epoch"], "best_validation_loss": content["best_loss"],
                             "epochs": content["epoch"], "history": content["history"], **self.record}}


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested tables, with names joined by dots; tuples become lists as in TOML."""
    result: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, dict):
            result |= _flat(value, f"{prefix}{name}.")
        else:
            result[prefix + name] = list(value) if isinstance(value, tuple) else value
    return result
