"""The atlas's copy of the model that made its vectors: later queries use it, and the workers of a cluster load it."""

from __future__ import annotations

import shutil
import threading
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specclip_search.atlas import Atlas
from specclip_search.atlas.files import file_digest, whole_file, writer_lock
from specclip_search.atlas.integrity import DIGESTS, note_folder
from specclip_search.errors import CheckpointError

if TYPE_CHECKING:
    pass

CARD = "model.toml"


def keep_model(atlas: Atlas, model: Any) -> bool:
    """Copy the model's folder into the atlas unless it holds the same weights; return whether it was copied.

    The card is copied last: a folder without a card is not a model, so an interrupted copy is repeated.
    A model without a folder (created in memory) is not copied.
    """
    source: Path | None = getattr(model, "folder", None)
    target = atlas.model_folder(model.name)
    if source is None or (target.exists() and target.samefile(source)) or _digest_in(target) == model.digest:
        return False
    with writer_lock(target):
        # the old card must not describe new weights
        (target / CARD).unlink(missing_ok=True)
        (target / DIGESTS).unlink(missing_ok=True)
        files = sorted(path for path in source.iterdir() if path.is_file() and not path.name.startswith("."))
        files = [path for path in files if path.name != DIGESTS]
        for path in sorted(files, key=lambda path: path.name == CARD):
            if path.name == CARD:
                note_folder(target, {file.name: file_digest(file) for file in files})
            with whole_file(target / path.name) as temporary:
                shutil.copyfile(path, temporary)
    return True


def _digest_in(folder: Path) -> str | None:
    """Digest of the weights given in a model folder's card."""
    try:
        return tomllib.loads((folder / CARD).read_text(encoding="utf-8")).get("digest")
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        return None


_loading = threading.Lock()


@dataclass(frozen=True, slots=True)
class ModelCopy:
    """How a worker loads the model: the atlas's copy, and the options to run it with.

    Attributes
    ----------
    folder
        Folder of the copy, on a shared file system.
    digest
        Digest of the weights at the start of the run.
    device, precision
        As of `specclip_search.training.model.load_model`; ``auto`` lets each worker use its own GPU.
    """

    folder: Path
    digest: str
    device: str = "auto"
    precision: str = "float32"

    def load(self) -> Any:
        """The model, loaded once per process.

        Raises
        ------
        CheckpointError
            If the copy now holds other weights.
        """
        with _loading:  # threads of one worker share one model
            model = _loaded(self)
        if model.digest != self.digest:
            raise CheckpointError(
                f"{self.folder} holds the weights {model.digest[:19]}; the run started with {self.digest[:19]}.",
                "Start the run again.",
            )
        return model


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that is loaded already: the stand-in for `ModelCopy` where a run stays in this process."""

    model: Any

    def load(self) -> Any:
        """The model."""
        return self.model


@lru_cache(maxsize=2)
def _loaded(copy: ModelCopy) -> Any:
    from specclip_search.training.model import load_model

    return load_model(copy.folder, device=copy.device, precision=copy.precision)


def copy_of(atlas: Atlas, model: Any, device: str = "auto") -> ModelCopy:
    """The atlas's copy of a model stored by `keep_model`."""
    folder = atlas.model_folder(model.name).resolve()
    return ModelCopy(folder, model.digest, device, str(getattr(model, "precision", "float32")))


