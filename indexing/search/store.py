"""The re-ranking store: every centred unit vector in float16, in row order, in one plain file.

Beside it lies a checksum a row, which is compared when a row is first read: a file of many gigabytes cannot be read
whole when it is opened, and a flipped bit in it would change similarities without a word.
"""

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
SUMS = "store.sums"
# odd factors of the numbers of a row: a change of any one number always changes the sum
_FACTORS = (np.random.default_rng(20240229).integers(0, 2**31, 4096, dtype=np.uint32) << np.uint32(1)) | np.uint32(1)


def row_sums(matrix: np.ndarray) -> np.ndarray:
    """(n,) uint32 checksums of (n, dim) float16 rows: their bits times fixed odd factors, summed modulo 2**32."""
    bits = np.ascontiguousarray(matrix).view(np.uint16)
    factors = np.resize(_FACTORS, bits.shape[1])
    out = np.empty(len(bits), np.uint32)
    for start in range(0, len(bits), _SCRATCH_ROWS):
        block = bits[start : start + _SCRATCH_ROWS].astype(np.uint32)
        np.multiply(block, factors, out=block)
        out[start : start + _SCRATCH_ROWS] = block.sum(axis=1, dtype=np.uint32)
    return out


def sums_path(store: Path) -> Path:
    """Where the checksums of a store's rows lie."""
    return store.with_name(SUMS)


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
        # an index of an older version has no checksums, and is read as it is
        sums = sums_path(path)
        have = sums.exists() and sums.stat().st_size >= 4 * rows
        self._sums = np.memmap(sums, np.uint32, "r", shape=(rows,)) if have and rows else None
        self._seen = np.full(rows, self._sums is None)

    def _verify(self, rows: np.ndarray) -> None:
        """Compare the checksums of rows that were not read before."""
        new = rows[~self._seen[rows]]
        for start in range(0, len(new), 4096):
            chosen = new[start : start + 4096]
            self._compare(chosen, self._matrix[chosen])

    def _compare(self, rows: np.ndarray, matrix: np.ndarray) -> None:
        assert self._sums is not None
        wrong = np.flatnonzero(row_sums(matrix) != self._sums[rows])
        if len(wrong):
            raise VectorIndexError(
                f"{self.path} is damaged: vector {int(rows[wrong[0]])} is not the one that was written"
                + (f", nor are {len(wrong) - 1} others" if len(wrong) > 1 else "") + ".",
                "Run `specclip-search index build --fresh`; it is rebuilt from the vectors.",
            )
        self._seen[rows] = True

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Vectors of `rows`, (n, dim) float32."""
        self._give_back(len(rows))
        self._verify(rows)
        return to_single(self._matrix[rows])

    def scores(self, rows: np.ndarray, query: np.ndarray) -> np.ndarray:
        """Inner products of `rows` with one query (dim,), (n,) float32, for re-ranking.

        Processes a few rows at a time in buffers that fit into the CPU cache.
        """
        self._give_back(len(rows))
        self._verify(rows)
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
                here = np.arange(start, start + len(block), dtype=np.int64)
                if not self._seen[start : start + len(block)].all():
                    self._compare(here, block)
                yield here, block

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
        self._sums = open(_whole_sums(path, dim, rows), "ab")  # noqa: SIM115 - closed by close()
        self._handle = open(path, "ab")  # noqa: SIM115 - closed by close()
        for handle, size in ((self._handle, 2 * dim), (self._sums, 4)):
            handle.truncate(rows * size)
            handle.seek(0, os.SEEK_END)
        self.rows = rows

    def append(self, centred: np.ndarray) -> None:
        """Add (n, dim) float32 vectors."""
        half = np.ascontiguousarray(to_half(centred))
        self._handle.write(half.data)
        self._sums.write(row_sums(half).data)
        self.rows += len(centred)

    def sync(self) -> None:
        for handle in (self._handle, self._sums):
            handle.flush()
            os.fsync(handle.fileno())

    def close(self) -> None:
        self.sync()
        self._handle.close()
        self._sums.close()


def _whole_sums(store: Path, dim: int, rows: int) -> Path:
    """The file of checksums, with those of the rows that stand already; computed where an older version kept none."""
    path = sums_path(store)
    if rows and (not path.exists() or path.stat().st_size < 4 * rows):
        path.unlink(missing_ok=True)
        sums = [row_sums(block) for _, block in VectorStore(store, rows, dim).blocks()]
        path.write_bytes(np.concatenate(sums).tobytes())
    return path


def _read_fully(handle: FileIO, block: np.ndarray) -> None:
    view = memoryview(block.view(np.uint8).reshape(-1).data)
    while len(view):
        count = handle.readinto(view)
        if not count:
            raise VectorIndexError("The store of vectors ended early.", "Run `specclip-search index build` again.")
        view = view[count:]
