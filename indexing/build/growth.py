"""Growing an index: add new shards and drop removed ones without retraining, as long as drift is small."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import Any

import numpy as np

from specclip_search.atlas.files import whole_file, write_json

from ..search.lists import InvertedLists
from ..search.recipe import IndexRecipe
from ..search.store import VectorStore, row_sums, sums_path
from ..vectors.index_folder import FAISS_FILE, STORE, Generation
from ..vectors.means import ModalityMean, read_mean
from ..vectors.table import VectorTable
from .steps import DRIFT_SAMPLE, LEARNT, READY, STORE_STATE, TRAINED, BuildInProgress, codes_path

MAX_GROWTH = 2.0
MAX_DRIFT = 1.15
MAX_MEAN_SHIFT = 0.05


@dataclass(frozen=True, slots=True)
class Drift:
    """Drift of new vectors relative to those an index was trained on.

    Attributes
    ----------
    distance
        Mean squared distance of the new vectors to their nearest centroids, divided by that of the
        vectors the index was trained on.
    mean_shift
        Distance between the current mean of all vectors and the mean that the index subtracts.
    """

    distance: float
    mean_shift: float

    @property
    def small(self) -> bool:
        return self.distance <= MAX_DRIFT and self.mean_shift <= MAX_MEAN_SHIFT

    def __str__(self) -> str:
        return (f"new vectors lie {self.distance:.2f} x as far from their lists' centroids as the training vectors "
                f"(at most {MAX_DRIFT}), the mean has moved by {self.mean_shift:.3f} (at most {MAX_MEAN_SHIFT})")


def why_anew(old: Generation, table: VectorTable, recipe: IndexRecipe, asked: str, seed: int) -> str:
    """Why the index in use cannot be grown to the current vectors; empty if it can.

    It must have the requested recipe, seed and weights, keep at least half of its vectors, and
    not have more than doubled since training, because it then needs more lists.
    """
    manifest = old.manifest
    before = manifest["recipe"]
    if recipe.kind != "ivfpq" or before["kind"] != "ivfpq" or before["asked"] != asked:
        return f"the recipe is {recipe} and was {before['factory']}"
    if manifest["seed"] != seed:
        return f"the seed is {seed} and was {manifest['seed']}"
    if manifest["model_digest"] != table.model_digest or manifest["dim"] != table.dim:
        return "the vectors come from different weights"
    kept = sum(part.rows for part in table.parts if (part.number, part.digest) in _indexed(manifest))
    if 2 * kept < manifest["rows"]:
        return f"only {kept:,} of its {manifest['rows']:,} vectors are left"
    learnt = manifest["learnt"]["trained_rows"]
    if table.rows > MAX_GROWTH * learnt:
        return f"there are {table.rows:,} vectors, more than {MAX_GROWTH:g} x the {learnt:,} it was trained on"
    return ""


def _indexed(manifest: dict[str, Any]) -> dict[tuple[int, str], slice]:
    """Map (number, digest) of a shard to its rows in the index."""
    ends = np.cumsum([0, *manifest["parts"]["rows"]]).tolist()
    keys = zip(manifest["parts"]["numbers"], manifest["parts"]["digests"], strict=True)
    return {key: slice(ends[i], ends[i + 1]) for i, key in enumerate(keys)}


def take_over(job: BuildInProgress, old: Generation) -> ModalityMean:
    """Copy the trained parts, codes and store of the old index into the build folder; return its mean."""
    mean = read_mean(old.folder, job.table.modality)
    assert mean is not None
    if not (job.folder / READY).exists():
        old_rows = [_indexed(old.manifest).get((part.number, part.digest)) for part in job.table.parts]
        _take_over_lists(job, old, old_rows)
        stored = _take_over_store(job, old, old_rows)
        write_json(job.folder / LEARNT, old.manifest["learnt"])
        write_json(job.folder / STORE_STATE, {"parts": stored})
        write_json(job.folder / READY, {"from": old.manifest["vectors_digest"]})
    return mean


def _take_over_lists(job: BuildInProgress, old: Generation, old_rows: list[slice | None]) -> None:
    """Copy the codes of the shards that are kept, and the trained index without vectors."""
    lists = InvertedLists.load(old.folder / FAISS_FILE)
    codes = lists.codes_by_row()
    for number, rows in enumerate(old_rows):
        if rows is not None and rows.stop > rows.start:
            with whole_file(codes_path(job.folder, number)) as temporary, open(temporary, "wb") as handle:
                np.save(handle, codes[rows])
    lists.empty()
    with whole_file(job.folder / TRAINED) as temporary:
        lists.save(temporary)


def _take_over_store(job: BuildInProgress, old: Generation, old_rows: list[slice | None]) -> int:
    """Reuse the store of the leading shards whose rows do not move; return their number.

    It is the same file, extended at its end.

    The old index maps only its own rows, so it does not see appended ones.
    """
    table = job.table
    stay = 0
    while stay < len(old_rows) and old_rows[stay] == table.part_rows(stay):
        stay += 1
    target = job.folder / STORE
    for path in (target, sums_path(target)):
        path.unlink(missing_ok=True)
    whole_prefix = int(table.offsets[stay]) == old.manifest["rows"]
    if whole_prefix:
        try:
            os.link(old.folder / STORE, target)
        except OSError:
            shutil.copyfile(old.folder / STORE, target)
        if sums_path(old.folder / STORE).exists():
            shutil.copyfile(sums_path(old.folder / STORE), sums_path(target))
        return stay
    # a shard was removed or replaced: rows move, so the file is rewritten
    store = VectorStore(old.folder / STORE, old.manifest["rows"], table.dim)
    with open(target, "wb") as handle, open(sums_path(target), "wb") as sums:
        for number in range(len(old_rows)):
            rows = old_rows[number]
            if rows is None:
                return number
            for _, half in store.blocks(first=rows.start, last=rows.stop):
                handle.write(half.data)
                sums.write(row_sums(half).data)
    return len(old_rows)


def measure_drift(job: BuildInProgress, kept: ModalityMean, now: ModalityMean, old: Generation) -> Drift:
    """Drift of a random sample of the new vectors; call after the store is complete."""
    indexed = _indexed(old.manifest)
    slices = [job.table.part_rows(number) for number, part in enumerate(job.table.parts)
              if (part.number, part.digest) not in indexed]
    fresh = [np.arange(rows.start, rows.stop, dtype=np.int64) for rows in slices if rows.stop > rows.start]
    shift = float(np.linalg.norm(now.vector - kept.vector))
    if not fresh:
        return Drift(1.0, shift)
    candidates = np.concatenate(fresh)
    rng = np.random.default_rng([job.seed, 11])
    sample = np.sort(rng.choice(candidates, min(DRIFT_SAMPLE, len(candidates)), replace=False))
    lists = InvertedLists.load(job.folder / TRAINED)
    distance = lists.mean_distance(job.store.take(sample))
    return Drift(distance / max(old.manifest["learnt"]["list_distance"], 1e-12), shift)
