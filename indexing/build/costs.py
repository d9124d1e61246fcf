"""What a build will need, told before it starts, from cost laws measured on two cores.

Time, memory and disk that a step really took.
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

from ..search.recipe import Recipe

_ROW_OVERHEAD_BYTES = 8
_KEY_BYTES = 42
_WORKING_BYTES = 700 << 20
"""Libraries, buffers and the exact search that recall is measured against."""
_QUERY_ROWS = 2_000_000_000
_FLOPS_A_CORE = 30e9
_SUFFIXES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes and CPU seconds of a build, and what the index then costs.

    Attributes
    ----------
    build_memory, search_memory
        Bytes of its own while building and while open. Pages of the mapped store that are in
        memory anyway come on top, up to 2 GB; the system takes them back at will.
    disk
        Bytes of the finished index.
    build_disk
        Bytes while building: codes lie beside the store until they are in their lists.
    cpu_seconds
        Of one average core.
    bytes_a_vector
        Resident bytes a vector while open.
    """

    build_memory: int
    search_memory: int
    disk: int
    cpu_seconds: float
    bytes_a_vector: float
    build_disk: int


def estimate(recipe: Recipe, rows: int, dim: int) -> Estimate:
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
    # filling the lists grows them by doubling, so at the worst half as much again is reserved
    peak = _WORKING_BYTES + max(training, int(codes * 1.5) + keys, codes + keys + sorting)
    seconds = stream_seconds + judging + _training_seconds(recipe, sample) + rows * _adding_seconds(recipe)
    finished = store + keys + resident
    return Estimate(peak, resident, finished, seconds, resident / rows, finished + codes + centroids)


def group_size(rows: int) -> int:
    """Queries of one kind that recall is measured with: 500, fewer where exact answers over all rows are dear."""
    return int(np.clip(_QUERY_ROWS // max(rows, 1), 200, 500))


def _judging_seconds(rows: int, dim: int, groups: float) -> float:
    """Exact answers for about `groups` kinds of queries, and the gain of centring: matrix products over all rows."""
    return groups * min(group_size(rows), rows) * rows * dim * 2 / _FLOPS_A_CORE


def _training_seconds(recipe: Recipe, sample: int) -> float:
    """Coarse k-means: iterations x sample x lists x dimensions, at the assignment's measured rate."""
    coarse = recipe.iterations * sample * 3.1e-6 * recipe.nlist / 1000 * recipe.pca / 128
    codebooks = 7 * recipe.pq / 64 * recipe.pq_iterations / 8 * min(sample, recipe.pq_sample) / 16384
    return coarse + codebooks


def _adding_seconds(recipe: Recipe) -> float:
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
    """Bytes for people: 1.4 GB, 300 MB."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}" if count < 10 * size else f"{count / size:.0f} {unit}"
    return f"{count:.0f} B"


def refuse_what_cannot_fit(needs: Estimate, recipe: Recipe, folder: Path, memory: int | None) -> None:
    """Stop before work that cannot end well.

    Raises
    ------
    VectorIndexError
        If memory or disk do not suffice; the missing number is named.
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
    """Bytes the system could give to a new process, None where it does not tell."""
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
    """Wall and CPU seconds by step, and of all since it was made; CPU seconds of all threads of the process."""

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
    """Largest resident bytes this process ever had; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
