"""Validation of a model during training: losses and retrieval on validation stars."""

from __future__ import annotations

import numpy as np
import torch

from specclip_search.surveys import LRS, XP

from ..networks.aligned import AlignedModel
from .objective import Objective
from .pairs import PairSource


def pair_retrieval(a: np.ndarray, b: np.ndarray, centre: bool = True) -> dict[str, float]:
    """Retrieval of each vector's partner among all vectors of the other instrument.

    Parameters
    ----------
    a, b
        (N, D) vectors; row i of both is the same star.
    centre
        Whether each instrument's mean is subtracted first: contrastive training leaves a
        constant offset between instruments.

    Returns
    -------
    dict
        `r1_a`, `r10_a` (from `a` into `b`), `r1_b`, `r10_b`, in 0 to 1; `pair_cosine`, the mean
        cosine of partners; `candidates`, N. A tie counts against the partner.
    """
    if centre:
        a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    a = a / np.maximum(np.linalg.norm(a, axis=1, keepdims=True), 1e-12)
    b = b / np.maximum(np.linalg.norm(b, axis=1, keepdims=True), 1e-12)
    own = np.einsum("ij,ij->i", a, b)
    result = {"pair_cosine": float(own.mean()), "candidates": float(len(a))}
    for name, left, right in (("a", a, b), ("b", b, a)):
        rank = np.concatenate([_ranks(left[i : i + 512], right, i) for i in range(0, len(a), 512)])
        result |= {f"r1_{name}": float((rank < 1).mean()), f"r10_{name}": float((rank < 10).mean())}
    return result


def _ranks(left: np.ndarray, right: np.ndarray, first: int) -> np.ndarray:
    """Number of vectors in `right` at least as near as the partner, the partner not counted."""
    cosines = left @ right.T
    row = np.arange(len(left))
    return (cosines >= cosines[row, first + row][:, None]).sum(axis=1) - 1


_NAMES = {"r1_a": "r1_xp_to_lrs", "r10_a": "r10_xp_to_lrs", "r1_b": "r1_lrs_to_xp", "r10_b": "r10_lrs_to_xp"}


@torch.no_grad()
def validate(objective: Objective, source: PairSource) -> dict[str, float]:
    """Every loss term over the validation stars, as `validation_...`, and retrieval of pairs."""
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
