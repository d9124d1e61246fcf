"""Preparation of parts in several processes: results in order, a bounded number in memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context

from ..errors import SpecclipError
from .worker import PartRows, PartTask, Reading, prepare_part

AHEAD = 2
NextTask = Callable[[], PartTask | None]
_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def usable_cores() -> int:
    """Number of processor cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare_in_order(next_task: NextTask, modality: str, reading: Reading, workers: int) -> Iterator[PartRows]:
    """Prepare parts and yield them in the order in which `next_task` gives them.

    `next_task` is called again after each yielded part, so that parts may be added during the run; it
    returns None if there is none at present. At most `workers` + 2 parts are in memory, whatever their number.

    Raises
    ------
    SpecclipError
        If a worker process died.
    """
    if workers <= 1:
        while (task := next_task()) is not None:
            yield prepare_part(task, modality, reading)
        return
    pending: deque[Future[PartRows]] = deque()
    with _one_thread_each(), ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            while True:
                while len(pending) < workers + AHEAD and (task := next_task()) is not None:
                    pending.append(pool.submit(prepare_part, task, modality, reading))
                if not pending:
                    return
                yield pending.popleft().result()
        except BrokenProcessPool:
            raise SpecclipError(
                "A worker process ended unexpectedly, most often because memory ran out.",
                "Run the command again with fewer --workers or a smaller --shard-size; finished shards are kept. "
                "In a script, call it under `if __name__ == '__main__':`.") from None
        finally:
            for future in pending:
                future.cancel()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Limit a worker to one thread, because the processes already use all cores."""
    before = {name: os.environ.get(name) for name in _THREAD_LIMITS}
    os.environ.update(dict.fromkeys(_THREAD_LIMITS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
