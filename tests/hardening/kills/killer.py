"""Ends a process at the n-th operation on the files of an atlas, wherever in the code that is.

Python tells an audit hook of every file that it opens to write, renames, removes or makes, just before it does so. The
count does not depend on how fast the machine is, so a kill can be repeated. What libraries in C++ write between two
such operations is reached by the second way: the process ends after so much processor time.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

Victim = Literal["process", "group", "worker"]
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_EVENTS = {"os.rename": 2, "os.remove": 1, "os.rmdir": 1, "os.mkdir": 1, "os.link": 2, "os.truncate": 1}


class Killer:
    """Counts operations on files below `roots`; at number `at` it ends `victim` with SIGKILL."""

    def __init__(self, roots: Sequence[Path], at: int = 0, victim: Victim = "process", seed: int = 0) -> None:
        self.roots = tuple(str(root) for root in roots)
        self.at, self.victim, self.seed, self.count = at, victim, seed, 0

    def arm(self) -> None:
        """From now on; there is no way back."""
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            if not isinstance(arguments[2], int) or not arguments[2] & _WRITES:
                return
            paths = arguments[:1]
        elif event == "ctypes.dlopen":  # two folders are about to change places
            paths = self.roots[:1] if arguments[0] is None else ()
        elif event in _EVENTS:
            paths = arguments[: _EVENTS[event]]
        else:
            return
        if any(isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith(self.roots)
               for path in paths):
            self.count += 1
            if self.count == self.at:
                self._kill()

    def _kill(self) -> None:
        if self.victim == "worker":
            workers = children()
            if workers:
                os.kill(random.Random(self.seed).choice(workers), signal.SIGKILL)
            return
        os.kill(0 if self.victim == "group" else os.getpid(), signal.SIGKILL)


def children() -> list[int]:
    """Processes that this one has started and that still run; Linux alone tells."""
    found = []
    for task in Path("/proc/self/task").glob("*/children"):
        found += [int(word) for word in task.read_text(encoding="ascii").split()]
    return sorted(found)


def end_after(cpu_seconds: float) -> None:
    """End this process after so much processor time of its own."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, max(cpu_seconds, 1e-3))
