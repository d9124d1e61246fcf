"""Set-up of a run: module, pretrained backbones, optimiser and learning-rate schedule."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import nn

from specclip_search.errors import CheckpointError
from specclip_search.surveys import LRS, XP

from ..checkpoints.folder import ModelCard, build_module, key_differences, load_module
from ..networks.aligned import AlignedModel
from ..networks.heads import Encoder
from ..networks.published import ALIGNED
from ..networks.transformer import MaskedTransformer
from .recipe import Recipe


def fresh_module(recipe: Recipe, card: ModelCard) -> nn.Module:
    """The recipe's architecture with random weights, and pretrained backbones if it names them.

    Raises
    ------
    CheckpointError
        If the kind supports no backbones, needs missing ones, or those named are of another encoder.
    """
    module, settings = build_module(card), recipe.backbones
    folders = {name: getattr(settings, name) for name in (XP, LRS)}
    if recipe.kind not in ALIGNED:
        if any(folders.values()):
            raise CheckpointError(f"Kind '{recipe.kind}' takes no pretrained backbones.", "Remove [backbones].")
        return module
    for name, folder in folders.items():
        encoder: Encoder = getattr(module, f"{name}_encoder")
        if folder:
            _load_backbone(encoder, name, Path(folder), recipe.kind)
        elif settings.frozen:
            raise CheckpointError(
                f"Kind '{recipe.kind}' keeps its backbones frozen, and the recipe names no pretrained one for {name}.",
                f"Train or import an encoder and name its folder as [backbones] {name}, or set frozen = false there.")
        encoder.freeze(settings.frozen)
    return module


def make_optimiser(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW; biases and norms decay only if the recipe says so."""
    settings = recipe.optimiser
    trained = [p for p in module.parameters() if p.requires_grad]
    decayed = [p for p in trained if p.ndim > 1 or settings.decay_vectors]
    spared = [p for p in trained if p.ndim <= 1 and not settings.decay_vectors]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=settings.rate,
                             betas=(settings.beta1, settings.beta2), fused=True)


def compile_parts(module: nn.Module, choice: str, device: torch.device) -> bool:
    """Compile the expensive modules with torch, in place; keys of the weights do not change.

    Parameters
    ----------
    choice
        `on`, `off` or `auto` (on a GPU).

    Returns
    -------
    bool
        Whether modules were compiled.
    """
    if choice == "off" or (choice == "auto" and device.type != "cuda"):
        return False
    parts = [module]
    if isinstance(module, AlignedModel):
        parts = list(module.children())
    elif isinstance(module, MaskedTransformer):
        parts = list(module.blocks)
    for part in parts:
        part.compile()
    return True


def _load_backbone(encoder: Encoder, name: str, folder: Path, kind: str) -> None:
    loaded, pretrained = load_module(folder)
    wanted = {key: tuple(v.shape) for key, v in encoder.backbone.state_dict().items()}
    problems = key_differences(wanted, {key: tuple(v.shape) for key, v in pretrained.state_dict().items()})
    if problems:
        raise CheckpointError(f"{folder} (kind '{loaded.kind}') is no {name} backbone of kind '{kind}': {problems}.",
                              "Name the folder of the right encoder.")
    encoder.backbone.load_state_dict(pretrained.state_dict())


def rate_at(step: int, total: int, warmup: int, highest: float, final_fraction: float) -> float:
    """Learning rate: linear warm-up over `warmup` steps, then a cosine to `final_fraction` of the highest rate.

    Parameters
    ----------
    step
        0 for the first step.
    total
        Steps of the whole run; later steps use the last rate.
    """
    warmup = min(warmup, max(1, total // 2))
    if step < warmup:
        return highest * (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, total - warmup))
    lowest = highest * final_fraction
    return lowest + (highest - lowest) * 0.5 * (1.0 + math.cos(math.pi * done))
