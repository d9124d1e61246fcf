"""Storage of the learned model errors, next to the translations that use them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from specclip_search.atlas.files import whole_file
from specclip_search.errors import AtlasError, QueryError

from . import residual_measures
from .model_error import ModelError
from .residual_measures import SpectrumResidualModel

FILE_NAME = "model_error.npz"
RESIDUAL_KINDS = tuple(f"{side}.{kind}" for side in ("lrs", "xp") for kind in residual_measures.KINDS)
_FIELDS = tuple(field.name for field in fields(ModelError))


@dataclass(frozen=True, slots=True)
class LearnedErrors:
    """Model errors of both directions and what they were learned from.

    Attributes
    ----------
    to_lrs, to_xp
        Errors of LRS spectra predicted from XP, and of XP spectra predicted from LRS.
    origin
        Digest of model, windows and code revision; errors with another digest are not used.
    stars
        Number of pairs they were learned from.
    residual_models
        Residual models of normal stars, by ``side.kind`` (`lrs.free`, `lrs.own`, `xp.free`, `xp.own`).
    split
        ``validation``, or ``all but acceptance`` if there were too few validation stars.
    """

    to_lrs: ModelError
    to_xp: ModelError
    origin: str
    stars: int
    split: str
    residual_models: dict[str, SpectrumResidualModel]

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays by name, in a fixed order."""
        return {
            f"{side}.{name}": np.asarray(getattr(error, name))
            for side, error in (("to_lrs", self.to_lrs), ("to_xp", self.to_xp))
            for name in _FIELDS
        } | {
            f"{key}.{name}": np.asarray(getattr(self.residual_models[key], name))
            for key in RESIDUAL_KINDS
            for name in residual_measures.FIELDS
        }

    @property
    def digest(self) -> str:
        """SHA-256 over origin and arrays."""
        digest = hashlib.sha256(self.origin.encode())
        for name, array in self.arrays().items():
            digest.update(f"{name}{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return "sha256:" + digest.hexdigest()


def save_errors(folder: Path, errors: LearnedErrors) -> None:
    """Write the errors atomically."""
    with whole_file(folder / FILE_NAME) as temporary, open(temporary, "wb") as handle:
        plain = {"origin": errors.origin, "stars": errors.stars, "split": errors.split}
        content: dict[str, Any] = {name: np.array(value) for name, value in plain.items()} | errors.arrays()
        np.savez(handle, **content)


def load_errors(folder: Path) -> LearnedErrors | None:
    """The errors stored in `folder`; None if there are none, or they were written by an earlier version.

    Raises
    ------
    AtlasError
        If the file exists and cannot be read.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as content:
            names = {f"{key}.{name}" for key in RESIDUAL_KINDS for name in residual_measures.FIELDS}
            if not names <= set(content.files):
                return None
            sides = [ModelError(*(content[f"{side}.{name}"] for name in _FIELDS)) for side in ("to_lrs", "to_xp")]
            models = {
                key: SpectrumResidualModel(*(content[f"{key}.{name}"] for name in residual_measures.FIELDS))
                for key in RESIDUAL_KINDS
            }
            return LearnedErrors(
                sides[0], sides[1], str(content["origin"]), int(content["stars"]), str(content["split"]), models
            )
    except (OSError, ValueError, KeyError) as error:
        raise AtlasError(
            f"{path} is not a readable table of model errors ({error}).",
            "Remove it and run `specclip-search translate` again; the errors are learned again.",
        ) from error


@dataclass(frozen=True, slots=True)
class KeptErrors:
    """How a worker of a cluster comes by the learned errors: from their file, if it still holds the same ones."""

    folder: Path
    digest: str

    def load(self) -> LearnedErrors:
        """The learned errors.

        Raises
        ------
        QueryError
            If the file now holds others.
        """
        errors = load_errors(self.folder)
        if errors is None or errors.digest != self.digest:
            raise QueryError(f"{self.folder} has changed since the run began.", "Start the run again.")
        return errors
