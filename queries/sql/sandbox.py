"""Sandbox for untrusted SQL: statements are checked and run in a restricted process."""

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

from .sandbox_worker import READY, RUNNING, Limits, request_line

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas

    from ..views.connection import Parameters

# extra time for a worker to stop after the statement's time limit; time to start, and time to open the atlas
# and check the statement, which do not count as the statement's: on a busy machine each may take long
_GRACE_S = 4.0
_START_S = 120.0
_LONGEST_MESSAGE = 360
_NO_MEMORY = re.compile(r"allocat|out of memory|bad_alloc|failed to offload", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows of an untrusted statement.

    Attributes
    ----------
    table
        The rows, at most as many as the limit.
    truncated
        Whether there were more.
    """

    table: pa.Table
    truncated: bool


class Sandbox:
    """Runs untrusted statements in a separate process, one at a time.

    A statement must be one SELECT over the atlas's views. Files, network, settings, extensions
    and functions that reveal the process are blocked; memory, time and rows are limited. A
    statement that exceeds its limits, or uses up its process's memory, ends that process,
    which is replaced for the next.

    Parameters
    ----------
    atlas
        Atlas to query.
    limits
        Limits of each statement.
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
            If the statement is not allowed, wrong, or exceeds its limits; a single line says which.
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
        late, head, payload = self._exchange(worker, request, self.limits.seconds)
        if head is not None and head.get("spent"):
            self.close()
        if head is None or len(payload) != head["bytes"]:
            self.close()
            if late is not None:
                raise _too_slow(late)
            raise QueryError(
                "The statement needs more memory than it may have, or ended its process otherwise.",
                "Ask for less at once.",
            )
        return head, payload

    @staticmethod
    def _exchange(
        worker: subprocess.Popen[bytes], request: bytes, seconds: float
    ) -> tuple[float | None, dict[str, Any] | None, bytes]:
        """The time limit after which the worker was killed, if any; the header of its answer, if any; the body."""
        assert worker.stdin is not None
        assert worker.stdout is not None
        limit = _START_S
        with _deadline(worker, limit) as late:
            try:
                worker.stdin.write(request)
                worker.stdin.flush()
                line = worker.stdout.readline()
            except OSError:
                line = b""
        if line == RUNNING:
            limit = seconds
            with _deadline(worker, limit + _GRACE_S) as late:
                line = worker.stdout.readline()
                head = json.loads(line) if line.endswith(b"\n") else None
                payload = worker.stdout.read(head["bytes"]) if head else b""
        else:
            head, payload = json.loads(line) if line.endswith(b"\n") else None, b""
        return limit if late.is_set() else None, head, payload

    def _start(self) -> subprocess.Popen[bytes]:
        """Start a worker that inherits neither secrets nor thread settings from the server's environment."""
        kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT", "LD_LIBRARY_PATH", "SPECCLIP_TEST_DATA")
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        environment |= {
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            "OMP_NUM_THREADS": str(self.limits.threads),
            "OPENBLAS_NUM_THREADS": "1",
            # Arrow's default memory pool would reserve 1 GB of the limit in advance
            "ARROW_DEFAULT_MEMORY_POOL": "system",
        }
        self.close()
        worker = self._worker = subprocess.Popen(
            # -P: do not import modules from the server's working folder
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
    """Run one untrusted statement in a new sandbox; a server keeps a `Sandbox` instead."""
    with Sandbox(atlas, limits) as sandbox:
        return sandbox.run(statement, parameters)


@contextmanager
def _deadline(worker: subprocess.Popen[bytes], seconds: float) -> Iterator[threading.Event]:
    """Kill `worker` unless the block ends in time; the event is set if it was killed."""
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
    """Remove the path of the atlas from a message and shorten it."""
    message = " ".join(message.replace(str(folder.resolve()), "<atlas>").replace(str(folder), "<atlas>").split())
    return message if len(message) <= _LONGEST_MESSAGE else message[: _LONGEST_MESSAGE - 3] + "..."
