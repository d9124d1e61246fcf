"""Build a vector index, tune it and measure its recall, then publish it.

The build runs in a folder of its own and can be resumed. The index in use answers queries until the
new one is complete and replaces it.
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
from ..search.recipe import IndexRecipe, choose_recipe
from ..vectors.index_folder import BUILDING, Generation, current_generation, note_files, publish
from ..vectors.keys import KeyTable
from ..vectors.means import ModalityMean, ensure_mean, write_mean
from ..vectors.table import VectorTable
from .costs import Estimate, Meter, estimate, group_size, parse_memory, peak_memory, refuse_what_cannot_fit
from .growth import Drift, measure_drift, take_over, why_anew
from .recall import Recall, centring_gain, exact_truth, measure_recall, query_groups
from .report import BuildReport, report_of
from .steps import BuildInProgress, Note, encode_parts, fill_lists, train_lists, write_store
from .tune import choose_settings, recall_rows, split_halves

START_NPROBE = 32
START_RERANK = 4.0


def tuned_and_measured(job: BuildInProgress, mean: ModalityMean, asked: str, wished: float,
                       meter: Meter) -> dict[str, Any]:
    """Tune the finished build on half of the queries, measure its recall on the other half; return its manifest."""
    manifest = _identity(job, mean, asked)
    job.progress(job.table.rows, job.table.rows, "measuring")
    recall: list[Recall] = []
    if job.recipe.kind == "ivfpq":
        with meter("recall"):
            index = _opened(job, manifest)
            groups = query_groups(index, group_size(index.rows), job.seed)
            tuning, reported = split_halves(groups, exact_truth(index, groups))
            chosen = choose_settings(index, *tuning, wished)
            manifest["search"] = {"nprobe": chosen.nprobe, "rerank": chosen.rerank, "wished_recall": wished,
                                  "reached": chosen.reached}
            recall = measure_recall(_opened(job, manifest), *reported)
    with meter("centring"):
        gains = centring_gain(_opened(job, manifest), job.seed)
    return manifest | {"recall": recall_rows(recall), "centring": [asdict(gain) for gain in gains]}


def _opened(job: BuildInProgress, manifest: dict[str, Any]) -> VectorIndex:
    return VectorIndex(job.atlas, job.table.model, job.table.modality, Generation(job.folder, manifest),
                       job.engine)


def _identity(job: BuildInProgress, mean: ModalityMean, asked: str) -> dict[str, Any]:
    """Contents of `index.toml` before recall is measured."""
    table = job.table
    lists = job.recipe.kind == "ivfpq"
    return {
        "model": table.model, "model_digest": table.model_digest, "modality": table.modality,
        "vectors_digest": table.digest, "rows": table.rows, "dim": table.dim, "seed": job.seed,
        "mean_digest": mean.digest, "mean_length": mean.length, "version": __version__,
        "recipe": job.recipe.to_dict() | {"factory": str(job.recipe), "asked": asked},
        "learnt": job.learnt,
        "search": {"nprobe": START_NPROBE if lists else 0, "rerank": START_RERANK if lists else 1.0},
        "parts": {"numbers": [p.number for p in table.parts], "digests": [p.digest for p in table.parts],
                  "rows": [p.rows for p in table.parts]},
    }


ADAPTIVE = ("auto", "ivfpq")


def plan_build(atlas: Atlas, model: str | None = None, modality: str = XP, *,
               memory: str | int | None = None, recipe: str | None = None) -> tuple[IndexRecipe, Estimate]:
    """The recipe `build_index` would use and its estimated cost; nothing is written.

    Raises
    ------
    VectorIndexError
        If it does not fit into memory or on disk; the message gives the missing amount.
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
    """Index the vectors of one modality; an interrupted build is resumed.

    The index in use answers queries until the new one is complete. New shards are added to it
    without retraining as long as they are as close to its centroids as the training vectors; removed
    shards are dropped. Built from scratch, the same vectors, recipe and seed give the same index.

    Parameters
    ----------
    model
        Name of the model; None for the atlas's active one.
    memory
        Bytes, or text such as `4G`, that the build may use; None for all available memory.
    recipe
        None chooses by size; see `choose_recipe`.
    wished_recall
        Target recall@10 and @100 for tuning the search settings.
    fresh
        Build from scratch even if the index in use is up to date or could be grown.
    threads
        FAISS threads; None for OMP_NUM_THREADS, or all processors if it is not set.
    device
        Where k-means, encoding and exact search run: None for a GPU if available, else the
        CPU. The index can always be opened on a CPU.
    progress
        Called with (rows done, rows, step).

    Raises
    ------
    VectorIndexError
        If the recipe does not fit the vectors, or there is not enough memory or disk space.
    MissingExtra
        If a compressed index is requested and FAISS is not installed.
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
        job, mean, drift, grown = _make(order, root / BUILDING, None if anew else old, meter)
        manifest = tuned_and_measured(job, mean, order.asked, wished_recall, meter)
        if drift is not None:
            manifest["growth"] = asdict(drift) | {"retrained": not grown}
        manifest["build"] = {"estimated": asdict(needs), "seconds": meter.seconds | {"total": meter.total()},
                             "cpu_seconds": meter.cpu_seconds | {"total": meter.cpu()},
                             "peak_memory": peak_memory()}
        job.clean()
        note_files(job.folder)
        sync_folder(job.folder)
        generation = publish(atlas, table.model, modality, job.folder, manifest)
    return report_of(generation, needs, "grown" if grown else "built", meter, drift, anew)


@dataclass(frozen=True, slots=True)
class _Order:
    """Parameters of a requested build."""

    atlas: Atlas
    table: VectorTable
    recipe: IndexRecipe
    asked: str
    seed: int
    threads: int
    engine: Engine
    progress: Note

    def fulfilled_by(self, old: Generation) -> bool:
        """Whether the index in use matches the request."""
        manifest = old.manifest
        return (manifest["vectors_digest"] == self.table.digest and manifest["seed"] == self.seed
                and manifest["recipe"]["asked"] == self.asked and manifest["recipe"]["kind"] == self.recipe.kind)

    def start(self, folder: Path, grown_from: str = "") -> BuildInProgress:
        adaptive = self.asked in ADAPTIVE
        return BuildInProgress.resume_or_start(folder, self.atlas, self.table, self.recipe, seed=self.seed,
                                               adaptive=adaptive, threads=self.threads, engine=self.engine,
                                               progress=self.progress, grown_from=grown_from)


def _asked(recipe: str | None) -> str:
    """The recipe as given by the user, normalised."""
    return (recipe or "auto").strip().lower().replace(" ", "")


def _make(order: _Order, folder: Path, old: Generation | None,
          meter: Meter) -> tuple[BuildInProgress, ModalityMean, Drift | None, bool]:
    """Write store, keys and lists to the build folder, growing the index in use if possible, else from scratch.

    Returns
    -------
    job, mean, drift, grown
        `drift` is None if growing was not tried.
    """
    table = order.table
    with meter("mean"):
        now = ensure_mean(order.atlas, table.model, table.modality)
    drift = None
    if old is not None:
        job = order.start(folder, str(old.manifest["vectors_digest"]))
        with meter("take over"):
            kept = take_over(job, old)
        _write_rows(job, kept, meter)
        drift = measure_drift(job, kept, now, old)
        if drift.small:
            _build_lists(job, meter)
            return job, kept, drift, True
    job = order.start(folder)
    _write_rows(job, now, meter)
    if order.recipe.kind == "ivfpq":
        _build_lists(job, meter)
    return job, now, drift, False


def _write_rows(job: BuildInProgress, mean: ModalityMean, meter: Meter) -> None:
    """Write mean, store and keys."""
    write_mean(job.folder, job.table.modality, mean)
    with meter("store"):
        write_store(job, mean.vector)
    with meter("keys"):
        KeyTable.of(job.table).save(job.folder)


def _build_lists(job: BuildInProgress, meter: Meter) -> None:
    with meter("training"):
        train_lists(job)
    with meter("codes"):
        encode_parts(job)
    with meter("lists"):
        fill_lists(job)


def _silent(done: int, total: int | None, note: str = "") -> None:
    pass
