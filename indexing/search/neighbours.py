"""The neighbour graph: nearest neighbours of every vector in its instrument, shard by shard."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from specclip_search.atlas import Atlas, Part, Stage
from specclip_search.atlas.arrays import table_from_columns
from specclip_search.atlas.files import text_digest
from specclip_search.atlas.schemas import RELEASE, SPEC_ID, described
from specclip_search.errors import QueryError
from specclip_search.progress import Progress
from specclip_search.stages.run import Made, Shard, run_stage
from specclip_search.surveys import XP

from ..vectors.table import VectorTable
from .index import VectorIndex

BATCH_ROWS = 1024
MAX_NEIGHBOURS = 1000


@dataclass(frozen=True, slots=True)
class GraphReport:
    """Report of a neighbour run.

    Attributes
    ----------
    model, modality, k
        The graph.
    rows
        Total number of vectors with neighbours.
    searched
        Vectors searched in this run.
    parts_written, parts_current, parts_removed
        Shards written, already up to date, and removed because their vectors no longer exist.
    seconds
        Wall time.
    """

    model: str
    modality: str
    k: int
    rows: int
    searched: int
    parts_written: int
    parts_current: int
    parts_removed: int
    seconds: float

    def __str__(self) -> str:
        return (f"{self.k} neighbours of {self.rows:,} {self.modality} spectra; {self.searched:,} searched in "
                f"{self.seconds:.1f} s, {self.parts_current} shards were up to date")


def neighbour_stage(atlas: Atlas, model: str, modality: str) -> Stage:
    """The stage that holds the graph: one shard per shard of vectors, in the same order."""
    folder = atlas.path / "results" / "neighbours" / atlas.require_model(model) / modality
    return atlas.stage(folder, f"neighbours of {modality} vectors of '{model}'")


def neighbour_schema(k: int) -> pa.Schema:
    """Columns of the graph."""
    return pa.schema([
        SPEC_ID, RELEASE, described("row", pa.int64(), "row of the vector in the index"),
        described("neighbour_row", pa.list_(pa.int64(), k), "rows of the nearest others, nearest first; -1 for none"),
        described("neighbour_spec_id", pa.list_(pa.int64(), k), "keys of those spectra; -1 for none"),
        described("similarity", pa.list_(pa.float32(), k), "cosine of the centred vectors; NaN for none"),
    ])


def neighbours(atlas: Atlas, model: str | None = None, modality: str = XP, k: int = 32, *,
               device: str = "auto", progress: Progress | None = None) -> GraphReport:
    """Find the k nearest others of every vector; a killed run continues, a current one does nothing.

    Memory is bounded by a batch of queries and the open index.

    Parameters
    ----------
    device
        Where searches run; see `VectorIndex.open`.

    Raises
    ------
    QueryError
        If k is not between 1 and 1000.
    VectorIndexError
        If these vectors have no index.
    """
    if not 1 <= k <= MAX_NEIGHBOURS:
        raise QueryError(f"The graph takes 1 to {MAX_NEIGHBOURS} neighbours per star; found k = {k}.", "Use 32.")
    started = time.perf_counter()
    index = VectorIndex.open(atlas, model, modality, device=device)
    table = VectorTable(atlas, index.model, modality)
    stage = neighbour_stage(atlas, index.model, modality)
    shards = [Shard(part.number, graph_inputs(index, part, k), part.rows, number)
              for number, part in enumerate(table.parts)]
    extra = {"model_digest": index.model_digest, "vectors_digest": index.digest, "k": k}

    def make(number: int) -> Made:
        part = table.parts[number]
        batches = _searched_batches(index, part, table.part_rows(number), k)
        return Made(batches, neighbour_schema(k), extra, part.rows)

    with stage.lock():
        run = run_stage(stage, shards, make, progress=progress, note="neighbours")
    return GraphReport(index.model, modality, k, table.rows, sum(run.accounts), run.written, run.current, run.removed,
                       round(time.perf_counter() - started, 3))


def graph_inputs(index: VectorIndex, part: Part, k: int) -> str:
    """Digest of all inputs of a shard of the graph."""
    return text_digest("neighbours 1", index.digest, str(index.manifest["recipe"]["factory"]),
                       str(index.manifest["seed"]), str(index.tuned_nprobe), str(index.tuned_rerank),
                       str(part.number), str(k))


def _searched_batches(index: VectorIndex, part: Part, rows: slice, k: int) -> Iterator[pa.Table]:
    """Neighbours of one shard's vectors, one batch at a time."""
    schema = neighbour_schema(k)
    names = pq.ParquetFile(part.path).read(columns=["spec_id", "release"])
    for start in range(rows.start, rows.stop, BATCH_ROWS):
        chosen = np.arange(start, min(start + BATCH_ROWS, rows.stop), dtype=np.int64)
        found = index.search(index.vectors(chosen), k, query_modality=index.modality, exclude=chosen[:, None],
                             centred=True)
        ids = np.where(found.rows >= 0, index.keys.spec_id[np.maximum(found.rows, 0)], -1)
        local = names.slice(start - rows.start, len(chosen))
        yield table_from_columns(
            {"spec_id": local.column("spec_id"), "release": local.column("release"), "row": chosen,
             "neighbour_row": found.rows, "neighbour_spec_id": ids, "similarity": found.similarity}, schema)


