"""Estimated and measured cost of a build: time, memory and disk space.

Estimates are made before the build starts, from scaling relations measured on two cores.
"""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from specclip_search.errors import VectorIndexError

from ..search.recipe import IndexRecipe

_ROW_OVERHEAD_BYTES = 8
_KEY_BYTES = 42
_WORKING_BYTES = 700 << 20
"""Libraries, buffers and the exact search used to measure recall."""
_QUERY_ROWS = 2_000_000_000
_FLOPS_A_CORE = 30e9
_SUFFIXES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True, slots=True)
class Estimate:
    """Estimated memory, disk space and CPU time of a build and of the resulting index.

    Attributes
    ----------
    build_memory, search_memory
        Private bytes while building and while open. Cached pages of the memory-mapped store
        are extra, up to 2 GB; the system can reclaim them at any time.
    disk
        Bytes of the finished index.
    build_disk
        Bytes while building: codes are kept in files until they are added to the lists.
    cpu_seconds
        CPU seconds on one average core.
    bytes_a_vector
        Resident bytes per vector while open.
    """

    build_memory: int
    search_memory: int
    disk: int
    cpu_seconds: float
    bytes_a_vector: float
    build_disk: int


def estimate(recipe: IndexRecipe, rows: int, dim: int) -> Estimate:
    """Memory, disk and time of building `recipe` over `rows` vectors."""
    store = 2 * rows * dim
    keys = _KEY_BYTES * rows
    sorting = 24 * rows
    stream_seconds = 4e-9 * rows * dim
    judging = _judging_seconds(rows, dim, 2.0 if recipe.kind == "flat" else 4.5)
    if recipe.kind == "flat":
        cached = 4 * rows * dim if rows * dim * 4 <= 1 << 29 else 0
        seconds = stream_seconds + judging
        return Estimate(_WORKING_BYTES + keys + sorting, cached, store + keys, seconds, cached / max(rows, 1),
                        store + keys)
    codes = rows * (recipe.pq + _ROW_OVERHEAD_BYTES)
    centroids = recipe.nlist * (4 * recipe.pca + (280 if recipe.hnsw else 0))
    sample = recipe.training_rows(rows)
    training = sample * recipe.pca * 8 + min(sample, 100_000) * dim * 4
    resident = codes + centroids + 4 * dim * recipe.pca + recipe.pca * 1024
    # lists grow by doubling, so in the worst case 50 % more than needed is reserved
    peak = _WORKING_BYTES + max(training, int(codes * 1.5) + keys, codes + keys + sorting)
    seconds = stream_seconds + judging + _training_seconds(recipe, sample) + rows * _adding_seconds(recipe)
    finished = store + keys + resident
    return Estimate(peak, resident, finished, seconds, resident / rows, finished + codes + centroids)


def group_size(rows: int) -> int:
    """Number of queries per group for measuring recall: 500, fewer if exact search over all rows is expensive."""
    return int(np.clip(_QUERY_ROWS // max(rows, 1), 200, 500))


def _judging_seconds(rows: int, dim: int, groups: float) -> float:
    """Seconds for exact search of about `groups` query groups and for the gain of centring."""
    return groups * min(group_size(rows), rows) * rows * dim * 2 / _FLOPS_A_CORE


def _training_seconds(recipe: IndexRecipe, sample: int) -> float:
    """Coarse k-means: iterations x sample x lists x dimensions, at the measured assignment rate."""
    coarse = recipe.iterations * sample * 3.1e-6 * recipe.nlist / 1000 * recipe.pca / 128
    codebooks = 7 * recipe.pq / 64 * recipe.pq_iterations / 8 * min(sample, recipe.pq_sample) / 16384
    return coarse + codebooks


def _adding_seconds(recipe: IndexRecipe) -> float:
    """Seconds to assign and encode one vector; a graph over the centroids halves the assignment."""
    assign = 3.1e-6 * recipe.nlist / 1000 * recipe.pca / 128
    return (assign / 2 if recipe.hnsw else assign) + 5e-6 * recipe.pq / 64


def parse_memory(text: str | int | None) -> int | None:
    """`4G`, `800M` or a number of bytes as bytes; None stays None.

    Raises
    ------
    VectorIndexError
        If the text is not a size.
    """
    if text is None or isinstance(text, int):
        return text
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise VectorIndexError(f"'{text}' is not an amount of memory.", "Write it as 4G, 800M or a number of bytes.")
    return int(float(match[1]) * _SUFFIXES[match[2].upper()])


def written_bytes(count: float) -> str:
    """Human-readable size: 1.4 GB, 300 MB."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}" if count < 10 * size else f"{count / size:.0f} {unit}"
    return f"{count:.0f} B"


def refuse_what_cannot_fit(needs: Estimate, recipe: IndexRecipe, folder: Path, memory: int | None) -> None:
    """Raise if memory or disk space is insufficient for a build.

    Raises
    ------
    VectorIndexError
        If there is not enough memory or disk space; the message gives the missing amount.
    """
    allowed = available_memory() if memory is None else memory
    if allowed is not None and needs.build_memory > allowed:
        raise VectorIndexError(
            f"Building {recipe} needs {written_bytes(needs.build_memory)} of memory; {written_bytes(allowed)} are "
            f"{'available' if memory is None else 'allowed'}: "
            f"{written_bytes(needs.build_memory - allowed)} are missing.",
            "Give more with --memory"
            + ("." if recipe.kind == "flat" else ", or use a smaller recipe (fewer PQ bytes or PCA dimensions)."),
        )
    free = shutil.disk_usage(_existing(folder)).free
    if needs.build_disk > free:
        raise VectorIndexError(
            f"Building {recipe} needs {written_bytes(needs.build_disk)} of disk in {folder}; "
            f"{written_bytes(free)} are free: {written_bytes(needs.build_disk - free)} are missing.",
            "Free some space or move the atlas to a larger disk.",
        )


def available_memory() -> int | None:
    """Bytes available to a new process, None if unknown."""
    try:
        with open("/proc/meminfo", encoding="ascii") as handle:
            for line in handle:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder


class Meter:
    """Wall and CPU seconds per step and in total since creation; CPU seconds include all threads of the process."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}
        self._started = time.perf_counter()
        self._cpu = time.process_time()

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        started, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.seconds[step] = round(self.seconds.get(step, 0.0) + time.perf_counter() - started, 3)
            self.cpu_seconds[step] = round(self.cpu_seconds.get(step, 0.0) + time.process_time() - cpu, 3)

    def total(self) -> float:
        return round(time.perf_counter() - self._started, 3)

    def cpu(self) -> float:
        return round(time.process_time() - self._cpu, 3)


def peak_memory() -> int:
    """Peak resident bytes of this process; 0 if unknown."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
