"""Steps of a build, each leaving files that a continued build takes up again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from specclip_search.atlas import Atlas
from specclip_search.atlas.files import TEMPORARY_PREFIX, whole_file, write_json

from ..search.engines import Engine
from ..search.faiss_library import faiss_threads
from ..search.lists import InvertedLists
from ..search.recipe import Recipe, with_pca
from ..search.store import StoreWriter, VectorStore
from ..vectors.float16 import to_single
from ..vectors.index_folder import FAISS_FILE, STORE
from ..vectors.means import centre
from ..vectors.table import VectorTable
from .quantizer import PCA_SAMPLE, Projection, assemble, learn_projection

Note = Callable[..., None]

STORE_SYNC_ROWS = 262_144
ENOUGH_VARIANCE = 0.97
WIDER_PCA = (192, 256)
DRIFT_SAMPLE = 10_000
TRAINED = "trained.faiss"
LEARNT = "learnt.json"
STORE_STATE = "store.json"
READY = "grown.json"


@dataclass
class Plan:
    """A build under way in its folder.

    Attributes
    ----------
    adaptive
        Whether more PCA dimensions may be kept than the recipe says, where the variance asks for it.
    learnt
        What training found: explained variance and mean squared distance to the lists' centroids.
    """

    folder: Path
    atlas: Atlas
    table: VectorTable
    recipe: Recipe
    seed: int
    adaptive: bool
    threads: int
    engine: Engine
    progress: Note
    learnt: dict[str, Any]

    @classmethod
    def resume_or_start(cls, folder: Path, atlas: Atlas, table: VectorTable, recipe: Recipe, *, seed: int,
                        adaptive: bool, threads: int, engine: Engine, progress: Note, grown_from: str = "") -> Plan:
        """Take up the build in `folder` if it is of the same vectors, recipe and seed; else begin anew.

        `grown_from` is the digest of the vectors of the index that is grown, empty for a build from nothing.
        """
        identity = {"vectors": table.digest, "recipe": recipe.to_dict(), "seed": seed, "adaptive": adaptive,
                    "grown_from": grown_from}
        marker = folder / "plan.json"
        if not (marker.exists() and json.loads(marker.read_text(encoding="utf-8")) == identity):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            write_json(marker, identity)
        for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
            leftover.unlink()
        return cls(folder, atlas, table, recipe, seed, adaptive, threads, engine, progress, {})

    def clean(self) -> None:
        """Remove what only the build itself needed."""
        for pattern in ("codes-*.npy", TRAINED, LEARNT, STORE_STATE, READY, "plan.json"):
            for path in self.folder.glob(pattern):
                path.unlink()

    @property
    def store(self) -> VectorStore:
        return VectorStore(self.folder / STORE, self.table.rows, self.table.dim)


def write_store(plan: Plan, mean: np.ndarray) -> None:
    """Write centred vectors of all parts, taking up after the last part that is durable."""
    table = plan.table
    state = plan.folder / STORE_STATE
    done = json.loads(state.read_text(encoding="utf-8"))["parts"] if state.exists() else 0
    writer = StoreWriter(plan.folder / STORE, table.dim, int(table.offsets[done]))
    unsaved = 0
    for number in range(done, len(table.parts)):
        for half in table.part_batches(table.parts[number]):
            writer.append(centre(to_single(half), mean))
            unsaved += len(half)
            plan.progress(writer.rows, table.rows, "store")
        if unsaved >= STORE_SYNC_ROWS or number == len(table.parts) - 1:
            writer.sync()
            write_json(state, {"parts": number + 1})
            unsaved = 0
    writer.close()


def train_lists(plan: Plan) -> None:
    """Learn projection, centroids and codebooks from a random sample over all rows; kept in a file."""
    learnt = plan.folder / LEARNT
    if learnt.exists():
        plan.learnt = json.loads(learnt.read_text(encoding="utf-8"))
        plan.recipe = with_pca(plan.recipe, plan.learnt["pca"])
        return
    store = plan.store
    rng = np.random.default_rng([plan.seed, 7])
    rows = np.sort(rng.choice(plan.table.rows, plan.recipe.training_rows(plan.table.rows), replace=False))
    plan.progress(0, plan.table.rows, "training")
    with faiss_threads(plan.threads):
        projection = _projection(plan, store, rows)
        sample = np.concatenate([projection.apply(block) for _, block in store.blocks_of(rows)])
        centroids = plan.engine.centroids(sample, plan.recipe.nlist, plan.recipe.iterations, plan.seed + 1)
        lists = InvertedLists(assemble(projection, centroids, sample, plan.recipe, plan.seed))
    with whole_file(plan.folder / TRAINED) as temporary:
        lists.save(temporary)
    plan.learnt = {"pca": plan.recipe.pca, "trained_rows": plan.table.rows, "explained_variance": projection.explained,
                   "list_distance": _distance_to_lists(lists, store, rng)}
    write_json(learnt, plan.learnt)


def _projection(plan: Plan, store: VectorStore, rows: np.ndarray) -> Projection:
    """PCA of the sample, widened where too little variance is kept and the recipe may be adapted."""
    few = store.take(rows[:: max(1, -(-len(rows) // PCA_SAMPLE))])
    projection = learn_projection(few, plan.recipe.pca, plan.seed)
    for wider in WIDER_PCA:
        fits = plan.recipe.pca < wider <= plan.table.dim and wider % plan.recipe.pq == 0
        if plan.adaptive and fits and projection.explained < ENOUGH_VARIANCE:
            plan.recipe = with_pca(plan.recipe, wider)
            projection = learn_projection(few, wider, plan.seed)
    return projection


def _distance_to_lists(lists: InvertedLists, store: VectorStore, rng: np.random.Generator) -> float:
    """Mean squared distance of random vectors to their nearest centroid; growth is judged against it."""
    rows = np.sort(rng.choice(store.rows, min(DRIFT_SAMPLE, store.rows), replace=False))
    return lists.mean_distance(store.take(rows))


def encode_parts(plan: Plan) -> None:
    """Write list numbers and codes of every part, one file a part; those there are kept."""
    lists = InvertedLists.load(plan.folder / TRAINED)
    store = plan.store
    with faiss_threads(plan.threads):
        for number in range(len(plan.table.parts)):
            target = codes_path(plan.folder, number)
            rows = plan.table.part_rows(number)
            if not target.exists() and rows.stop > rows.start:
                blocks = store.blocks(first=rows.start, last=rows.stop)
                codes = np.concatenate([plan.engine.encode(lists, to_single(half)) for _, half in blocks])
                with whole_file(target) as temporary, open(temporary, "wb") as handle:
                    np.save(handle, codes)
            plan.progress(rows.stop, plan.table.rows, "codes")


def fill_lists(plan: Plan) -> None:
    """Put all codes into the lists, in row order, and write the index."""
    lists = InvertedLists.load(plan.folder / TRAINED)
    for number in range(len(plan.table.parts)):
        rows = plan.table.part_rows(number)
        if rows.stop > rows.start:
            lists.add_codes(np.load(codes_path(plan.folder, number), allow_pickle=False), rows.start)
    with whole_file(plan.folder / FAISS_FILE) as temporary:
        lists.save(temporary)


def codes_path(folder: Path, number: int) -> Path:
    return folder / f"codes-{number:06d}.npy"
