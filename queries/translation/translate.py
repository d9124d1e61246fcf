"""Translation errors of every pair: each instrument's spectrum predicted from the other's.

With a Dask cluster, workers write the shards, byte-identical to those of a single process.

The process that starts the run copies the partners' spectra once to contiguous files in the atlas, which every worker
can read. A task is one shard of LAMOST spectra with the keys it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from specclip_search.atlas import Atlas
from specclip_search.atlas.files import text_digest
from specclip_search.atlas.links import StarLinks, star_links
from specclip_search.errors import QueryError
from specclip_search.indexing.vectors.model_copy import ModelCopy, copy_of, map_shards
from specclip_search.surveys import LAMOST_LRS, LRS, XP

from ..space.pairs import FluxStore, StarKeys, flux_store, read_keys, star_keys
from .learn_errors import Plan, learned_errors
from .learned_errors import LearnedErrors, load_errors
from .schema import REVISION
from .shard import Task, task_of, write_shard

if TYPE_CHECKING:
    from dask.distributed import Client

    from specclip_search.atlas import Atlas, Part
    from specclip_search.indexing.vectors.model_copy import ModelCopy

    from .shard import Task

@dataclass(frozen=True, slots=True)
class _Laid:
    """The partners' spectra in contiguous files of (rows, pixels) float32 and float16."""

    flux: str
    error: str
    shape: tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Shard:
    """Data a worker needs for one shard.

    Attributes
    ----------
    number, inputs
        The shard, and the digest of its inputs.
    position
        For each spectrum the index of its partner in `keys`, -1 for none.
    keys, links
        Keys and links of this shard's stars only.
    slot, snr
        For each of `keys`, its row in the contiguous files, and the S/N.
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
    """Write shards on a cluster; yield number, report and pairs kept, as they finish.

    Parameters
    ----------
    shards
        By number: the spectra, the indices of their partners in the task's keys, and the digest of all inputs.
    errors_digest
        Digest of the learned errors, which are stored next to the translations.
    store
        The partners' spectra in contiguous files in the atlas.
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
    mine = np.isin(links.spec_id, spec_id)
    return replace(links, spec_id=links.spec_id[mine], source_id=links.source_id[mine], conflicts=np.empty(0, np.int64))


def _write_shard(
    shard: _Shard, folder: str, copy: ModelCopy, errors_digest: str, laid: _Laid | None
) -> tuple[dict[str, Any], int]:
    """Write one shard on a worker."""
    from .shard import task_of, write_shard

    atlas = Atlas(folder)
    task = task_of(copy.load(), shard.keys, shard.links)
    stage = atlas.translations(task.model.name)
    errors = load_errors(stage.folder)
    part = atlas.spectra(LRS).part(shard.number)
    if errors is None or errors.digest != errors_digest or part is None:
        raise QueryError(f"{stage.folder} has changed since the run started.", "Start the run again.")
    return write_shard(stage, task, errors, part, shard.position, shard.inputs, _store(shard, laid))


def _store(shard: _Shard, laid: _Laid | None) -> FluxStore:
    """The shard's partners, read from the contiguous files."""
    if laid is None or not len(shard.slot):
        return FluxStore(np.empty(0, np.int64), np.empty((0, 0)), np.empty((0, 0)), np.empty(0, np.float32))
    flux = np.memmap(Path(laid.flux), np.float32, "r", shape=laid.shape)[shard.slot]
    error = np.memmap(Path(laid.error), np.float16, "r", shape=laid.shape)[shard.slot]
    return FluxStore(np.arange(len(shard.slot)), flux, error, shard.snr)


Progress = Callable[..., None]


@dataclass(slots=True)
class TranslateReport:
    """Report of `translate`: read = paired + without_star + without_partner + rejected, over the shards written."""

    model: str
    shards_written: int = 0
    shards_current: int = 0
    shards_removed: int = 0
    read: int = 0
    paired: int = 0
    without_star: int = 0
    without_partner: int = 0
    rejected: int = 0
    pairs: int = 0
    error_stars: int = 0
    error_split: str = ""
    notes: list[str] = field(default_factory=list)


def translate(
    atlas: Atlas,
    model: Any = None,
    progress: Progress | None = None,
    *,
    client: Client | None = None,
    device: str = "auto",
) -> TranslateReport:
    """Predict each paired spectrum from its partner, in both directions, and store the errors.

    Resumable: a shard whose inputs (spectra, partners, model, learned errors, code revision)
    have not changed is kept; an interrupted shard is recomputed.

    Parameters
    ----------
    atlas
        Atlas with LRS and XP spectra that share `source_id`.
    model
        A loaded model, a model's name, or None for the atlas's active model.
    progress
        Called with (pairs done, total pairs, note).
    client
        A Dask cluster that writes the shards, from `specclip_search.stages.cluster.dask_client`; the bytes
        are the same. By default shards are written in this process.
    device
        Device of the cluster's workers.

    Returns
    -------
    TranslateReport
        Exact counts of what was read and kept.

    Raises
    ------
    QueryError
        If no LRS spectrum has an XP spectrum of the same star.
    """
    model = _loaded(atlas, model)
    task = _prepare(atlas, model)
    stage = atlas.translations(model.name)
    report = TranslateReport(model.name)
    with stage.lock():
        plan = _plan(atlas, task)
        errors = learned_errors(atlas, task, plan, stage.folder)
        report.error_stars, report.error_split = errors.stars, errors.split
        inputs = {number: text_digest(digest, errors.digest) for number, (_, _, digest) in plan.items()}
        todo = [number for number in plan if not stage.is_current(number, inputs[number])]
        report.shards_current = len(plan) - len(todo)
        for part in stage.parts():
            if part.number not in plan:
                stage.remove(part.number)
                report.shards_removed += 1
        copy = None if client is None else copy_of(atlas, model, device)
        _write(atlas, task, plan, errors, inputs, todo, report, progress, client, copy)
        report.pairs = stage.rows
    return report


def _loaded(atlas: Atlas, model: Any) -> Any:
    if model is not None and not isinstance(model, str):
        return model
    from specclip_search.training.model import load_model

    return load_model(atlas.model_folder(atlas.require_model(model)))


def _prepare(atlas: Atlas, model: Any) -> Task:
    for modality in (LRS, XP):
        if not atlas.spectra(modality).exists:
            raise atlas.spectra(modality).missing()
    return task_of(model, star_keys(atlas, XP), star_links(atlas, LAMOST_LRS.link_column))


def _plan(atlas: Atlas, task: Task) -> Plan:
    """For each LRS shard: indices of the partners (-1: none), and a digest of all inputs."""
    plan: Plan = {}
    windows = ",".join((*task.lrs_windows.names, *task.xp_windows.names))
    for part in atlas.spectra(LRS).parts():
        source_id, known = read_keys(part, task.links)
        position = np.where(known, task.keys.find(source_id), -1)
        found = position[position >= 0]
        partners = [f"{number}:{task.keys.digests[int(number)]}" for number in np.unique(task.keys.part[found])]
        here = np.flatnonzero(position >= 0)
        rows = f"{here.tolist()}{task.keys.part[found].tolist()}{task.keys.row[found].tolist()}"
        digest = text_digest(part.digest, task.model.digest, windows, str(REVISION), *partners, rows)
        plan[part.number] = (part, position, digest)
    if not any((position >= 0).any() for _, position, _ in plan.values()):
        raise QueryError(
            "No LRS spectrum of this atlas has an XP spectrum of the same star: no source_id is common to both.",
            "Ingest a catalogue that gives obsid and source_id together, or the XP spectra of the LRS stars.",
        )
    return plan


def _write(
    atlas: Atlas,
    task: Task,
    plan: Plan,
    errors: LearnedErrors,
    inputs: dict[int, str],
    todo: list[int],
    report: TranslateReport,
    progress: Progress | None,
    client: Client | None,
    copy: ModelCopy | None,
) -> None:
    if not todo:
        return
    stage = atlas.translations(task.model.name)
    wanted = np.concatenate([plan[number][1] for number in todo])
    total, done = int((wanted >= 0).sum()), 0
    shards = {number: (*plan[number][:2], inputs[number]) for number in todo}
    with flux_store(atlas, XP, task.keys, wanted, stage.folder) as store:
        if client is not None and copy is not None:
            written = written_on(client, atlas, copy, task, shards, errors.digest, store)
        else:
            written = (
                (number, *write_shard(stage, task, errors, *shard, store)) for number, shard in shards.items()
            )
        for number, account, kept in written:
            _add(report, account, kept)
            done += int((plan[number][1] >= 0).sum())
            if progress is not None:
                progress(done, total, f"shard {number}")


def _add(report: TranslateReport, account: dict[str, Any], kept: int) -> None:
    report.shards_written += 1
    report.paired += kept
    for name in ("read", "without_star", "without_partner", "rejected"):
        setattr(report, name, getattr(report, name) + account[name])
