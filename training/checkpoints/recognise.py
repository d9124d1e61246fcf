"""Which published architecture a table of tensors belongs to: by its keys, never by the file's name."""

from __future__ import annotations

from collections.abc import Mapping

from specclip_search.errors import CheckpointError

from ..networks.label_head import LabelHead
from ..networks.published import build
from .folder import LABEL_HEAD
from .folders import key_differences

Shape = tuple[int, ...]
# two unused modules of an older version of the XP transformer; the only surplus keys allowed
LEGACY: dict[str, Shape] = {"conv1d.weight": (18, 1, 5), "conv1d.bias": (18,), "conv_head.weight": (20, 768),
                            "conv_head.bias": (20,)}
_LEGACY_PREFIX = {"xp_mt": "", "base_xpmt": "gaia_xp_encoder.backbone."}


def recognise(shapes: Mapping[str, Shape]) -> str | None:
    """Kind of model that these keys point to, or None."""
    if "network.0.weight" in shapes:
        return LABEL_HEAD
    if "gaia_xp_encoder.shared_projection.weight" in shapes:
        return "split"
    decodes = any(key.startswith("gaia_xp_decoder.") for key in shapes)
    if "gaia_xp_encoder.projection.weight" in shapes:
        return "pr" if decodes else "base"
    if "gaia_xp_encoder.cross_attention.query" in shapes and not decodes:
        return "base_xpmt"
    if "bottleneck_down.weight" in shapes:
        return "xp_oae"
    features = shapes.get("data_embed.weight", (0, 0))[-1]
    return {21: "lrs_mt", 3: "xp_mt"}.get(features)


def expected_shapes(kind: str) -> dict[str, Shape]:
    """Every key of a kind's state with its shape."""
    import torch

    if kind == LABEL_HEAD:
        with torch.device("meta"):
            return {key: tuple(v.shape) for key, v in LabelHead().state_dict().items()}
    return {key: tuple(v.shape) for key, v in build(kind, "meta").state_dict().items()}


def match(shapes: Mapping[str, Shape], where: str) -> tuple[str, list[str]]:
    """The kind whose keys and shapes these are exactly, and legacy keys to drop.

    Raises
    ------
    CheckpointError
        If no kind fits; missing, surplus and misshapen keys are named.
    """
    kind = recognise(shapes)
    if kind is None:
        raise CheckpointError(
            f"{where} holds none of the known models; its first keys are {', '.join(list(shapes)[:4])}.",
            "Import encoders, aligned models (base, pr, split) or label heads of the published SpecCLIP.")
    prefix = _LEGACY_PREFIX.get(kind)
    dropped = [] if prefix is None else [f"{prefix}{key}" for key, shape in LEGACY.items()
                                         if shapes.get(f"{prefix}{key}") == shape]
    problems = key_differences(expected_shapes(kind), {k: v for k, v in shapes.items() if k not in dropped})
    if problems:
        raise CheckpointError(f"{where} looks like a '{kind}' model but does not fit it: {problems}.",
                              "The file is of another version, or was cut short; get it again.")
    return kind, dropped
