"""Building an index beside the one in use, resumably, and putting it in its place when it is whole."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from specclip_search.atlas import Atlas
from specclip_search.atlas.files import sync_folder
from specclip_search.atlas.lock import writer_lock
from specclip_search.version import __version__

from .costs import Estimate, estimate, parse_memory, refuse_what_cannot_fit, written_bytes
from .growth import Drift, can_grow, measure_drift, take_over
from .keytable import KeyTable
from .layout import BUILDING, Generation, current_generation, note_files, publish
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

Action = Literal["built", "grown", "current"]

ADAPTIVE = ("auto", "ivfpq")
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
        `built`; `grown` where new shards were added to the index there was; `current` where
        that was made from these vectors already.
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
    drift
        Of the vectors added since training; with action `built` it was too large to grow. None
        where growing was not tried.
    """

    model: str
    modality: str
    rows: int
    dim: int
    recipe: str
    action: Action
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
    drift: Drift | None = None

    def __str__(self) -> str:
        lines = [f"{self.action}: {self.rows:,} {self.modality} vectors of '{self.model}' as {self.recipe} in "
                 f"{self.seconds['total']:.1f} s, {written_bytes(self.disk)} on disk, {written_bytes(self.estimate.bytes_a_vector)} a vector in memory"]
        if self.explained_variance is not None:
            lines.append(f"PCA keeps {self.explained_variance:.1%} of the variance; searches {self.nprobe} lists and "
                         f"re-ranks {self.rerank:g} candidates an answer")
        lines += [f"recall@10 {r.at_10:.4f}, recall@100 {r.at_100:.4f}: {r.group} ({r.queries} queries)"
                  for r in self.recall]
        lines += [f"own star first / in the first ten, by {g.modality}: {g.with_centring[0]:.3f} / "
                  f"{g.with_centring[1]:.3f} centred, {g.without[0]:.3f} / {g.without[1]:.3f} not centred"
                  for g in self.centring]
        if self.drift is not None:
            lines.append(f"{'' if self.action == 'grown' else 'learnt anew: '}{self.drift}")
        if not self.recall_reached:
            lines.append("the recall wished for was not reached with any setting; --recipe flat is exact")
        return "\n".join(lines)


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
                wished_recall: float = 0.99, fresh: bool = False, threads: int | None = None,
                progress: Note | None = None) -> BuildReport:
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
    order = _Order(atlas, table, chosen, _asked(recipe), seed, threads or default_threads(), progress or _silent)
    meter = Meter()
    with writer_lock(root):
        old = None if fresh else current_generation(atlas, table.model, modality)
        if old is not None and order.fulfilled_by(old):
            return _report_of(old, needs, "current", meter)
        plan, mean, drift, grown = _make(order, root / BUILDING, old, meter)
        manifest = _judge(plan, mean, order.asked, wished_recall, meter)
        if drift is not None:
            manifest["growth"] = asdict(drift) | {"retrained": not grown}
        manifest["build"] = {"estimated": asdict(needs), "seconds": meter.seconds | {"total": meter.total()},
                             "cpu_seconds": meter.cpu(), "peak_memory": peak_memory()}
        plan.clean()
        note_files(plan.folder)
        sync_folder(plan.folder)
        generation = publish(atlas, table.model, modality, plan.folder, manifest)
    return _report_of(generation, needs, "grown" if grown else "built", meter, drift)


@dataclass(frozen=True, slots=True)
class _Order:
    """What is to be built."""

    atlas: Atlas
    table: VectorTable
    recipe: Recipe
    asked: str
    seed: int
    threads: int
    progress: Note

    def fulfilled_by(self, old: Generation) -> bool:
        """Whether the index in use is what is asked for."""
        manifest = old.manifest
        return (manifest["vectors_digest"] == self.table.digest and manifest["seed"] == self.seed
                and manifest["recipe"]["asked"] == self.asked and manifest["recipe"]["kind"] == self.recipe.kind)

    def plan(self, folder: Path, grown_from: str = "") -> Plan:
        adaptive = self.asked in ADAPTIVE
        return Plan.resume_or_start(folder, self.atlas, self.table, self.recipe, seed=self.seed, adaptive=adaptive,
                                    threads=self.threads, progress=self.progress, grown_from=grown_from)


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
    if old is not None and can_grow(old, table, order.recipe, order.asked, order.seed):
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


def _judge(plan: Plan, mean: ModalityMean, asked: str, wished: float, meter: Meter) -> dict[str, Any]:
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
    return VectorIndex(plan.atlas, plan.table.model, plan.table.modality, Generation(plan.folder, manifest))


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


def _report_of(generation: Generation, needs: Estimate, action: Action, meter: Meter,
               drift: Drift | None = None) -> BuildReport:
    """The report of an index from what `index.toml` says of it."""
    manifest = generation.manifest
    gains = [CentringGain(g["modality"], tuple(g["with_centring"]), tuple(g["without"]), g["pairs"], g["gallery"])
             for g in manifest["centring"]]
    return BuildReport(
        manifest["model"], manifest["modality"], manifest["rows"], manifest["dim"], manifest["recipe"]["factory"],
        action, needs, meter.seconds | {"total": meter.total()}, meter.cpu(), peak_memory(),
        folder_bytes(generation.folder), manifest["learnt"].get("explained_variance"), manifest["search"]["nprobe"],
        manifest["search"]["rerank"], [Recall(**row) for row in manifest["recall"]], gains,
        manifest["search"].get("reached", True), drift)


def _silent(done: int, total: int | None, note: str = "") -> None:
    pass
