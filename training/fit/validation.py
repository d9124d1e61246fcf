"""How a model under training does on the stars kept for it."""

from __future__ import annotations

import numpy as np
import torch

from ..networks.aligned import LRS, XP, AlignedModel
from .objective import Objective
from .pairs import PairSource
from .retrieval import pair_retrieval

_NAMES = {"r1_a": "r1_xp_to_lrs", "r10_a": "r10_xp_to_lrs", "r1_b": "r1_lrs_to_xp", "r10_b": "r10_lrs_to_xp"}


@torch.no_grad()
def validate(objective: Objective, source: PairSource) -> dict[str, float]:
    """Every loss term over the validation stars, as `validation_...`, and how well pairs find each other."""
    recipe, module = objective.recipe, objective.module
    module.eval()
    sums: dict[str, float] = {}
    vectors: dict[str, list[np.ndarray]] = {XP: [], LRS: []}
    rows = 0
    for batch in source.batches("validation", recipe.data.batch_size, recipe.seed, 0,
                                limit=recipe.data.validation_pairs):
        tensors = objective.on_device(batch)
        rows += tensors.rows
        for name, term in objective.terms(tensors).items():
            sums[name] = sums.get(name, 0.0) + tensors.rows * term.item()
        if isinstance(module, AlignedModel):
            for name, x in tensors.inputs.items():
                vectors[name].append(module.encode(name, x)["shared"].float().cpu().numpy())
    result = {f"validation_{name}": value / rows for name, value in sums.items()}
    if vectors[XP]:
        found = pair_retrieval(np.concatenate(vectors[XP]), np.concatenate(vectors[LRS]))
        result |= {_NAMES.get(name, name): value for name, value in found.items()}
    return result
