"""Time, memory and disk that a step really took."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
