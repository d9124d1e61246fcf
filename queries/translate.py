"""Translation errors of every pair: each instrument's spectrum predicted from the other's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from indexing.clustered import copy_of
from specclip_search.atlas.columns import table_from_columns
from specclip_search.atlas.files import text_digest
from specclip_search.atlas.links import StarLinks, star_links
from specclip_search.atlas.schemas import described
from specclip_search.errors import QueryError

from . import error_store
from .clustered_translate import written_on
from .error_store import LearnedErrors
from .halves import choose, scattered, teaches
from .law_columns import law_fields, law_values
from .model_error import learn_model_error, measure
from .pairs import LRS, XP, FluxStore, SpectraBlock, StarKeys, flux_store, read_block, read_keys, star_color, star_keys
from .spectrum_law import learn as learn_spectrum_law
from .windows import WindowSet

if TYPE_CHECKING:
    from dask.distributed import Client

    from indexing.clustered import ModelCopy
    from specclip_search.atlas import Atlas, Part, Stage

# raise when a formula or a column changes: every shard made before is then stale
REVISION = 2
MIN_VALIDATION_STARS = 150
MAX_LEARNING_STARS = 6000
BATCH_ROWS = 1024
Progress = Callable[..., None]


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


@dataclass(frozen=True, slots=True)
class Task:
    """Everything that translating one shard needs."""

    model: Any
    keys: StarKeys
    links: StarLinks
    lrs_windows: WindowSet
    xp_windows: WindowSet
    xp_wavelength: np.ndarray


def translations_schema(lrs_windows: WindowSet, xp_windows: WindowSet) -> pa.Schema:
    """Columns of `translations/<model>`; the windows' names stand in the lists' metadata."""
    f32 = pa.float32()
    columns = [
        described("lrs_spec_id", pa.int64(), "LAMOST obsid", ucd="meta.id;meta.main"),
        described("lrs_release", pa.string(), "data release of the LRS spectrum"),
        described("xp_spec_id", pa.int64(), "Gaia XP spectrum of the same star", ucd="meta.id"),
        described("xp_release", pa.string(), "data release of the XP spectrum"),
        described("source_id", pa.int64(), "Gaia source_id of the star", ucd="meta.id"),
        described("lrs_snr", f32, "S/N of the LRS spectrum, g band", ucd="stat.snr"),
        described("xp_snr", f32, "S/N of the XP spectrum, median", ucd="stat.snr"),
        described("xp_color", f32, "log10 of mean XP flux at 640-680 nm over 440-480 nm", ucd="phot.color"),
    ]
    for side, other, unit in (("lrs", "XP", "continuum-normalised flux"), ("xp", "LRS", "flux over flux at 550 nm")):
        name = f"{side.upper()} spectrum predicted from {other} against the observed one"
        columns += [
            described(
                f"{side}_chi2", f32, f"{name}: mean squared residual over noise^2 + model error^2", ucd="stat.fit.chi2"
            ),
            described(f"{side}_l1", f32, f"{name}: mean absolute residual", unit, "stat.fit.residual"),
            described(f"{side}_mse", f32, f"{name}: mean squared residual", f"({unit})^2", "stat.fit.residual"),
            described(f"{side}_pixels", pa.int16(), f"{name}: informative pixels", ucd="meta.number"),
        ]
    for side, windows in (("lrs", lrs_windows), ("xp", xp_windows)):
        text = "residual of each window in sigma (noise and model error); positive where observed lies above predicted"
        entry = described(f"{side}_window_sigma", pa.list_(f32, len(windows)), text)
        columns.append(entry.with_metadata({**entry.metadata, b"windows": ", ".join(windows.names).encode()}))
    return pa.schema([*columns, *law_fields()])


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
        A Dask cluster to make the shards on, from `specclip_search.cluster.dask_client`; the bytes
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
        errors = _errors(atlas, task, plan, stage.folder)
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
    from training.model import load_model

    return load_model(atlas.model_folder(atlas.require_model(model)))


def _prepare(atlas: Atlas, model: Any) -> Task:
    for modality in (LRS, XP):
        if not atlas.spectra(modality).exists:
            raise atlas.spectra(modality).missing()
    return task_of(model, star_keys(atlas, XP), star_links(atlas, LRS))


def task_of(model: Any, keys: StarKeys, links: StarLinks) -> Task:
    """A task with the instruments' windows."""
    from specclip_search.modality import GAIA_XP, LAMOST_LRS

    return Task(model, keys, links, WindowSet.of(LAMOST_LRS), WindowSet.of(GAIA_XP), np.asarray(GAIA_XP.wavelength))


Plan = dict[int, tuple["Part", np.ndarray, str]]


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


def _errors(atlas: Atlas, task: Task, plan: Plan, folder: Any) -> LearnedErrors:
    """The learned model errors: those on disk where they still hold, else learned now."""
    origin = text_digest(task.model.digest, str(REVISION), ",".join(task.lrs_windows.names + task.xp_windows.names))
    chosen, split = _learning_stars(task, plan)
    count = sum(len(rows) for rows in chosen.values())
    kept = error_store.load(folder)
    # a survey that grows keeps its sigmas, unless it now has many more stars to learn them from
    if (
        kept is not None
        and kept.origin == origin
        and (count <= 2 * kept.stars or kept.stars >= MAX_LEARNING_STARS // 2)
        and kept.split in (split, "validation")
    ):
        return kept
    errors = _learn(atlas, task, plan, chosen, split, origin, folder)
    error_store.save(folder, errors)
    return errors


def _learning_stars(task: Task, plan: Plan) -> tuple[dict[int, np.ndarray], str]:
    """Rows of each shard to learn from: validation stars, else all but acceptance, at most so many."""
    numbers, rows, ids = [], [], []
    for part_number, (_, position, _) in plan.items():
        paired = np.flatnonzero(position >= 0)
        numbers.append(np.full(len(paired), part_number))
        rows.append(paired)
        ids.append(task.keys.source_id[position[paired]])
    number, row, source_id = np.concatenate(numbers), np.concatenate(rows), np.concatenate(ids)
    able, label = choose(source_id, teaches(source_id), MIN_VALIDATION_STARS)
    chosen = np.flatnonzero(able)
    if len(chosen) == 0:
        raise QueryError(
            "Every paired star belongs to the acceptance split, from which nothing may be learned.",
            "Ingest more stars: the model's own error is learned from the others.",
        )
    # the same choice as the survey grows, from all over the sky
    order = np.argsort(scattered(source_id[chosen]), kind="stable")
    chosen = np.sort(chosen[order[:MAX_LEARNING_STARS]])
    return {int(n): row[chosen[number[chosen] == n]] for n in np.unique(number[chosen])}, label


def _learn(
    atlas: Atlas, task: Task, plan: Plan, chosen: dict[int, np.ndarray], split: str, origin: str, folder: Any
) -> LearnedErrors:
    wanted = np.concatenate([plan[number][1][rows] for number, rows in chosen.items()])
    pieces = []
    with flux_store(atlas, XP, task.keys, wanted, folder) as store:
        for number, rows in chosen.items():
            part, position, _ = plan[number]
            block = read_block(part, task.links)
            xp_flux, xp_error, xp_snr = store.take(position[rows])
            predicted = _predict(task.model, block.flux[rows], xp_flux)
            pieces.append(
                (block.flux[rows], block.error[rows], xp_flux, xp_error, block.snr[rows], xp_snr, *predicted)
            )
    arrays = [np.concatenate(piece) for piece in zip(*pieces, strict=True)]
    good = np.isfinite(arrays[6]).all(axis=1) & np.isfinite(arrays[7]).all(axis=1)
    lrs, lrs_noise, xp, xp_noise, lrs_snr, xp_snr, to_xp, to_lrs, own_lrs, own_xp = (array[good] for array in arrays)
    color = star_color(xp, task.xp_wavelength)
    return LearnedErrors(
        learn_model_error(lrs - to_lrs, lrs_noise, color, xp_snr, task.lrs_windows),
        learn_model_error(xp - to_xp, xp_noise, color, lrs_snr, task.xp_windows),
        origin,
        int(good.sum()),
        split,
        {
            "lrs.free": learn_spectrum_law("lrs", "free", lrs, lrs_noise, to_lrs),
            "lrs.own": learn_spectrum_law("lrs", "own", lrs, lrs_noise, own_lrs),
            "xp.free": learn_spectrum_law("xp", "free", xp, xp_noise, to_xp),
            "xp.own": learn_spectrum_law("xp", "own", xp, xp_noise, own_xp),
        },
    )


def _predict(model: Any, lrs: np.ndarray, xp: np.ndarray) -> tuple[np.ndarray, ...]:
    """XP spectra predicted from LRS, LRS predicted from XP, and both as their own vectors give them back."""
    lrs, xp = lrs.astype(np.float32), xp.astype(np.float32)
    results = (
        model.translate(LRS, lrs), model.translate(XP, xp), model.reconstruct(LRS, lrs), model.reconstruct(XP, xp)
    )  # fmt: skip
    return tuple(np.asarray(result, dtype=np.float64) for result in results)


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


def write_shard(
    stage: Stage,
    task: Task,
    errors: LearnedErrors,
    part: Part,
    position: np.ndarray,
    inputs: str,
    store: FluxStore,
) -> tuple[dict[str, Any], int]:
    """Write the translation errors of one shard; returns its account, and how many pairs were kept."""
    schema = translations_schema(task.lrs_windows, task.xp_windows)
    block = read_block(part, task.links)
    tables = list(_shard(task, errors, block, position, store, schema))
    kept = sum(table.num_rows for table in tables)
    account = {
        "model": task.model.name,
        "model_digest": task.model.digest,
        "model_error": errors.digest,
        "read": part.rows,
        "without_star": int((~block.known).sum()),
        "without_partner": int((block.known & (position < 0)).sum()),
        "rejected": int((position >= 0).sum()) - kept,
    }
    stage.write(part.number, tables or [schema.empty_table()], schema=schema, inputs=inputs, extra=account)
    return account, kept


def _add(report: TranslateReport, account: dict[str, Any], kept: int) -> None:
    report.shards_written += 1
    report.paired += kept
    for name in ("read", "without_star", "without_partner", "rejected"):
        setattr(report, name, getattr(report, name) + account[name])


def _shard(
    task: Task, errors: LearnedErrors, block: SpectraBlock, position: np.ndarray, store: FluxStore, schema: pa.Schema
) -> Iterator[pa.Table]:
    paired = np.flatnonzero(position >= 0)
    for start in range(0, len(paired), BATCH_ROWS):
        rows = paired[start : start + BATCH_ROWS]
        xp_flux, xp_error, xp_snr = store.take(position[rows])
        lrs_flux, lrs_error = block.flux[rows], block.error[rows]
        to_xp, to_lrs, own_lrs, own_xp = _predict(task.model, lrs_flux, xp_flux)
        color = star_color(xp_flux, task.xp_wavelength)
        lrs = measure(lrs_flux, lrs_error, to_lrs, errors.to_lrs, errors.to_lrs.cells(color, xp_snr), task.lrs_windows)
        xp = measure(
            xp_flux, xp_error, to_xp, errors.to_xp, errors.to_xp.cells(color, block.snr[rows]), task.xp_windows
        )
        keys = {
            "lrs_spec_id": block.spec_id[rows],
            "lrs_release": block.release[rows],
            "xp_spec_id": task.keys.spec_id[position[rows]],
            "xp_release": task.keys.release[position[rows]],
            "source_id": block.source_id[rows],
            "lrs_snr": block.snr[rows],
            "xp_snr": xp_snr,
            "xp_color": color.astype(np.float32),
        }
        values = {
            f"{side}_{name}": getattr(result, name)
            for side, result in (("lrs", lrs), ("xp", xp))
            for name in ("chi2", "l1", "mse", "pixels", "window_sigma")
        }
        values |= law_values(errors.laws, "lrs", lrs_flux, lrs_error, to_lrs, own_lrs)
        values |= law_values(errors.laws, "xp", xp_flux, xp_error, to_xp, own_xp)
        # a prediction that is not finite is the model's failure, not a number to rank by: counted as rejected
        finite = np.isfinite(lrs.chi2) & np.isfinite(xp.chi2)
        yield table_from_columns(keys | values, schema).filter(pa.array(finite))
