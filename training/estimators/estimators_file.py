"""Where estimators lie: `estimators.safetensors` and `estimators.json` beside a model's weights."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from specclip_search.atlas.files import file_digest, write_json
from specclip_search.errors import CheckpointError
from specclip_search.version import __version__

from ..checkpoints.folders import cast, fill_module, load_tensors, save_tensors
from .calibration import Calibration
from .estimators import Estimators, InstrumentEstimator
from .network import EstimatorModule, EstimatorSizes

if TYPE_CHECKING:
    from ..model import Model

FORMAT_VERSION = 1
TENSORS, CARD = "estimators.safetensors", "estimators.json"
_ARRAYS = ("mean", "std", "low", "high")
_AGAIN = "Train them: specclip-search train estimators --atlas ATLAS --model NAME|DIR."


def save_estimators(folder: Path, model_digest: str, instruments: dict[str, InstrumentEstimator],
                    metrics: dict[str, Any]) -> Estimators:
    """Write estimators beside the weights of a model: tensors as float16, then the card that vouches for them."""
    card_path = folder / CARD
    card_path.unlink(missing_ok=True)
    tensors: dict[str, Tensor] = {}
    for modality, one in instruments.items():
        state = one.module.state_dict()
        kept = {key: v if key in ("axis_mean", "axis_std", "center") else v.half() for key, v in state.items()}
        tensors |= {f"{modality}/{key}": value for key, value in kept.items()}
    save_tensors(folder / TENSORS, tensors)
    card = {"format_version": FORMAT_VERSION, "created_by": __version__, "model_digest": model_digest,
            "digest": file_digest(folder / TENSORS), "metrics": metrics,
            "instruments": {name: _card_of(one) for name, one in instruments.items()}}
    write_json(card_path, card)
    return read_estimators(folder, model_digest)


def _card_of(one: InstrumentEstimator) -> dict[str, Any]:
    calibration = {"edges": list(one.calibration.edges)} | {
        name: np.round(getattr(one.calibration, name), 5).tolist() for name in ("factors", "knots", "offsets")}
    return {"labels": list(one.labels), "sizes": asdict(one.module.sizes), "far": one.far,
            "lowest_snr": one.lowest_snr, "calibration": calibration,
            **{name: getattr(one, name).tolist() for name in _ARRAYS}}


def find_estimators(model: Model) -> Path | None:
    """Folder of the estimators of a model: its own, or that of a shipped model if these fit its weights.

    A copy of a shipped model may have been made before its estimators were. Where nothing fits, its own
    folder is named if there are any, so that reading says what they belong to; else None.
    """
    from ..model import find_model, shipped_models

    own = [model.folder] if model.folder is not None else []
    for folder in (*own, *map(find_model, shipped_models())):
        if (folder / CARD).is_file() and _belongs_to(folder / CARD) == model.digest:
            return folder
    return own[0] if own and (own[0] / CARD).is_file() else None


def _belongs_to(card: Path) -> str | None:
    """Digest of the weights a card names; None where it cannot be read."""
    try:
        return json.loads(card.read_text(encoding="utf-8")).get("model_digest")
    except (OSError, ValueError, AttributeError):
        return None


def read_estimators(folder: Path, model_digest: str) -> Estimators:
    """Estimators of a model folder.

    Raises
    ------
    CheckpointError
        If a file is missing or damaged, or they belong to other weights than `model_digest`.
    """
    path = folder / CARD
    found = _read(folder, path.stat().st_mtime_ns if path.is_file() else 0)
    if found.model_digest != model_digest:
        raise CheckpointError(f"The label estimators at {folder} belong to the weights {found.model_digest[:19]}; "
                              f"these are {model_digest[:19]}.", _AGAIN)
    return found


@lru_cache(maxsize=4)
def _read(folder: Path, changed_ns: int) -> Estimators:
    """`changed_ns` is there so that a file made anew is read anew."""
    path = folder / CARD
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        version = card["format_version"]
        if version == FORMAT_VERSION:
            tensors = _tensors(folder, card["digest"])
            instruments = {name: _instrument(one, name, tensors) for name, one in card["instruments"].items()}
            return Estimators(card["model_digest"], card["digest"], instruments, card["metrics"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is not a readable card of label estimators ({type(error).__name__}: {error}).",
                              f"Copy the model folder again. {_AGAIN}") from error
    raise CheckpointError(f"{path} has format {version}; this version reads format {FORMAT_VERSION}.", _AGAIN)


def _tensors(folder: Path, digest: str) -> dict[str, Tensor]:
    path = folder / TENSORS
    if not path.is_file() or file_digest(path) != digest:
        raise CheckpointError(f"{path} is missing or not the file that {CARD} was written for.",
                              f"Copy the model folder again, whole. {_AGAIN}")
    return load_tensors(path)


def _instrument(card: dict[str, Any], modality: str, tensors: dict[str, Tensor]) -> InstrumentEstimator:
    module = EstimatorModule(EstimatorSizes(**card["sizes"]))
    own = {key.partition("/")[2]: value for key, value in tensors.items() if key.startswith(f"{modality}/")}
    project = own["project"]
    fill_module(module, cast(own, torch.float32) | {"project": project}, f"{TENSORS} ({modality})")
    kept = card["calibration"]
    calibration = Calibration(tuple(kept["edges"]), *(np.array(kept[n]) for n in ("factors", "knots", "offsets")))
    arrays = {name: np.array(card[name], np.float64) for name in _ARRAYS}
    return InstrumentEstimator(tuple(card["labels"]), module.eval().requires_grad_(False), calibration,
                               far=float(card["far"]), lowest_snr=float(card["lowest_snr"]), **arrays)
