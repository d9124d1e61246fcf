"""Statements of strangers: checked, and run where they can hurt nobody."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from specclip_search.errors import QueryError

from .sandbox_worker import READY, Limits, request_line

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas

    from ..views.connection import Parameters

# time that a worker has beyond the statement's own to notice that it should stop, and to get ready
_GRACE_S = 2.0
_START_S = 30.0
_LONGEST_MESSAGE = 360
_NO_MEMORY = re.compile(r"allocat|out of memory|bad_alloc|failed to offload", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows of a stranger's statement.

    Attributes
    ----------
    table
        At most as many rows as the limit.
    truncated
        Whether there were more.
    """

    table: pa.Table
    truncated: bool


class Sandbox:
    """Runs strangers' statements in a process of its own, one at a time.

    A statement must be one SELECT over the atlas's views; files, network, settings, extensions
    and functions that tell of the process are shut out; memory, time and rows are capped. A
    statement that breaks through its caps, or uses up its process's memory, costs that process,
    which is replaced for the next.

    Parameters
    ----------
    atlas
        Atlas to ask.
    limits
        Caps of each statement.
    """

    def __init__(self, atlas: Atlas, limits: Limits | None = None) -> None:
        self.atlas = atlas
        self.limits = limits or Limits()
        self._worker: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def run(self, statement: str, parameters: Parameters = None) -> Answer:
        """Run one statement.

        Raises
        ------
        QueryError
            If the statement is not allowed, wrong, or beyond its caps; one clear line says which.
        """
        plain = _plain_parameters(parameters)
        with self._lock:
            where, partial = str(self.atlas.path.resolve()), self.atlas.allow_partial
            head, payload = self._ask(request_line(where, statement, plain, self.limits, partial))
        if "error" in head:
            message = head["error"]
            if "Interrupted" in message or "INTERRUPT" in message:
                raise _too_slow(self.limits.seconds)
            if _NO_MEMORY.search(message):
                raise QueryError("The statement needs more memory than it may have.", "Ask for less at once.")
            raise QueryError(_without_paths(message, self.atlas.path), head.get("hint", ""))
        return Answer(pa.ipc.open_stream(payload).read_all(), bool(head["truncated"]))

    def _ask(self, request: bytes) -> tuple[dict[str, Any], bytes]:
        worker = self._worker if self._worker is not None and self._worker.poll() is None else self._start()
        late, head, payload = self._exchange(worker, request, self.limits.seconds + _GRACE_S)
        if head is not None and head.get("spent"):
            self.close()
        if head is None or len(payload) != head["bytes"]:
            self.close()
            if late:
                raise _too_slow(self.limits.seconds)
            raise QueryError(
                "The statement needs more memory than it may have, or ended its process otherwise.",
                "Ask for less at once.",
            )
        return head, payload

    @staticmethod
    def _exchange(
        worker: subprocess.Popen[bytes], request: bytes, seconds: float
    ) -> tuple[bool, dict[str, Any] | None, bytes]:
        """Whether the worker was killed for being late; the head of its answer, if any; the rest."""
        assert worker.stdin is not None
        assert worker.stdout is not None
        with _deadline(worker, seconds) as late:
            try:
                worker.stdin.write(request)
                worker.stdin.flush()
                line = worker.stdout.readline()
                head = json.loads(line) if line.endswith(b"\n") else None
                return late.is_set(), head, worker.stdout.read(head["bytes"]) if head else b""
            except OSError:
                return late.is_set(), None, b""

    def _start(self) -> subprocess.Popen[bytes]:
        """A worker that inherits neither secrets nor threads from the server's environment, ready for requests."""
        kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT", "LD_LIBRARY_PATH", "SPECCLIP_TEST_DATA")
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        environment |= {
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            "OMP_NUM_THREADS": str(self.limits.threads),
            "OPENBLAS_NUM_THREADS": "1",
            # Arrow's own pool would set 1 GB of the allowance aside before any is needed
            "ARROW_DEFAULT_MEMORY_POOL": "system",
        }
        self.close()
        worker = self._worker = subprocess.Popen(
            # -P: modules that happen to lie in the server's working folder are not run
            [sys.executable, "-P", "-m", "specclip_search.queries.sql.sandbox_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            close_fds=True,
        )
        assert worker.stdout is not None
        with _deadline(worker, _START_S):
            ready = worker.stdout.readline() == READY
        if not ready:
            self.close()
            raise QueryError(
                f"The process for statements did not start within {_START_S:g} s, or ended at once.",
                "Try again; `python -m specclip_search.queries.sql.sandbox_worker` says what is wrong.",
            )
        return worker

    def close(self) -> None:
        """End the worker."""
        if self._worker is not None:
            self._worker.kill()
            self._worker.wait()
            for pipe in (self._worker.stdin, self._worker.stdout):
                if pipe is not None:
                    pipe.close()
            self._worker = None

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def run_untrusted(
    atlas: Atlas, statement: str, parameters: Parameters = None, *, limits: Limits | None = None
) -> Answer:
    """Run one stranger's statement in a sandbox of its own; a server keeps a `Sandbox` instead."""
    with Sandbox(atlas, limits) as sandbox:
        return sandbox.run(statement, parameters)


@contextmanager
def _deadline(worker: subprocess.Popen[bytes], seconds: float) -> Iterator[threading.Event]:
    """Kill `worker` unless the block ends in time; the event tells that it was."""
    late = threading.Event()

    def stop() -> None:
        late.set()
        worker.kill()

    timer = threading.Timer(seconds, stop)
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()


def _plain_parameters(parameters: Parameters) -> Any:
    plain: Any = None if parameters is None else list(parameters)
    if isinstance(parameters, Mapping):
        plain = dict(parameters)
    try:
        json.dumps(plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise QueryError("Parameters must be numbers, text, booleans or null.", "Leave out other values.") from error
    return plain


def _too_slow(seconds: float) -> QueryError:
    return QueryError(f"The statement did not end within {seconds:g} s.", "Ask for less at once.")


def _without_paths(message: str, folder: Path) -> str:
    """A stranger need not learn where the atlas lies, nor read his own megabytes again."""
    message = " ".join(message.replace(str(folder.resolve()), "<atlas>").replace(str(folder), "<atlas>").split())
    return message if len(message) <= _LONGEST_MESSAGE else message[: _LONGEST_MESSAGE - 3] + "..."
