"""Steps of a build; each writes files from which an interrupted build is resumed."""

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
from ..search.recipe import IndexRecipe, with_pca
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
class BuildInProgress:
    """A build in progress, in its folder.

    Attributes
    ----------
    adaptive
        Whether more PCA dimensions than in the recipe may be kept if the explained variance is too low.
    learnt
        Training results: explained variance and mean squared distance to the lists' centroids.
    """

    folder: Path
    atlas: Atlas
    table: VectorTable
    recipe: IndexRecipe
    seed: int
    adaptive: bool
    threads: int
    engine: Engine
    progress: Note
    learnt: dict[str, Any]

    @classmethod
    def resume_or_start(cls, folder: Path, atlas: Atlas, table: VectorTable, recipe: IndexRecipe, *, seed: int,
                        adaptive: bool, threads: int, engine: Engine, progress: Note,
                        grown_from: str = "") -> BuildInProgress:
        """Resume the build in `folder` if vectors, recipe and seed are the same; else start a new one.

        `grown_from` is the vectors digest of the index being grown, empty for a build from scratch.
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
        """Remove intermediate files of the build."""
        for pattern in ("codes-*.npy", TRAINED, LEARNT, STORE_STATE, READY, "plan.json"):
            for path in self.folder.glob(pattern):
                path.unlink()

    @property
    def store(self) -> VectorStore:
        return VectorStore(self.folder / STORE, self.table.rows, self.table.dim)


def write_store(job: BuildInProgress, mean: np.ndarray) -> None:
    """Write centred vectors of all parts, resuming after the last part synced to disk."""
    table = job.table
    state = job.folder / STORE_STATE
    done = json.loads(state.read_text(encoding="utf-8"))["parts"] if state.exists() else 0
    writer = StoreWriter(job.folder / STORE, table.dim, int(table.offsets[done]))
    unsaved = 0
    for number in range(done, len(table.parts)):
        for half in table.part_batches(table.parts[number]):
            writer.append(centre(to_single(half), mean))
            unsaved += len(half)
            job.progress(writer.rows, table.rows, "store")
        if unsaved >= STORE_SYNC_ROWS or number == len(table.parts) - 1:
            writer.sync()
            write_json(state, {"parts": number + 1})
            unsaved = 0
    writer.close()


def train_lists(job: BuildInProgress) -> None:
    """Train projection, centroids and codebooks on a random sample of all rows; saved to a file."""
    learnt = job.folder / LEARNT
    if learnt.exists():
        job.learnt = json.loads(learnt.read_text(encoding="utf-8"))
        job.recipe = with_pca(job.recipe, job.learnt["pca"])
        return
    store = job.store
    rng = np.random.default_rng([job.seed, 7])
    rows = np.sort(rng.choice(job.table.rows, job.recipe.training_rows(job.table.rows), replace=False))
    job.progress(0, job.table.rows, "training")
    with faiss_threads(job.threads):
        projection = _projection(job, store, rows)
        sample = np.concatenate([projection.apply(block) for _, block in store.blocks_of(rows)])
        centroids = job.engine.centroids(sample, job.recipe.nlist, job.recipe.iterations, job.seed + 1)
        lists = InvertedLists(assemble(projection, centroids, sample, job.recipe, job.seed))
    with whole_file(job.folder / TRAINED) as temporary:
        lists.save(temporary)
    job.learnt = {"pca": job.recipe.pca, "trained_rows": job.table.rows, "explained_variance": projection.explained,
                   "list_distance": _distance_to_lists(lists, store, rng)}
    write_json(learnt, job.learnt)


def _projection(job: BuildInProgress, store: VectorStore, rows: np.ndarray) -> Projection:
    """PCA of the sample, with more dimensions if too little variance is kept and the recipe may be adapted."""
    few = store.take(rows[:: max(1, -(-len(rows) // PCA_SAMPLE))])
    projection = learn_projection(few, job.recipe.pca, job.seed)
    for wider in WIDER_PCA:
        fits = job.recipe.pca < wider <= job.table.dim and wider % job.recipe.pq == 0
        if job.adaptive and fits and projection.explained < ENOUGH_VARIANCE:
            job.recipe = with_pca(job.recipe, wider)
            projection = learn_projection(few, wider, job.seed)
    return projection


def _distance_to_lists(lists: InvertedLists, store: VectorStore, rng: np.random.Generator) -> float:
    """Mean squared distance of random vectors to their nearest centroid; reference for the drift of added vectors."""
    rows = np.sort(rng.choice(store.rows, min(DRIFT_SAMPLE, store.rows), replace=False))
    return lists.mean_distance(store.take(rows))


def encode_parts(job: BuildInProgress) -> None:
    """Write list numbers and codes of every part, one file per part; existing files are kept."""
    lists = InvertedLists.load(job.folder / TRAINED)
    store = job.store
    with faiss_threads(job.threads):
        for number in range(len(job.table.parts)):
            target = codes_path(job.folder, number)
            rows = job.table.part_rows(number)
            if not target.exists() and rows.stop > rows.start:
                blocks = store.blocks(first=rows.start, last=rows.stop)
                codes = np.concatenate([job.engine.encode(lists, to_single(half)) for _, half in blocks])
                with whole_file(target) as temporary, open(temporary, "wb") as handle:
                    np.save(handle, codes)
            job.progress(rows.stop, job.table.rows, "codes")


def fill_lists(job: BuildInProgress) -> None:
    """Add all codes to the lists, in row order, and write the index."""
    lists = InvertedLists.load(job.folder / TRAINED)
    for number in range(len(job.table.parts)):
        rows = job.table.part_rows(number)
        if rows.stop > rows.start:
            lists.add_codes(np.load(codes_path(job.folder, number), allow_pickle=False), rows.start)
    with whole_file(job.folder / FAISS_FILE) as temporary:
        lists.save(temporary)


def codes_path(folder: Path, number: int) -> Path:
    return folder / f"codes-{number:06d}.npy"
