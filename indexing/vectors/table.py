"""Vectors of a model as one table over all shards, with a consecutive `row` number for every vector."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import pyarrow.parquet as pq

from specclip_search.atlas import Atlas, Part
from specclip_search.atlas.arrays import column_to_matrix
from specclip_search.atlas.files import text_digest
from specclip_search.errors import QueryError, VectorIndexError

from .float16 import to_single
from .index_folder import current_generation


class VectorTable:
    """Current vectors in `vectors/<model>/<modality>`; `row` counts over parts in order.

    Parameters
    ----------
    atlas, model, modality
        The vectors to open; `model` is a model name.

    Raises
    ------
    AtlasError
        If the vectors do not exist.
    VectorIndexError
        If no shard has a row, or the shards come from different models.
    """

    def __init__(self, atlas: Atlas, model: str, modality: str) -> None:
        self.stage = atlas.vectors(model, modality)
        self.model = model
        self.modality = modality
        self.parts = self.stage.parts()
        if not self.parts:
            raise self.stage.missing()
        if self.stage.partial is not None:
            self.parts = self._with_indexed(atlas, self.parts)
        self.offsets = np.concatenate([[0], np.cumsum([part.rows for part in self.parts], dtype=np.int64)])
        if not self.rows:
            raise VectorIndexError(
                f"The {modality} vectors of '{model}' are {len(self.parts)} shards without a row: "
                "every spectrum was rejected.",
                f"`specclip-search sql \"SELECT reason, count(*) FROM rejected_{modality} GROUP BY 1\"` says why.",
            )

    def _with_indexed(self, atlas: Atlas, parts: list[Part]) -> list[Part]:
        """The parts, and those of missing shards that the index holds: it can be searched without them.

        Their rows keep their numbers; reading one from its shard is an error that names it.
        """
        try:
            generation = current_generation(atlas, self.model, self.modality)
        except VectorIndexError:
            return parts
        indexed = {} if generation is None else generation.manifest.get("parts", {})
        there = {part.number: part for part in parts}
        columns = [indexed.get(name, []) for name in ("numbers", "rows", "digests")]
        whole = [
            there.get(number) or Part(number, self.stage.parquet_path(number), rows, digest, inputs="")
            for number, rows, digest in zip(*columns, strict=True)
        ]
        same = [part.digest for part in whole] == columns[2] and set(there) <= {part.number for part in whole}
        return whole if same else parts

    @property
    def rows(self) -> int:
        return int(self.offsets[-1])

    @cached_property
    def digest(self) -> str:
        """Digest of the stage, for the parts listed when this table was opened."""
        return text_digest(*(f"{part.number}:{part.digest}" for part in self.parts))

    @cached_property
    def model_digest(self) -> str:
        """Digest of the weights that produced the vectors."""
        found = sorted({str(part.extra.get("model_digest", "")) for part in self.parts if part.inputs})
        if len(found) > 1:
            raise VectorIndexError(
                f"The {self.modality} vectors of '{self.model}' come from {len(found)} different models "
                f"({', '.join(digest[:19] for digest in found)}); they cannot be compared.",
                "Run `specclip-search embed` again; it replaces the vectors of older weights.",
            )
        return found[0]

    @cached_property
    def dim(self) -> int:
        return int(pq.read_schema(self.parts[0].path).field("vector").type.list_size)

    def part_rows(self, number: int) -> slice:
        """Rows of the `number`-th part in the list (not its file number)."""
        return slice(int(self.offsets[number]), int(self.offsets[number + 1]))

    def part_batches(self, part: Part, batch_rows: int = 8192) -> Iterator[np.ndarray]:
        """Vectors of one part as (n, dim) float16, in order."""
        for batch in pq.ParquetFile(part.path).iter_batches(batch_rows, columns=["vector"]):
            yield column_to_matrix(batch.column(0))

    def batches(self, batch_rows: int = 8192) -> Iterator[tuple[int, np.ndarray]]:
        """First row and (n, dim) float16 vectors, over all parts in order."""
        row = 0
        for part in self.parts:
            for matrix in self.part_batches(part, batch_rows):
                yield row, matrix
                row += len(matrix)

    def read_rows(self, rows: np.ndarray) -> np.ndarray:
        """Vectors as stored, (len(rows), dim) float32; reads only the row groups that hold them."""
        wanted = self.checked_rows(rows)
        out = np.empty((len(wanted), self.dim), np.float32)
        order = np.argsort(wanted, kind="stable")
        owners = np.searchsorted(self.offsets, wanted[order], side="right") - 1
        for number in np.unique(owners):
            chosen = order[owners == number]
            out[chosen] = _read_from_part(self.parts[number], wanted[chosen] - self.offsets[number])
        return out

    def checked_rows(self, rows: np.ndarray) -> np.ndarray:
        """`rows` as int64; QueryError if one is outside the table."""
        wanted = np.asarray(rows)
        if wanted.size and not np.issubdtype(wanted.dtype, np.integer):
            raise QueryError(f"Rows must be integers; found {wanted.dtype}.", "Give int64 row numbers.")
        wanted = wanted.astype(np.int64, copy=False).reshape(-1)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= self.rows):
            raise QueryError(
                f"Rows must lie between 0 and {self.rows - 1}; found {wanted.min()} to {wanted.max()}.",
                "Take rows from a search or from the key table of this atlas.",
            )
        return wanted


def _read_from_part(part: Part, local: np.ndarray) -> np.ndarray:
    """Rows `local` (ascending) of one shard, float32."""
    file = pq.ParquetFile(part.path)
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
    starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    groups = np.searchsorted(starts, local, side="right") - 1
    pieces = []
    for group in np.unique(groups):
        matrix = column_to_matrix(file.read_row_group(int(group), columns=["vector"]).column(0))
        pieces.append(matrix[local[groups == group] - starts[group]])
    return to_single(np.concatenate(pieces))
