"""What one file may take: time between two of its spectra, and memory of the process that reads it."""

from __future__ import annotations

import mmap
import os
import signal
import struct
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

FILE_SECONDS = 120.0
FILE_MEMORY = 4 << 30
_SLOT = struct.Struct("<qqq")
_SLOTS = 1 << 20


class TooLong(BaseException):
    """The time is up. No `Exception`: readers that swallow every error of a damaged file must not swallow it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TooLong` in the body after `seconds`.

    It needs the main thread and a free alarm, as a worker process has; elsewhere the body is not limited.
    """
    free = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if not free or signal.getitimer(signal.ITIMER_REAL)[0]:
        yield
        return

    def ring(*_: Any) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, ring)
    try:
        # again every second, in case the first one comes where it cannot be raised
        signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def limit_memory(extra: int = FILE_MEMORY) -> None:
    """Let this process take `extra` bytes more than it has; beyond, Python raises MemoryError."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + extra
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        if hard == resource.RLIM_INFINITY or limit < hard:
            resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


class Marks:
    """A small shared file in which each worker says which file of which part it reads.

    It outlives a worker that the system killed, so that the file at fault can be named.
    """

    def __init__(self, path: str | None = None) -> None:
        self._own = path is None
        if path is None:
            descriptor, path = tempfile.mkstemp(prefix="specclip-marks-")
            os.ftruncate(descriptor, _SLOTS * _SLOT.size)  # a hole: it takes no room on the disk
            os.close(descriptor)
        self.path = path
        with open(path, "r+b") as handle:
            self._map = mmap.mmap(handle.fileno(), 0)

    def set(self, part: int, file: int, step: int) -> None:
        """Say that this process reads file number `file` of a part, and is at its spectrum `step`."""
        if part < _SLOTS:
            _SLOT.pack_into(self._map, part * _SLOT.size, file + 1, step, os.getpid())

    def get(self, part: int) -> tuple[int, int, int]:
        """File number (-1: none begun), step and process of a part."""
        if part >= _SLOTS:
            return -1, 0, 0
        file, step, process = _SLOT.unpack_from(self._map, part * _SLOT.size)
        return file - 1, step, process

    def clear(self, part: int) -> None:
        """Forget what was said of a part."""
        if part < _SLOTS:
            _SLOT.pack_into(self._map, part * _SLOT.size, 0, 0, 0)

    def close(self) -> None:
        """Close the file; the one who made it removes it."""
        self._map.close()
        if self._own:
            Path(self.path).unlink(missing_ok=True)
