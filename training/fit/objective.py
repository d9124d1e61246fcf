"""Training objective: the weighted loss terms of a recipe for a batch."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from specclip_search.surveys import LRS, XP

from ..checkpoints.folder import ModelCard
from ..networks.aligned import AlignedModel
from ..networks.losses import error_weights
from .distributed import Ranks
from .pairs import Batch
from .recipe import Recipe

Encoded = dict[str, dict[str, Tensor]]


@dataclass
class DeviceBatch:
    """A `Batch` on the training device; `weights` are None if pixels are weighted equally."""

    inputs: dict[str, Tensor]
    targets: dict[str, Tensor]
    weights: dict[str, Tensor] | None
    labels: dict[str, Tensor] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Number of stars with spectra of every instrument."""
        return min(len(x) for x in self.inputs.values())

    def piece(self, modality: str, number: int, parts: int) -> slice:
        """Rows of an instrument's spectra in one of `parts` pieces of the batch; the last may be smaller or empty."""
        total = len(self.inputs[modality])
        size = -(-total // parts)
        return slice(number * size, min((number + 1) * size, total))


class Objective:
    """Loss terms of a module under a recipe.

    Parameters
    ----------
    ranks
        Processes that share a batch; terms are then partial values whose sum over processes is the
        term of the whole batch.
    """

    def __init__(self, module: nn.Module, card: ModelCard, recipe: Recipe, device: torch.device,
                 ranks: Ranks | None = None) -> None:
        self.module, self.card, self.recipe, self.device = module, card, recipe, device
        self.ranks = ranks or Ranks()

    def autocast(self) -> AbstractContextManager[None]:
        """Autocast context with the precision of the recipe."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.optimiser.precision == "bf16")

    def on_device(self, batch: Batch) -> DeviceBatch:
        """Move a batch to the device."""
        settings, weights = self.recipe.loss, None
        if settings.error_weighted:
            errors = self._tensors(batch.errors)
            weights = {name: error_weights(error, settings.error_floor) for name, error in errors.items()}
        return DeviceBatch(self._tensors(batch.inputs), self._tensors(batch.targets), weights,
                           self._tensors(batch.labels))

    def terms(self, batch: DeviceBatch) -> dict[str, Tensor]:
        """Every term and their weighted sum `total`, with gradients."""
        with self.autocast():
            if isinstance(self.module, AlignedModel):
                return self.aligned_terms(self.encode(batch), batch)
            losses = self.module.losses(batch.inputs[self.card.modalities[0]])  # type: ignore[operator]
        return {name: term / self.ranks.world for name, term in losses.items()}

    def encode(self, batch: DeviceBatch, number: int = 0, parts: int = 1) -> Encoded:
        """Vectors of a piece of a batch; call under `autocast`."""
        assert isinstance(self.module, AlignedModel)
        return {name: self.module.encode(name, batch.inputs[name][batch.piece(name, number, parts)])
                for name in (XP, LRS)}

    def aligned_terms(self, encoded: Encoded, batch: DeviceBatch) -> dict[str, Tensor]:
        """Terms of an aligned model from its vectors; call under `autocast`."""
        assert isinstance(self.module, AlignedModel)
        terms = self.module.losses_of(encoded, batch.inputs[XP], batch.inputs[LRS], batch.weights, batch.targets,
                                      self.ranks.gather, batch.labels if self.recipe.loss.label else None)
        settings = self.recipe.loss
        factor = {"clip": settings.contrast, "recon": settings.reconstruct, "pred": settings.predict,
                  "label": settings.label}
        if self.ranks.world > 1:
            terms = {name: term * self._share(name, batch) for name, term in terms.items()}
        parts = [factor[name.split("_")[0]] * term for name, term in terms.items() if name != "total"]
        return terms | {"total": torch.stack(parts).sum()}

    def _share(self, term: str, batch: DeviceBatch) -> float | Tensor:
        """This process's part in a mean over the whole batch: pixels are weighted, unknown labels ignored."""
        kind, modality = term.split("_")[0], XP if term.endswith("xp") else LRS
        if kind == "label":
            weight = torch.isfinite(batch.labels[modality]).sum().float()
        elif batch.weights is None or kind not in ("recon", "pred"):
            return 1.0 / self.ranks.world
        else:
            weight = batch.weights[modality][: batch.rows if kind == "pred" else None].sum()
        return weight / self.ranks.total(weight).clamp_min(torch.finfo(weight.dtype).tiny)

    def _tensors(self, arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
        return {name: torch.from_numpy(array).to(self.device) for name, array in arrays.items()}
