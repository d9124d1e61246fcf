"""Building an index beside the one in use, resumably, and putting it in its place when it is whole."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from specclip_search.atlas import Atlas
from specclip_search.atlas.files import sync_folder
from specclip_search.atlas.lock import writer_lock
from specclip_search.version import __version__

from .costs import Estimate, estimate, parse_memory, refuse_what_cannot_fit
from .keytable import KeyTable
from .layout import BUILDING, Generation, publish
from .libraries import default_threads, load_faiss
from .means import ModalityMean, ensure_mean, write_mean
from .meter import Meter, folder_bytes, peak_memory
from .quality import CentringGain, Recall, centring_gain, exact_truth, group_size, measure_recall
from .recipe import Recipe, choose_recipe
from .search import VectorIndex
from .steps import Note, Plan, encode_parts, fill_lists, train_lists, write_store
from .strata import query_groups
from .tune import choose_settings, recall_rows, split_halves
from .vectors import VectorTable

START_NPROBE = 32
START_RERANK = 4.0


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did.

    Attributes
    ----------
    model, modality, rows, dim
        What was indexed.
    recipe
        As a factory string.
    action
        `built`, or `current` where the index in use was made from these vectors already.
    estimate
        What was expected to be needed.
    seconds
        Wall time of each step that ran in this process, and `total`.
    cpu_seconds, peak_memory
        CPU seconds of this process during the build; largest resident bytes it ever had.
    disk
        Bytes of the index on disk.
    explained_variance
        Kept by the PCA; None for a flat index.
    nprobe, rerank
        Search settings found by tuning; 0 for a flat index.
    recall
        Measured against exact search, by kind of query.
    centring
        What subtracting the means gains, by other instrument.
    recall_reached
        Whether the wished recall was reached on the tuning sample.
    """

    model: str
    modality: str
    rows: int
    dim: int
    recipe: str
    action: str
    estimate: Estimate
    seconds: dict[str, float]
    cpu_seconds: float
    peak_memory: int
    disk: int
    explained_variance: float | None
    nprobe: int
    rerank: float
    recall: list[Recall] = field(default_factory=list)
    centring: list[CentringGain] = field(default_factory=list)
    recall_reached: bool = True


def plan_build(atlas: Atlas, model: str | None = None, modality: str = "gaia_xp", *,
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


def build_index(atlas: Atlas, model: str | None = None, modality: str = "gaia_xp", *,
                memory: str | int | None = None, recipe: str | None = None, seed: int = 0,
                wished_recall: float = 0.99, threads: int | None = None, progress: Note | None = None) -> BuildReport:
    """Index the vectors of one modality; an interrupted build continues where it was.

    The index in use keeps answering until the new one is whole. The same vectors, recipe and seed
    give the same index.

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
    meter = Meter()
    with writer_lock(root):
        plan = Plan.resume_or_start(root / BUILDING, atlas, table, chosen, seed=seed, adaptive=_adaptive(recipe),
                                    threads=threads or default_threads(), progress=progress or _silent)
        mean = _prepare(plan, meter)
        if chosen.kind == "ivfpq":
            _build_lists(plan, meter)
        index, judged = _judge(plan, mean, wished_recall, meter)
        seconds = meter.seconds | {"total": meter.total()}
        manifest = index.manifest | {"build": {"estimated": asdict(needs), "seconds": seconds,
                                               "cpu_seconds": meter.cpu(), "peak_memory": peak_memory()}}
        plan.clean()
        sync_folder(plan.folder)
        generation = publish(atlas, table.model, modality, plan.folder, manifest)
    return BuildReport(
        table.model, modality, table.rows, table.dim, str(plan.recipe), "built", needs, seconds, meter.cpu(),
        peak_memory(), folder_bytes(generation.folder), plan.learnt.get("explained_variance"),
        index.tuned_nprobe, index.tuned_rerank, judged.recall, judged.centring, judged.reached)


def _adaptive(recipe: str | None) -> bool:
    return recipe is None or recipe.strip().lower() in ("auto", "ivfpq")


def _prepare(plan: Plan, meter: Meter) -> ModalityMean:
    """Mean, store and keys."""
    table = plan.table
    with meter("mean"):
        mean = ensure_mean(plan.atlas, table.model, table.modality)
        write_mean(plan.folder, table.modality, mean)
    with meter("store"):
        write_store(plan, mean.vector)
    with meter("keys"):
        KeyTable.of(table).save(plan.folder)
    return mean


def _build_lists(plan: Plan, meter: Meter) -> None:
    with meter("training"):
        train_lists(plan)
    with meter("codes"):
        encode_parts(plan)
    with meter("lists"):
        fill_lists(plan)


@dataclass(frozen=True, slots=True)
class _Judgement:
    recall: list[Recall]
    centring: list[CentringGain]
    reached: bool


def _judge(plan: Plan, mean: ModalityMean, wished: float, meter: Meter) -> tuple[VectorIndex, _Judgement]:
    """Tune the finished build on one half of the queries and measure it on the other."""
    manifest = _identity(plan, mean)
    index = _opened(plan, manifest)
    plan.progress(plan.table.rows, plan.table.rows, "measuring")
    recall: list[Recall] = []
    reached = True
    if index.kind == "ivfpq":
        with meter("recall"):
            groups = query_groups(index, group_size(index.rows), plan.seed)
            tuning, reported = split_halves(groups, exact_truth(index, groups))
            chosen = choose_settings(index, *tuning, wished)
            reached = chosen.reached
            manifest["search"] = {"nprobe": chosen.nprobe, "rerank": chosen.rerank, "wished_recall": wished}
            index = _opened(plan, manifest)
            recall = measure_recall(index, *reported)
    with meter("centring"):
        gains = centring_gain(index, plan.seed)
    manifest |= {"recall": recall_rows(recall), "centring": [asdict(gain) for gain in gains]}
    return _opened(plan, manifest), _Judgement(recall, gains, reached)


def _opened(plan: Plan, manifest: dict[str, Any]) -> VectorIndex:
    return VectorIndex(plan.atlas, plan.table.model, plan.table.modality, Generation(plan.folder, manifest))


def _identity(plan: Plan, mean: ModalityMean) -> dict[str, Any]:
    """What `index.toml` says of an index before it is measured."""
    table = plan.table
    return {
        "model": table.model, "model_digest": table.model_digest, "modality": table.modality,
        "vectors_digest": table.digest, "rows": table.rows, "dim": table.dim, "seed": plan.seed,
        "mean_digest": mean.digest, "mean_length": mean.length, "version": __version__,
        "recipe": plan.recipe.to_dict() | {"factory": str(plan.recipe)},
        "learnt": plan.learnt,
        "search": {"nprobe": START_NPROBE, "rerank": START_RERANK},
        "parts": {"numbers": [p.number for p in table.parts], "digests": [p.digest for p in table.parts],
                  "rows": [p.rows for p in table.parts]},
    }


def _silent(done: int, total: int | None, note: str = "") -> None:
    pass
