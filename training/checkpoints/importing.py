"""Convert a published checkpoint to a model folder without executing its pickle.

The architecture is recognised from the keys and shapes of the tensors, never from the file name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from specclip_search.atlas.files import file_digest
from specclip_search.errors import CheckpointError

from ..networks.label_head import LabelHead
from ..networks.losses import PUBLISHED_TEMPERATURE
from ..networks.published import build
from .folder import LABEL_HEAD, ModelCard, key_differences, new_card, save_model
from .torch_file import Stub, TorchFile, tensor_table

Shape = tuple[int, ...]
# two unused modules of an older version of the XP transformer; the only extra keys allowed
LEGACY: dict[str, Shape] = {"conv1d.weight": (18, 1, 5), "conv1d.bias": (18,), "conv_head.weight": (20, 768),
                            "conv_head.bias": (20,)}
_LEGACY_PREFIX = {"xp_mt": "", "base_xpmt": "gaia_xp_encoder.backbone."}


def recognise(shapes: Mapping[str, Shape]) -> str | None:
    """Kind of model indicated by these keys, or None."""
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
    """The kind that matches these keys and shapes exactly, and legacy keys to drop.

    Raises
    ------
    CheckpointError
        If no kind matches; missing keys, unexpected keys and wrong shapes are listed.
    """
    kind = recognise(shapes)
    if kind is None:
        raise CheckpointError(
            f"{where} contains none of the known models; its first keys are {', '.join(list(shapes)[:4])}.",
            "Import encoders, aligned models (base, pr, split) or label heads of the published SpecCLIP.")
    prefix = _LEGACY_PREFIX.get(kind)
    dropped = [] if prefix is None else [f"{prefix}{key}" for key, shape in LEGACY.items()
                                         if shapes.get(f"{prefix}{key}") == shape]
    problems = key_differences(expected_shapes(kind), {k: v for k, v in shapes.items() if k not in dropped})
    if problems:
        raise CheckpointError(f"{where} looks like a '{kind}' model but does not fit it: {problems}.",
                              "The file is of another version, or truncated; download it again.")
    return kind, dropped


_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class ImportReport:
    """Report of `import_checkpoint`."""

    source: str
    """Name of the file."""
    source_digest: str
    """SHA-256 of the file."""
    output: str
    """Model folder written."""
    kind: str
    """Recognised kind."""
    dim: int
    """Length of the indexed vector; 1 for a label head."""
    parameters: int
    """Number of parameters, without buffers."""
    entries: int
    """Number of tensors written, including buffers."""
    dropped: list[str]
    """Unused tensors of an older version that were dropped."""
    stubbed: list[str]
    """Unknown classes referenced by the file; they were neither imported nor run."""
    temperature: float
    """Factor of the cosines in the contrastive loss."""
    epoch: int | None
    """Epoch stored in the checkpoint."""
    digest: str
    """SHA-256 of the weights written."""


def import_checkpoint(path: str | Path, output: str | Path, name: str | None = None) -> ImportReport:
    """Convert a published checkpoint (`.ckpt`, `.pt`) to a model folder.

    The pickle inside is read by `RestrictedUnpickler`: nothing that it refers to is imported or run.
    Only tensors of the model are read; optimiser states, usually twice as large, are not.

    Parameters
    ----------
    path
        File in torch's zip format.
    output
        Model folder to write; must not contain a model yet.
    name
        Name of the model; the folder's name if not given.

    Raises
    ------
    CheckpointError
        If the file is damaged, tries to run code, or contains no known model, or `output` exists.
    """
    path, output = Path(path), Path(output)
    if (output / "model.toml").exists():
        raise CheckpointError(f"{output} already contains a model.", "Give another folder, or remove this one.")
    found = read_published(path)
    content, state = found.content, found.state
    temperature = _temperature(content)
    metrics = {"imported": {"file": path.name, "digest": found.digest, "epoch": _whole(content, "epoch"),
                            "global_step": _whole(content, "global_step")}}
    card = save_model(output, _card(name or output.name, found.kind, path.name, temperature), state, metrics)
    return ImportReport(
        path.name, found.digest, str(output), found.kind, card.dim,
        sum(v.numel() for key, v in state.items() if not key.endswith(_BUFFERS)), len(state), found.dropped,
        found.stubbed, temperature, _whole(content, "epoch"), card.digest)


@dataclass(frozen=True)
class Published:
    """A published checkpoint, read but not run: its tensors, the rest as plain values and stubs."""

    kind: str
    state: dict[str, Tensor]
    content: Any
    dropped: list[str]
    stubbed: list[str]
    digest: str


def read_published(path: Path) -> Published:
    """Read a published checkpoint; errors as `import_checkpoint`."""
    file = TorchFile(path)
    table = tensor_table(file.content)
    if table is None:
        raise CheckpointError(f"{path.name} contains no table of tensors (state_dict).", "Give a model checkpoint.")
    kind, dropped = match({key: ref.shape for key, ref in table.items()}, path.name)
    state = {key: file.tensor(ref) for key, ref in table.items() if key not in dropped}
    _check_numbers(state, path.name)
    return Published(kind, state, file.content, dropped, file.stubbed, file_digest(path))


def report_rows(report: ImportReport) -> dict[str, Any]:
    """The report as plain values."""
    return asdict(report)


def _card(name: str, kind: str, source: str, temperature: float) -> ModelCard:
    origin = f"imported from {source}"
    if kind == LABEL_HEAD:
        return ModelCard(name=name, kind=kind, dim=1, modalities=(), origin=origin)
    return new_card(name, kind, origin=origin, temperature=temperature)


def _check_numbers(state: Mapping[str, Tensor], where: str) -> None:
    for key, value in state.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise CheckpointError(f"{where}: '{key}' contains non-finite numbers.",
                                  "The file is damaged or its training failed; download it again.")


def _temperature(content: Any) -> float:
    """Hyper-parameter `temperature`; 15.5 if not in the file."""
    settings = content.get("hyper_parameters") if isinstance(content, Mapping) else None
    settings = settings.kept if isinstance(settings, Stub) else settings
    value = settings.get("temperature") if isinstance(settings, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        return PUBLISHED_TEMPERATURE
    return float(value)


def _whole(content: Any, name: str) -> int | None:
    value = content.get(name) if isinstance(content, Mapping) else None
    return value if type(value) is int else None
