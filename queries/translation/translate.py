"""Translation errors of every pair: each instrument's spectrum predicted from the other's.

The partners' spectra are laid side by side once, in the atlas, where every worker of a cluster can read them; a task
is one shard of LAMOST spectra with the keys that it needs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from specclip_search.atlas import Atlas
from specclip_search.atlas.files import text_digest
from specclip_search.atlas.links import StarLinks, star_links
from specclip_search.errors import QueryError
from specclip_search.indexing.vectors.model_copy import Loaded, ModelCopy, copy_of
from specclip_search.progress import Progress
from specclip_search.stages.run import Made, Shard, run_stage
from specclip_search.surveys import LAMOST_LRS, LRS, XP

from ..space.pairs import FluxStore, StarKeys, flux_store, read_keys, star_keys
from .learn_errors import Plan, learned_errors
from .learned_errors import KeptErrors
from .schema import REVISION
from .shard import Task, make_shard, task_of

if TYPE_CHECKING:
    from dask.distributed import Client

    from specclip_search.atlas import Atlas, Part
    from specclip_search.indexing.vectors.model_copy import ModelCopy

    from .shard import Task


@dataclass(slots=True)
class TranslateReport:
    """What `translate` did: read = paired + without_star + without_partner + rejected, over the shards written."""

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
    """Predict each paired spectrum from its partner's, both ways, and keep the errors.

    Resumable: a shard whose inputs (spectra, partners, model, learned errors, code revision)
    have not changed is left alone; one killed in work is done again whole.

    Parameters
    ----------
    atlas
        Atlas with LRS and XP spectra that share `source_id`.
    model
        A loaded model, a model's name, or None for the atlas's active model.
    progress
        Called with (pairs done, pairs in all, note).
    client
        A Dask cluster to make the shards on, from `specclip_search.stages.cluster.dask_client`; the bytes
        are the same. By default they are made here.
    device
        Device of the cluster's workers.

    Returns
    -------
    TranslateReport
        Exact accounts of what was read and kept.

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
        shards = [
            Shard(number, text_digest(digest, errors.digest), int((position >= 0).sum()), (part, position))
            for number, (part, position, digest) in plan.items()
        ]
        todo = [shard for shard in shards if not stage.is_current(shard.number, shard.inputs)]
        wanted = np.concatenate([shard.task[1] for shard in todo]) if todo else np.empty(0, np.int64)
        with flux_store(atlas, XP, task.keys, wanted, stage.folder) as store:
            make = TranslateShard(Loaded(model), task.links, Loaded(errors), task.keys, store)
            if client is not None:
                numbers = {shard.number for shard in todo}
                shards = [
                    replace(shard, task=_cut(task, store, *shard.task)) if shard.number in numbers else shard
                    for shard in shards
                ]
                kept = KeptErrors(stage.folder.resolve(), errors.digest)
                make = TranslateShard(copy_of(atlas, model, device), _no_links(task.links), kept, None, _laid(store))
            run = run_stage(stage, shards, make, client=client, progress=progress, note="pairs")
        for account in run.accounts:
            for name in ("read", "paired", "without_star", "without_partner", "rejected"):
                setattr(report, name, getattr(report, name) + account[name])
        report.shards_written, report.shards_current = run.written, run.current
        report.shards_removed, report.pairs = run.removed, stage.rows
    return report


@dataclass(frozen=True, slots=True)
class _Laid:
    """The partners' spectra laid side by side: files of (rows, pixels) float32 and float16."""

    flux: str
    error: str
    shape: tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Cut:
    """What a worker needs to know of one shard: its own stars' keys and links, and where their spectra lie.

    Attributes
    ----------
    position
        For each spectrum its partner among `keys`, -1 for none.
    slot, snr
        For each of `keys`, its row among the laid-out spectra, and their S/N.
    """

    part: Part
    position: np.ndarray
    keys: StarKeys
    links: StarLinks
    slot: np.ndarray
    snr: np.ndarray


@dataclass(frozen=True)
class TranslateShard:
    """Makes one shard of translation errors from one of LAMOST spectra and their partners' positions.

    Here it is given all keys and the store of the partners' spectra; on a cluster, whose workers see the files of
    the store, each task brings its own share of the keys.
    """

    source: Loaded | ModelCopy
    links: StarLinks
    errors: Loaded | KeptErrors
    keys: StarKeys | None
    store: FluxStore | _Laid | None

    def __call__(self, given: tuple[Part, np.ndarray] | _Cut) -> Made:
        if isinstance(given, _Cut):
            task = task_of(self.source.load(), given.keys, given.links)
            return make_shard(task, self.errors.load(), given.part, given.position, _read_laid(given, self.store))
        assert self.keys is not None
        assert isinstance(self.store, FluxStore)
        return make_shard(task_of(self.source.load(), self.keys, self.links), self.errors.load(), *given, self.store)


def _laid(store: FluxStore) -> _Laid | None:
    if not (isinstance(store.flux, np.memmap) and isinstance(store.error, np.memmap)):
        return None
    store.flux.flush()
    store.error.flush()
    rows, pixels = store.flux.shape
    return _Laid(str(store.flux.filename), str(store.error.filename), (rows, pixels))


def _cut(task: Task, store: FluxStore, part: Part, position: np.ndarray) -> _Cut:
    wanted = np.unique(position[position >= 0])
    keys = task.keys
    mine = StarKeys(
        keys.source_id[wanted], keys.spec_id[wanted], keys.release[wanted], keys.part[wanted], keys.row[wanted], {}
    )
    own = np.where(position >= 0, np.searchsorted(wanted, position), -1)
    slot = store.slot[wanted]
    return _Cut(part, own, mine, _links_of(part, task.links), slot, store.snr[slot])


def _no_links(links: StarLinks) -> StarLinks:
    """Links for a task that brings its own."""
    empty = np.empty(0, np.int64)
    return replace(links, spec_id=empty, source_id=empty, conflicts=empty)


def _links_of(part: Part, links: StarLinks) -> StarLinks:
    """The links of one shard's spectra."""
    if not len(links):
        return links
    spec_id = pq.ParquetFile(part.path).read(columns=["spec_id"])["spec_id"].to_numpy()
    mine = np.isin(links.spec_id, spec_id)
    return replace(links, spec_id=links.spec_id[mine], source_id=links.source_id[mine], conflicts=np.empty(0, np.int64))


def _read_laid(cut: _Cut, laid: FluxStore | _Laid | None) -> FluxStore:
    """The shard's partners, read from where they were laid."""
    if not isinstance(laid, _Laid) or not len(cut.slot):
        return FluxStore(np.empty(0, np.int64), np.empty((0, 0)), np.empty((0, 0)), np.empty(0, np.float32))
    flux = np.memmap(Path(laid.flux), np.float32, "r", shape=laid.shape)[cut.slot]
    error = np.memmap(Path(laid.error), np.float16, "r", shape=laid.shape)[cut.slot]
    return FluxStore(np.arange(len(cut.slot)), flux, error, cut.snr)


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
    """For each LRS shard: the partners' positions (-1: none), and a digest of all that goes in."""
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


