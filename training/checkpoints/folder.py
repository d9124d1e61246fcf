"""Model folders: `model.toml`, `weights.safetensors`, `metrics.json`.

Folders are written atomically.
"""

from __future__ import annotations

import json
import os
import shutil
import tomllib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from specclip_search.atlas.files import (
    beside,
    exchange_folders,
    file_digest,
    remove_abandoned,
    sync_folder,
    whole_file,
    write_json,
    write_text,
)
from specclip_search.atlas.integrity import check_folder
from specclip_search.errors import AtlasError, CheckpointError
from specclip_search.surveys import LRS, XP
from specclip_search.version import __version__

from ..networks.aligned import AlignedModel
from ..networks.label_head import LabelHead
from ..networks.mini import MiniModel, MiniSizes
from ..networks.published import KINDS, LRS_PIXELS, XP_PIXELS, PublishedSizes, build
from .settings import read_settings


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder next to `target`; on a clean exit it is synced and renamed to `target`.

    An existing `target` is replaced. If the body raises, nothing changes.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(target)
    temporary = beside(target)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with open(file, "rb+") as handle:
                    os.fsync(handle.fileno())
        sync_folder(temporary)
        if target.exists():
            exchange_folders(temporary, target)
        else:
            os.rename(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_folder(target.parent)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors as safetensors, atomically, without a second copy in memory.

    The format does not support shared storage, so each tensor is made contiguous.
    """
    from safetensors.torch import save_file

    with whole_file(path) as temporary:
        save_file({key: value.detach().contiguous() for key, value in tensors.items()}, temporary, metadata)
        os.chmod(temporary, 0o644)  # the writer makes it readable to its owner only


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, memory-mapped.

    Raises
    ------
    CheckpointError
        If the file is missing, truncated or not in this format.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file ({error}).",
                              "Copy the complete model folder again.") from error


def cast(state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """A state with its floating-point tensors in `dtype`; integers stay."""
    return {key: v.to(dtype) if v.is_floating_point() else v for key, v in state.items()}


def fill_module(module: nn.Module, state: Mapping[str, Tensor], where: str, assign: bool = True) -> None:
    """Load weights into a module strictly: no missing or unexpected keys, every shape as expected.

    Parameters
    ----------
    where
        Name of the state in messages.
    assign
        Whether the tensors themselves become the parameters; if False, their values are copied.

    Raises
    ------
    CheckpointError
        If keys or shapes do not match; the message lists them.
    """
    wanted = {key: tuple(v.shape) for key, v in module.state_dict().items()}
    found = {key: tuple(v.shape) for key, v in state.items()}
    problems = key_differences(wanted, found)
    if problems:
        raise CheckpointError(f"{where} does not fit its architecture: {problems}.",
                              "Use the weights that belong to this model.toml.")
    module.load_state_dict(dict(state), assign=assign)


def key_differences(wanted: Mapping[str, Any], found: Mapping[str, Any], most: int = 5) -> str:
    """Missing keys, unexpected keys and wrong shapes as text; empty if there are none."""
    missing = sorted(set(wanted) - set(found))
    surplus = sorted(set(found) - set(wanted))
    shapes = [f"{key} {found[key]} instead of {wanted[key]}" for key in wanted
              if key in found and found[key] != wanted[key]]
    parts = []
    for what, names in (("missing", missing), ("surplus", surplus), ("of another shape", shapes)):
        if names:
            more = f" and {len(names) - most} more" if len(names) > most else ""
            parts.append(f"{len(names)} {what} ({', '.join(names[:most])}{more})")
    return "; ".join(parts)


FORMAT_VERSION = 1
LABEL_HEAD = "mlp_head"
TOML, WEIGHTS, METRICS = "model.toml", "weights.safetensors", "metrics.json"
# files beside the weights that belong to their digest
BESIDE = ("estimators.safetensors", "estimators.json", "star_test.npz")
PIXELS = {LRS: LRS_PIXELS, XP: XP_PIXELS}
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class ModelCard:
    """Contents of `model.toml`."""

    name: str
    """Name of the model."""
    kind: str
    """`mini` or a published kind."""
    dim: int
    """Length of the indexed vector."""
    modalities: tuple[str, ...]
    """Supported instruments."""
    digest: str = ""
    """SHA-256 of `weights.safetensors`."""
    dtype: str = "float32"
    """Storage dtype of the weights; they are used in float32."""
    origin: str = ""
    """Provenance of the weights, as text."""
    temperature: float = 15.5
    """Factor of the cosines in the contrastive loss (published kinds)."""
    centre: bool = True
    """Whether the mean of each instrument is subtracted before vectors are compared across instruments."""
    format_version: int = FORMAT_VERSION
    """Format of the folder."""
    created_by: str = __version__
    """Version of specclip-search that wrote it."""
    sizes: MiniSizes = field(default_factory=MiniSizes)
    """Sizes, for kind `mini`."""
    published: PublishedSizes = field(default_factory=PublishedSizes)
    """Sizes, for published kinds."""


def kind_modalities(kind: str) -> tuple[str, ...]:
    """Instruments supported by a kind of model."""
    return {"lrs_mt": (LRS,), "xp_mt": (XP,), "xp_oae": (XP,)}.get(kind, (LRS, XP))


def kind_dim(kind: str, sizes: MiniSizes | None = None, published: PublishedSizes | None = None) -> int:
    """Length of the indexed vector."""
    if kind == "mini":
        return (sizes or MiniSizes()).dim
    published = published or PublishedSizes()
    return published.shared if kind == "split" else published.width


def new_card(name: str, kind: str, sizes: MiniSizes | None = None, published: PublishedSizes | None = None,
             **more: Any) -> ModelCard:
    """A card whose dimension and instruments follow from the kind."""
    # with its learned temperature `mini` has no modality gap, and centring would halve its recall
    return ModelCard(name=name, kind=kind, dim=kind_dim(kind, sizes, published), modalities=kind_modalities(kind),
                     centre=kind != "mini",
                     sizes=sizes or MiniSizes(), published=published or PublishedSizes(), **more)


def build_module(card: ModelCard, device: str | torch.device | None = None) -> nn.Module:
    """A module of the card's architecture with random weights ("meta": without any)."""
    if card.kind == "mini":
        with torch.device(device or "cpu"):
            return MiniModel(card.sizes)
    if card.kind == LABEL_HEAD:
        with torch.device(device or "cpu"):
            return LabelHead()
    module: nn.Module = build(card.kind, device, card.published)
    if isinstance(module, AlignedModel):
        module.temperature = card.temperature
    return module


def save_model(folder: Path, card: ModelCard, state: dict[str, torch.Tensor], metrics: dict[str, Any]) -> ModelCard:
    """Write a model folder: weights, metrics, and `model.toml` last, which makes it a model.

    Returns
    -------
    ModelCard
        The card as written, with the digest of the weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # the old card must never describe new weights, not even briefly
    (folder / TOML).unlink(missing_ok=True)
    save_tensors(folder / WEIGHTS, cast(state, _DTYPES[card.dtype]))
    write_json(folder / METRICS, metrics)
    written = ModelCard(**{**card.__dict__, "digest": file_digest(folder / WEIGHTS), "created_by": __version__})
    write_text(folder / TOML, _card_text(written))
    return written


def _card_text(card: ModelCard) -> str:
    import tomli_w

    table = asdict(card)
    if card.kind != "mini":
        del table["sizes"]
    if card.kind not in KINDS or card.published == PublishedSizes():
        del table["published"]
    return tomli_w.dumps(table)


def load_card(folder: Path) -> ModelCard:
    """Read `model.toml`.

    Raises
    ------
    CheckpointError
        If the folder is not a model folder, or has another format.
    """
    path = folder / TOML
    if not path.is_file():
        raise CheckpointError(f"{folder} is not a model folder: it has no {TOML}.",
                              "Give a folder written by `train` or `model import`.")
    check_model_files(folder, [TOML])
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid TOML ({error}).", "Copy the model folder again.") from error
    version = table.get("format_version")
    if version != FORMAT_VERSION:
        raise CheckpointError(f"{path} has format {version}; this version reads format {FORMAT_VERSION}.",
                              "Use the version of specclip-search that wrote it.")
    card = read_settings(ModelCard, table, TOML)
    if card.kind not in ("mini", LABEL_HEAD, *KINDS):
        raise CheckpointError(f"{path}: there is no model kind '{card.kind}'.",
                              f"Known kinds: mini, {', '.join(KINDS)}.")
    if card.kind != LABEL_HEAD:
        expected = kind_dim(card.kind, card.sizes, card.published), kind_modalities(card.kind)
        if (card.dim, card.modalities) != expected:
            raise CheckpointError(f"{path}: a model '{card.kind}' of these sizes has dim {expected[0]} and takes "
                                  f"{' and '.join(expected[1])}; found {card.dim} and {', '.join(card.modalities)}.",
                                  "Copy the model folder again.")
    if card.dtype not in _DTYPES:
        raise CheckpointError(f"{path}: weights cannot be stored as '{card.dtype}'.",
                              f"Known types: {', '.join(_DTYPES)}.")
    return card


def check_model_files(folder: Path, names: Collection[str] | None = None) -> None:
    """Make sure that files of an atlas's copy of a model are those that were copied; all unless some are named.

    Raises
    ------
    CheckpointError
        If one is damaged or missing.
    """
    try:
        check_folder(folder, names)
    except AtlasError as error:
        raise CheckpointError(
            error.message, "Copy the model folder again, or remove it and run `specclip-search embed` with that model."
        ) from error


def load_module(folder: Path, verify: bool = True) -> tuple[ModelCard, nn.Module]:
    """The module of a model folder in float32, in eval mode.

    Parameters
    ----------
    verify
        Whether to compare the digest of the weights with the card's.

    Raises
    ------
    CheckpointError
        If weights are missing, damaged, do not match the card, or do not fit the architecture.
    """
    card = load_card(folder)
    path = folder / WEIGHTS
    if not path.is_file():
        raise CheckpointError(f"{folder} has no {WEIGHTS}.", "Copy the complete model folder again.")
    if verify and file_digest(path) != card.digest:
        raise CheckpointError(f"{path} does not match {TOML}: its digest differs.",
                              "Copy the complete model folder again.")
    state = load_tensors(path)
    _refuse_too_many_layers(card, state, folder / TOML)
    try:
        module = build_module(card, "meta")
    except (ArithmeticError, AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / TOML}: there is no model of these sizes ({type(error).__name__}: {error}).",
                              "Copy the complete model folder again.") from error
    fill_module(module, cast(state, torch.float32), str(path))
    return card, module.eval().requires_grad_(False)


def _refuse_too_many_layers(card: ModelCard, state: Mapping[str, Tensor], where: Path) -> None:
    """Layers are built before they are compared with the weights: a damaged card may ask for a billion.

    Raises
    ------
    CheckpointError
        If a number of layers is beyond the number of weights.
    """
    for name in ("lrs_layers", "lrs_blocks", "xp_blocks", "layers"):
        wanted = getattr(card.sizes, name, getattr(card.published, name, 0))
        if wanted > len(state):
            raise CheckpointError(f"{where}: {name} = {wanted:,} layers; its weights are {len(state):,} arrays.",
                                  "Copy the complete model folder again.")


def load_metrics(folder: Path) -> dict[str, Any]:
    """Metrics of a model; empty if there are none.

    Raises
    ------
    CheckpointError
        If the file cannot be read.
    """
    path = folder / METRICS
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("not a table of names and values")
        return content
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a readable file of metrics ({str(error)[:120]}).",
                              "Copy it again, or remove it: a model works without its metrics.") from error


def export_model(folder: Path, output: Path, dtype: str = "float16", name: str | None = None) -> ModelCard:
    """Write a copy of a model folder with its weights in another dtype and without the training state.

    Estimators and the test of training stars belong to a digest; they are copied if it does not change.
    """
    card = load_card(folder)
    if dtype not in _DTYPES:
        raise CheckpointError(f"Weights cannot be stored as '{dtype}'.", f"Choose one of {', '.join(_DTYPES)}.")
    changed = ModelCard(**{**card.__dict__, "dtype": dtype, "name": name or card.name})
    written = save_model(output, changed, load_tensors(folder / WEIGHTS), load_metrics(folder))
    for name in BESIDE if written.digest == card.digest else ():
        if (folder / name).is_file():
            with whole_file(output / name) as temporary:
                shutil.copyfile(folder / name, temporary)
    return written


def load_label_head(folder: Path, statistics: Path | None = None) -> LabelHead:
    """A label head imported into a model folder, with its vector statistics if it has any.

    Raises
    ------
    CheckpointError
        If the folder holds another kind of model, or the statistics do not fit.
    """
    card, module = load_module(folder)
    if not isinstance(module, LabelHead):
        raise CheckpointError(f"{folder} holds a '{card.kind}' model, not a label head.", "Give another folder.")
    if statistics is not None:
        module.use_statistics(statistics)
    return module
