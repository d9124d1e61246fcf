"""The folder of a training run: recipe, state, best weights, metrics."""

from __future__ import annotations

import platform
import tomllib
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from specclip_search.atlas.files import write_json, write_text
from specclip_search.atlas.lock import writer_lock
from specclip_search.errors import CheckpointError
from specclip_search.version import __version__

from ..checkpoints.folder import METRICS, ModelCard, save_model
from .recipe import Recipe
from .run_state import Progress, clear_leftovers, latest_state, load_state, save_state

Resume = Literal["auto"] | bool
RECIPE = "run.toml"


class RunFolder:
    """Where a run keeps what it was asked for and how far it came.

    `run.toml` holds the recipe, the digest of the data and the versions; `state/` the newest whole
    state; `model.toml`, `weights.safetensors` and `metrics.json` the best model so far.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record: dict[str, Any] = {}

    def lock(self) -> AbstractContextManager[None]:
        """The right to write this run."""
        return writer_lock(self.path)

    def open(self, recipe: Recipe, digest: str, resume: Resume) -> None:
        """Begin a run, or check that the one standing here is the one asked for.

        Raises
        ------
        CheckpointError
            If a run stands and must not, or is missing, or has another recipe or other data.
        """
        clear_leftovers(self.path)
        path, begun = self.path / RECIPE, latest_state(self.path) is not None
        if resume is True and not path.is_file():
            raise CheckpointError(f"There is no run to resume in {self.path}.", "Leave out --resume to begin one.")
        if resume is False and begun:
            raise CheckpointError(f"{self.path} already holds a training run.",
                                  "Resume it with --resume, or name another output folder.")
        self.record = {"recipe": recipe.to_dict(), "data_digest": digest,
                       "versions": {"specclip_search": __version__, "torch": torch.__version__,
                                    "python": platform.python_version()}}
        if not begun:  # nothing would be lost: a run that failed at once may begin otherwise
            import tomli_w

            write_text(path, tomli_w.dumps(self.record))
            return
        self._check_same(tomllib.loads(path.read_text(encoding="utf-8")))

    def _check_same(self, found: dict[str, Any]) -> None:
        # a setting that is younger than the run stood at its default
        begun = _flat(Recipe("", "mini").to_dict()) | _flat(found.get("recipe", {}))
        changed = [name for name, value in _flat(self.record["recipe"]).items() if begun.get(name) != value]
        if changed:
            raise CheckpointError(f"The run in {self.path} was begun with another recipe: "
                                  f"{', '.join(changed[:4])} differ{'s' if len(changed) == 1 else ''}.",
                                  "Use the recipe it was begun with (its run.toml), or another output folder.")
        if found.get("data_digest") != self.record["data_digest"]:
            raise CheckpointError(f"The run in {self.path} was begun with other data.",
                                  "Use the same spectra, or another output folder.")

    def restore(self, module: nn.Module, optimiser: Optimizer) -> Progress | None:
        """Put module and optimiser where the run stands; None for a fresh run."""
        state = latest_state(self.path)
        return load_state(state, module, optimiser) if state else None

    def save_state(self, module: nn.Module, optimiser: Optimizer, progress: Progress) -> None:
        """Keep everything needed to go on."""
        save_state(self.path, module, optimiser, progress)

    def save_best(self, card: ModelCard, module: nn.Module, progress: Progress) -> None:
        """Make the present weights the run's model."""
        save_model(self.path, card, module.state_dict(), self._metrics(progress))

    def finish(self, progress: Progress) -> None:
        """Write the metrics of all epochs."""
        write_json(self.path / METRICS, self._metrics(progress))

    def _metrics(self, progress: Progress) -> dict[str, Any]:
        content = asdict(progress)
        return {"training": {"best_epoch": content["best_epoch"], "best_validation_loss": content["best_loss"],
                             "epochs": content["epoch"], "history": content["history"], **self.record}}


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, names joined by points; tuples as lists, as TOML reads them."""
    result: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, dict):
            result |= _flat(value, f"{prefix}{name}.")
        else:
            result[prefix + name] = list(value) if isinstance(value, tuple) else value
    return result
