"""Building an index beside the one in use, resumably, and putting it in its place when it is whole.

Opening a finished build before it is used: tuning it and measuring what it is worth.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from specclip_search.atlas import Atlas
from specclip_search.atlas.files import sync_folder, writer_lock
from specclip_search.surveys import XP
from specclip_search.version import __version__

from ..search.choose_engine import choose_engine
from ..search.engines import Engine
from ..search.faiss_library import default_threads, load_faiss
from ..search.index import VectorIndex
from ..search.recipe import Recipe, choose_recipe
from ..vectors.index_folder import BUILDING, Generation, current_generation, note_files, publish
from ..vectors.keys import KeyTable
from ..vectors.means import ModalityMean, ensure_mean, write_mean
from ..vectors.table import VectorTable
from .costs import Estimate, Meter, estimate, group_size, parse_memory, peak_memory, refuse_what_cannot_fit
from .growth import Drift, measure_drift, take_over, why_anew
from .recall import Recall, centring_gain, exact_truth, measure_recall, query_groups
from .report import BuildReport, report_of
from .steps import Note, Plan, encode_parts, fill_lists, train_lists, write_store
from .tune import choose_settings, recall_rows, split_halves

START_NPROBE = 32
START_RERANK = 4.0


def judge(plan: Plan, mean: ModalityMean, asked: str, wished: float, meter: Meter) -> dict[str, Any]:
    """Tune the finished build on one half of the queries and measure it on the other; returns its manifest."""
    manifest = _identity(plan, mean, asked)
    plan.progress(plan.table.rows, plan.table.rows, "measuring")
    recall: list[Recall] = []
    if plan.recipe.kind == "ivfpq":
        with meter("recall"):
            index = _opened(plan, manifest)
            groups = query_groups(index, group_size(index.rows), plan.seed)
            tuning, reported = split_halves(groups, exact_truth(index, groups))
            chosen = choose_settings(index, *tuning, wished)
            manifest["search"] = {"nprobe": chosen.nprobe, "rerank": chosen.rerank, "wished_recall": wished,
                                  "reached": chosen.reached}
            recall = measure_recall(_opened(plan, manifest), *reported)
    with meter("centring"):
        gains = centring_gain(_opened(plan, manifest), plan.seed)
    return manifest | {"recall": recall_rows(recall), "centring": [asdict(gain) for gain in gains]}


def _opened(plan: Plan, manifest: dict[str, Any]) -> VectorIndex:
    return VectorIndex(plan.atlas, plan.table.model, plan.table.modality, Generation(plan.folder, manifest),
                       plan.engine)


def _identity(plan: Plan, mean: ModalityMean, asked: str) -> dict[str, Any]:
    """What `index.toml` says of an index before it is measured."""
    table = plan.table
    lists = plan.recipe.kind == "ivfpq"
    return {
        "model": table.model, "model_digest": table.model_digest, "modality": table.modality,
        "vectors_digest": table.digest, "rows": table.rows, "dim": table.dim, "seed": plan.seed,
        "mean_digest": mean.digest, "mean_length": mean.length, "version": __version__,
        "recipe": plan.recipe.to_dict() | {"factory": str(plan.recipe), "asked": asked},
        "learnt": plan.learnt,
        "search": {"nprobe": START_NPROBE if lists else 0, "rerank": START_RERANK if lists else 1.0},
        "parts": {"numbers": [p.number for p in table.parts], "digests": [p.digest for p in table.parts],
                  "rows": [p.rows for p in table.parts]},
    }


ADAPTIVE = ("auto", "ivfpq")


def plan_build(atlas: Atlas, model: str | None = None, modality: str = XP, *,
               memory: str | int | None = None, recipe: str | None = None) -> tuple[Recipe, Estimate]:
    """What `build_index` would do and need; nothing is written.

    Raises
    ------
    VectorIndexError
        If it cannot fit into the memory or on the disk; the missing number is named.
    """
    table = VectorTable(atlas, atlas.require_model(model), modality)
    chosen = choose_recipe(recipe, table.rows, table.dim)
    if chosen.kind == "ivfpq":
        load_faiss()
    needs = estimate(chosen, table.rows, table.dim)
    refuse_what_cannot_fit(needs, chosen, atlas.index_folder(table.model, modality), parse_memory(memory))
    return chosen, needs


def build_index(atlas: Atlas, model: str | None = None, modality: str = XP, *,
                memory: str | int | None = None, recipe: str | None = None, seed: int = 0,
                wished_recall: float = 0.99, fresh: bool = False, threads: int | None = None,
                device: str | None = None, progress: Note | None = None) -> BuildReport:
    """Index the vectors of one modality; an interrupted build continues where it was.

    The index in use keeps answering until the new one is whole. New shards are added to it
    without learning anew, while they lie as near to its lists as those it learnt from; removed
    ones disappear. Built from nothing, the same vectors, recipe and seed give the same index.

    Parameters
    ----------
    model
        Name of the model; None for the atlas's active one.
    memory
        Bytes, or text such as `4G`, that the build may use; None for what the system has.
    recipe
        None chooses by size; see `choose_recipe`.
    wished_recall
        Recall@10 and @100 that search settings are tuned to.
    fresh
        Build from nothing, also where the index in use is current or could be grown.
    threads
        Of FAISS; None for all processors, or OMP_NUM_THREADS.
    device
        Where k-means, encoding and exact search run: None for a GPU where there is one, else the
        processor. The index always opens on a processor.
    progress
        Called with (rows done, rows, step).

    Raises
    ------
    VectorIndexError
        If the recipe does not suit, or memory or disk do not suffice.
    MissingExtra
        If a compressed index is wanted and FAISS is not installed.
    """
    chosen, needs = plan_build(atlas, model, modality, memory=memory, recipe=recipe)
    table = VectorTable(atlas, atlas.require_model(model), modality)
    root = atlas.index_folder(table.model, modality)
    order = _Order(atlas, table, chosen, _asked(recipe), seed, threads or default_threads(),
                   choose_engine(device), progress or _silent)
    meter = Meter()
    with writer_lock(root):
        old = None if fresh else current_generation(atlas, table.model, modality)
        if old is not None and order.fulfilled_by(old):
            return report_of(old, needs, "current", meter)
        anew = why_anew(old, table, chosen, order.asked, seed) if old is not None else ""
        plan, mean, drift, grown = _make(order, root / BUILDING, None if anew else old, meter)
        manifest = judge(plan, mean, order.asked, wished_recall, meter)
        if drift is not None:
            manifest["growth"] = asdict(drift) | {"retrained": not grown}
        manifest["build"] = {"estimated": asdict(needs), "seconds": meter.seconds | {"total": meter.total()},
                             "cpu_seconds": meter.cpu_seconds | {"total": meter.cpu()},
                             "peak_memory": peak_memory()}
        plan.clean()
        note_files(plan.folder)
        sync_folder(plan.folder)
        generation = publish(atlas, table.model, modality, plan.folder, manifest)
    return report_of(generation, needs, "grown" if grown else "built", meter, drift, anew)


@dataclass(frozen=True, slots=True)
class _Order:
    """What is to be built."""

    atlas: Atlas
    table: VectorTable
    recipe: Recipe
    asked: str
    seed: int
    threads: int
    engine: Engine
    progress: Note

    def fulfilled_by(self, old: Generation) -> bool:
        """Whether the index in use is what is asked for."""
        manifest = old.manifest
        return (manifest["vectors_digest"] == self.table.digest and manifest["seed"] == self.seed
                and manifest["recipe"]["asked"] == self.asked and manifest["recipe"]["kind"] == self.recipe.kind)

    def plan(self, folder: Path, grown_from: str = "") -> Plan:
        adaptive = self.asked in ADAPTIVE
        return Plan.resume_or_start(folder, self.atlas, self.table, self.recipe, seed=self.seed, adaptive=adaptive,
                                    threads=self.threads, engine=self.engine, progress=self.progress,
                                    grown_from=grown_from)


def _asked(recipe: str | None) -> str:
    """The recipe as the user named it, in one way of writing."""
    return (recipe or "auto").strip().lower().replace(" ", "")


def _make(order: _Order, folder: Path, old: Generation | None,
          meter: Meter) -> tuple[Plan, ModalityMean, Drift | None, bool]:
    """Store, keys and lists in the build folder: grown from the index in use where that is sound, else anew.

    Returns
    -------
    plan, mean, drift, grown
        `drift` is None where growing was not tried.
    """
    table = order.table
    with meter("mean"):
        now = ensure_mean(order.atlas, table.model, table.modality)
    drift = None
    if old is not None:
        plan = order.plan(folder, str(old.manifest["vectors_digest"]))
        with meter("take over"):
            kept = take_over(plan, old)
        _write_rows(plan, kept, meter)
        drift = measure_drift(plan, kept, now, old)
        if drift.small:
            _build_lists(plan, meter)
            return plan, kept, drift, True
    plan = order.plan(folder)
    _write_rows(plan, now, meter)
    if order.recipe.kind == "ivfpq":
        _build_lists(plan, meter)
    return plan, now, drift, False


def _write_rows(plan: Plan, mean: ModalityMean, meter: Meter) -> None:
    """Mean, store and keys."""
    write_mean(plan.folder, plan.table.modality, mean)
    with meter("store"):
        write_store(plan, mean.vector)
    with meter("keys"):
        KeyTable.of(plan.table).save(plan.folder)


def _build_lists(plan: Plan, meter: Meter) -> None:
    with meter("training"):
        train_lists(plan)
    with meter("codes"):
        encode_parts(plan)
    with meter("lists"):
        fill_lists(plan)


def _silent(done: int, total: int | None, note: str = "") -> None:
    pass
