"""The re-ranking store: every centred unit vector in float16, in row order, in one binary file."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

import numpy as np

from specclip_search.errors import VectorIndexError

from ..vectors.float16 import convert_into, to_half, to_single
from .exact import Block

_MAPPED_BUDGET_BYTES = 2 << 30
_PAGES_AROUND_A_FAULT = 65536
_SCRATCH_ROWS = 64


class VectorStore:
    """(rows, dim) float16 in a file: single rows through a memory map, scans by sequential reads.

    Scans bypass the map, and the map's pages are released regularly, so that
    resident memory stays small for any file size; the page cache still holds the data.
    """

    def __init__(self, path: Path, rows: int, dim: int) -> None:
        self.path = path
        self.rows = rows
        self.dim = dim
        self._row_bytes = 2 * dim
        size = path.stat().st_size if path.exists() else -1
        if size < rows * self._row_bytes:
            found = "no file" if size < 0 else f"{size} bytes"
            raise VectorIndexError(
                f"The store {path} must hold {rows} vectors of {dim} numbers ({rows * self._row_bytes} bytes); "
                f"found {found}.",
                "Run `specclip-search index build --fresh` to rebuild it from the vectors.",
            )
        with open(path, "rb") as handle:
            self._map = mmap.mmap(handle.fileno(), rows * self._row_bytes, access=mmap.ACCESS_READ)
        if hasattr(self._map, "madvise") and hasattr(mmap, "MADV_RANDOM"):
            self._map.madvise(mmap.MADV_RANDOM)
        self._matrix = np.frombuffer(self._map, np.float16).reshape(rows, dim)
        self._touched = 0
        self._local = threading.local()

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Vectors of `rows`, (n, dim) float32."""
        self._give_back(len(rows))
        return to_single(self._matrix[rows])

    def scores(self, rows: np.ndarray, query: np.ndarray) -> np.ndarray:
        """Inner products of `rows` with one query (dim,), (n,) float32, for re-ranking.

        Processes a few rows at a time in buffers that fit into the CPU cache.
        """
        self._give_back(len(rows))
        half, bits, single = self._scratch_arrays()
        out = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), _SCRATCH_ROWS):
            chosen = rows[start : start + _SCRATCH_ROWS]
            count = len(chosen)
            np.take(self._matrix, chosen, axis=0, out=half[:count], mode="clip")
            convert_into(half[:count], bits[:count], single[:count])
            np.dot(single[:count], query, out=out[start : start + count])
        return out

    def _scratch_arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Buffers of this thread, allocated once."""
        if not hasattr(self._local, "arrays"):
            shape = (_SCRATCH_ROWS, self.dim)
            self._local.arrays = (np.empty(shape, np.float16), np.empty(shape, np.int32), np.empty(shape, np.float32))
        return self._local.arrays

    def blocks(self, block_rows: int = 16384, first: int = 0, last: int | None = None) -> Iterator[Block]:
        """All rows from `first` to `last` (exclusive), in order, read one block at a time."""
        last = self.rows if last is None else last
        buffer = np.empty((block_rows, self.dim), np.float16)
        with open(self.path, "rb", buffering=0) as handle:
            handle.seek(first * self._row_bytes)
            for start in range(first, last, block_rows):
                block = buffer[: min(block_rows, last - start)]
                _read_fully(handle, block)
                yield np.arange(start, start + len(block), dtype=np.int64), block

    def blocks_of(self, rows: np.ndarray, block_rows: int = 4096) -> Iterator[Block]:
        """Given rows (ascending), one block at a time."""
        for start in range(0, len(rows), block_rows):
            chosen = rows[start : start + block_rows]
            yield chosen, self.take(chosen)

    def _give_back(self, rows: int) -> None:
        """Drop the map's pages from resident memory once enough of them have been touched."""
        self._touched += rows * max(_PAGES_AROUND_A_FAULT, self._row_bytes)
        if self._touched > _MAPPED_BUDGET_BYTES < self.rows * self._row_bytes:
            if hasattr(self._map, "madvise") and hasattr(mmap, "MADV_DONTNEED"):
                self._map.madvise(mmap.MADV_DONTNEED)
            self._touched = 0


class StoreWriter:
    """Appends centred vectors to a store file; they are safely on disk after `sync`."""

    def __init__(self, path: Path, dim: int, rows: int = 0) -> None:
        self._handle = open(path, "ab")  # noqa: SIM115 - closed by close()
        self._handle.truncate(rows * 2 * dim)
        self._handle.seek(0, os.SEEK_END)
        self.rows = rows

    def append(self, centred: np.ndarray) -> None:
        """Add (n, dim) float32 vectors."""
        self._handle.write(np.ascontiguousarray(to_half(centred)).data)
        self.rows += len(centred)

    def sync(self) -> None:
        self._handle.flush()
        os.fsync(self._handle.fileno())

    def close(self) -> None:
        self.sync()
        self._handle.close()


def _read_fully(handle: FileIO, block: np.ndarray) -> None:
    view = memoryview(block.view(np.uint8).reshape(-1).data)
    while len(view):
        count = handle.readinto(view)
        if not count:
            raise VectorIndexError("The store of vectors ended early.", "Run `specclip-search index build` again.")
        view = view[count:]
