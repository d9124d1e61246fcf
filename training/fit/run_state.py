"""What a run needs to go on after it was stopped: kept whole after every epoch, without pickles."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from specclip_search.atlas.files import TEMPORARY_PREFIX
from specclip_search.errors import CheckpointError

from ..checkpoints.folders import fill_module, load_tensors, save_tensors, whole_folder

STATES = "state"


@dataclass
class Progress:
    """Where a run stands after an epoch."""

    epoch: int = 0
    """Epochs done."""
    step: int = 0
    """Optimiser steps done."""
    best_loss: float = float("inf")
    """Lowest validation loss so far."""
    best_epoch: int = 0
    """Epoch it was reached in, counted from 1."""
    history: list[dict[str, float]] = field(default_factory=list)
    """Metrics of each epoch."""


def save_state(run: Path, module: nn.Module, optimiser: Optimizer, progress: Progress) -> None:
    """Keep the run as it stands; the state before is removed after the new one is durable."""
    target = run / STATES / f"epoch-{progress.epoch:06d}"
    with whole_folder(target) as folder:
        save_tensors(folder / "weights.safetensors", module.state_dict())
        save_tensors(folder / "optimiser.safetensors", _optimiser_tensors(optimiser))
        (folder / "progress.json").write_text(json.dumps(asdict(progress), indent=1), encoding="utf-8")
    for other in (run / STATES).iterdir():
        if other != target:
            shutil.rmtree(other, ignore_errors=True)


def latest_state(run: Path) -> Path | None:
    """Folder of the newest whole state, or None."""
    folder = run / STATES
    states = sorted(folder.glob("epoch-*")) if folder.is_dir() else []
    return states[-1] if states else None


def load_state(state: Path, module: nn.Module, optimiser: Optimizer) -> Progress:
    """Put a run back to where `save_state` left it, bit for bit.

    Raises
    ------
    CheckpointError
        If the state is damaged or belongs to another architecture.
    """
    try:
        progress = Progress(**json.loads((state / "progress.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{state} is not a readable training state ({error}).",
                              "Remove the run folder and train anew.") from error
    # copied, not assigned: the optimiser holds on to the parameters that stand
    fill_module(module, load_tensors(state / "weights.safetensors"), str(state), assign=False)
    _load_optimiser(optimiser, load_tensors(state / "optimiser.safetensors"))
    return progress


def clear_leftovers(run: Path) -> None:
    """Remove what a killed run was writing. Call only while holding the run's lock."""
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
