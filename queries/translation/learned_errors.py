"""The learned model error on disk, beside the translations that use it."""

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
from .residual_measures import SpectrumLaw

FILE_NAME = "model_error.npz"
LAWS = tuple(f"{side}.{kind}" for side in ("lrs", "xp") for kind in residual_measures.KINDS)
_FIELDS = tuple(field.name for field in fields(ModelError))


@dataclass(frozen=True, slots=True)
class LearnedErrors:
    """Model errors of both directions and what they were learned from.

    Attributes
    ----------
    to_lrs, to_xp
        Errors of LRS spectra predicted from XP, and of XP spectra predicted from LRS.
    origin
        Digest of model, windows and code revision: another one makes the errors void.
    stars
        How many pairs they were learned from.
    laws
        How residuals of normal stars look, by ``side.kind`` (`lrs.free`, `lrs.own`, `xp.free`, `xp.own`).
    split
        ``validation``, or ``all but acceptance`` where there were too few validation stars.
    """

    to_lrs: ModelError
    to_xp: ModelError
    origin: str
    stars: int
    split: str
    laws: dict[str, SpectrumLaw]

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays by name, in a fixed order."""
        return {
            f"{side}.{name}": np.asarray(getattr(error, name))
            for side, error in (("to_lrs", self.to_lrs), ("to_xp", self.to_xp))
            for name in _FIELDS
        } | {
            f"{key}.{name}": np.asarray(getattr(self.laws[key], name))
            for key in LAWS
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
    """Write whole or not at all."""
    with whole_file(folder / FILE_NAME) as temporary, open(temporary, "wb") as handle:
        plain = {"origin": errors.origin, "stars": errors.stars, "split": errors.split}
        content: dict[str, Any] = {name: np.array(value) for name, value in plain.items()} | errors.arrays()
        np.savez(handle, **content)


def load_errors(folder: Path) -> LearnedErrors | None:
    """The errors kept in `folder`, or None; None, too, for a file that an earlier version wrote.

    Raises
    ------
    AtlasError
        If the file is there and cannot be read.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as content:
            if not {f"{key}.{name}" for key in LAWS for name in residual_measures.FIELDS} <= set(content.files):
                return None
            sides = [ModelError(*(content[f"{side}.{name}"] for name in _FIELDS)) for side in ("to_lrs", "to_xp")]
            laws = {key: SpectrumLaw(*(content[f"{key}.{name}"] for name in residual_measures.FIELDS)) for key in LAWS}
            return LearnedErrors(
                sides[0], sides[1], str(content["origin"]), int(content["stars"]), str(content["split"]), laws
            )
    except (OSError, ValueError, KeyError) as error:
        raise AtlasError(
            f"{path} is not a readable table of model errors ({error}).",
            "Remove it and run `specclip-search translate` again; it is learned anew.",
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
