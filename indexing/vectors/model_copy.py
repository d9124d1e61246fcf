"""The copy of the model kept in the atlas, and running shards with it on a Dask cluster.

The atlas keeps a copy of the model that produced its vectors, so that later queries use the same one.
Shards written by workers are byte-identical to those of a single process.

Each task is one shard: the worker opens the atlas at the same path, loads the model's copy
once, and commits the shard itself. The process that started the run holds the stage's lock.
"""

from __future__ import annotations

import shutil
import threading
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from specclip_search.atlas import Atlas
from specclip_search.atlas.files import whole_file, writer_lock
from specclip_search.errors import CheckpointError
from specclip_search.stages.cluster import cluster_map

if TYPE_CHECKING:
    from dask.distributed import Client

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
        files = sorted(path for path in source.iterdir() if path.is_file() and not path.name.startswith("."))
        for path in sorted(files, key=lambda path: path.name == CARD):
            with whole_file(target / path.name) as temporary:
                shutil.copyfile(path, temporary)
    return True


def _digest_in(folder: Path) -> str | None:
    """Digest of the weights given in a model folder's card."""
    try:
        return tomllib.loads((folder / CARD).read_text(encoding="utf-8")).get("digest")
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        return None


Item = TypeVar("Item")
Result = TypeVar("Result")
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


@lru_cache(maxsize=2)
def _loaded(copy: ModelCopy) -> Any:
    from specclip_search.training.model import load_model

    return load_model(copy.folder, device=copy.device, precision=copy.precision)


def copy_of(atlas: Atlas, model: Any, device: str = "auto") -> ModelCopy:
    """The atlas's copy of a model stored by `keep_model`."""
    folder = atlas.model_folder(model.name).resolve()
    return ModelCopy(folder, model.digest, device, str(getattr(model, "precision", "float32")))


def map_shards(
    client: Client,
    make: Callable[..., Result],
    atlas: Atlas,
    copy: ModelCopy,
    shards: Sequence[Item],
    *options: Any,
) -> Iterator[tuple[Item, Result]]:
    """Run `make(shard, atlas folder, model's copy, *options)` for each shard; yield results as they finish."""
    return cluster_map(client, make, shards, str(atlas.path.resolve()), copy, *options)
