"""Translation errors made by the workers of a Dask cluster, byte for byte as one process makes them.

Whoever starts the run lays the partners' spectra side by side once, in the atlas, where every worker
can read them; a task is one shard of LAMOST spectra with what of the keys it needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
from specclip_search.indexing.vectors.clustered import ModelCopy, map_shards

from specclip_search.atlas import Atlas
from specclip_search.atlas.links import StarLinks
from specclip_search.errors import QueryError

from ..space.pairs import LRS, FluxStore, StarKeys
from . import learned_errors

if TYPE_CHECKING:
    from dask.distributed import Client

    from specclip_search.atlas import Part

    from .shard import Task



@dataclass(frozen=True, slots=True)
class _Laid:
    """The partners' spectra laid side by side: files of (rows, pixels) float32 and float16."""

    flux: str
    error: str
    shape: tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Shard:
    """What the worker needs to know of one shard.

    Attributes
    ----------
    number, inputs
        The shard, and the digest of what it is made from.
    position
        For each spectrum its partner among `keys`, -1 for none.
    keys, links
        Those of this shard's stars alone.
    slot, snr
        For each of `keys`, its row among the laid-out spectra, and their S/N.
    """

    number: int
    inputs: str
    position: np.ndarray
    keys: StarKeys
    links: StarLinks
    slot: np.ndarray
    snr: np.ndarray

    def __str__(self) -> str:
        return f"shard {self.number}"


def written_on(
    client: Client,
    atlas: Atlas,
    copy: ModelCopy,
    task: Task,
    shards: Mapping[int, tuple[Part, np.ndarray, str]],
    errors_digest: str,
    store: FluxStore,
) -> Iterator[tuple[int, dict[str, Any], int]]:
    """Have a cluster write shards; yields number, account and pairs kept, as they end.

    Parameters
    ----------
    shards
        By number: the spectra, their partners' positions among the task's keys, and the digest of all inputs.
    errors_digest
        Of the learned errors, which lie beside the translations.
    store
        The partners' spectra, laid out in files of the atlas.
    """
    laid = None
    if isinstance(store.flux, np.memmap) and isinstance(store.error, np.memmap):
        store.flux.flush()
        store.error.flush()
        rows, pixels = store.flux.shape
        laid = _Laid(str(store.flux.filename), str(store.error.filename), (rows, pixels))
    items = [_cut(task, number, *shard, store) for number, shard in shards.items()]
    for item, (account, kept) in map_shards(client, _write_shard, atlas, copy, items, errors_digest, laid):
        yield item.number, account, kept


def _cut(task: Task, number: int, part: Part, position: np.ndarray, inputs: str, store: FluxStore) -> _Shard:
    wanted = np.unique(position[position >= 0])
    keys = task.keys
    mine = StarKeys(
        keys.source_id[wanted], keys.spec_id[wanted], keys.release[wanted], keys.part[wanted], keys.row[wanted], {}
    )
    own = np.where(position >= 0, np.searchsorted(wanted, position), -1)
    slot = store.slot[wanted]
    return _Shard(number, inputs, own, mine, _links_of(part, task.links), slot, store.snr[slot])


def _links_of(part: Part, links: StarLinks) -> StarLinks:
    """The links of one shard's spectra."""
    if not len(links):
        return links
    spec_id = pq.ParquetFile(part.path).read(columns=["spec_id"])["spec_id"].to_numpy()
    mine = np.isin(links.obsid, spec_id)
    return replace(links, obsid=links.obsid[mine], source_id=links.source_id[mine], conflicts=np.empty(0, np.int64))


def _write_shard(
    shard: _Shard, folder: str, copy: ModelCopy, errors_digest: str, laid: _Laid | None
) -> tuple[dict[str, Any], int]:
    """One shard, on a worker."""
    from .shard import task_of, write_shard

    atlas = Atlas(folder)
    task = task_of(copy.load(), shard.keys, shard.links)
    stage = atlas.translations(task.model.name)
    errors = learned_errors.load(stage.folder)
    part = atlas.spectra(LRS).part(shard.number)
    if errors is None or errors.digest != errors_digest or part is None:
        raise QueryError(f"{stage.folder} has changed since the run began.", "Start the run again.")
    return write_shard(stage, task, errors, part, shard.position, shard.inputs, _store(shard, laid))


def _store(shard: _Shard, laid: _Laid | None) -> FluxStore:
    """The shard's partners, read from where they were laid."""
    if laid is None or not len(shard.slot):
        return FluxStore(np.empty(0, np.int64), np.empty((0, 0)), np.empty((0, 0)), np.empty(0, np.float32))
    flux = np.memmap(Path(laid.flux), np.float32, "r", shape=laid.shape)[shard.slot]
    error = np.memmap(Path(laid.error), np.float16, "r", shape=laid.shape)[shard.slot]
    return FluxStore(np.arange(len(shard.slot)), flux, error, shard.snr)
