"""Shards made by the workers of a Dask cluster, byte for byte as one process makes them.

Each task is one shard: the worker opens the atlas under the same path, loads the model's copy there
once, and commits the shard itself. Whoever started the run holds the stage's lock meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from specclip_search.atlas import Atlas
from specclip_search.errors import CheckpointError
from specclip_search.stages.cluster import cluster_map

if TYPE_CHECKING:
    from dask.distributed import Client

Item = TypeVar("Item")
Result = TypeVar("Result")
_loading = threading.Lock()


@dataclass(frozen=True, slots=True)
class ModelCopy:
    """How a worker comes by the model: the atlas's copy of it, and how it is to run.

    Attributes
    ----------
    folder
        The copy's folder, on the file system that all share.
    digest
        Digest of the weights that the run began with.
    device, precision
        As of `specclip_search.training.model.load_model`; ``auto`` lets each worker take its own GPU.
    """

    folder: Path
    digest: str
    device: str = "auto"
    precision: str = "float32"

    def load(self) -> Any:
        """The model, loaded once in a process.

        Raises
        ------
        CheckpointError
            If the copy now holds other weights.
        """
        with _loading:  # threads of one worker share one model
            model = _loaded(self)
        if model.digest != self.digest:
            raise CheckpointError(
                f"{self.folder} holds the weights {model.digest[:19]}; the run began with {self.digest[:19]}.",
                "Start the run again.",
            )
        return model


@lru_cache(maxsize=2)
def _loaded(copy: ModelCopy) -> Any:
    from specclip_search.training.model import load_model

    return load_model(copy.folder, device=copy.device, precision=copy.precision)


def copy_of(atlas: Atlas, model: Any, device: str = "auto") -> ModelCopy:
    """The atlas's copy of a model that `keep_model` has kept there."""
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
    """Run `make(shard, atlas folder, model's copy, *options)` for each shard; results as they end."""
    return cluster_map(client, make, shards, str(atlas.path.resolve()), copy, *options)
