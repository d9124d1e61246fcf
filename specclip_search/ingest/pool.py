"""Preparation of parts in several processes: results in order, a bounded number in memory."""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing import get_context

from ..errors import SpecclipError
from .limits import FILE_SECONDS, Marks
from .worker import PartRows, PartTask, Reading, prepare_part, start_worker

AHEAD = 2
WATCH_SECONDS = 5.0
NextTask = Callable[[], PartTask | None]
_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def usable_cores() -> int:
    """Number of processor cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare_in_order(next_task: NextTask, modality: str, reading: Reading, workers: int) -> Iterator[PartRows]:
    """Prepare parts and yield them in the order in which `next_task` gives them.

    `next_task` is asked again after each part that is yielded, so that parts may be added on the way; it
    gives None when there is none at present. At most `workers` + 2 parts are in memory, whatever their number.
    A file that ends the process that reads it, or keeps it busy for good, is found out and refused.

    Raises
    ------
    SpecclipError
        If worker processes die before they have begun to read a file.
    """
    if workers <= 1:
        while (task := next_task()) is not None:
            yield prepare_part(task, modality, reading)
        return
    with _one_thread_each():
        pool = _Pool(workers, modality, reading)
        try:
            yield from pool.run(next_task)
        finally:
            pool.close()


class _Pool:
    """Worker processes, replaced when one of them dies."""

    def __init__(self, workers: int, modality: str, reading: Reading) -> None:
        self.workers, self.modality, self.reading = workers, modality, reading
        self.marks = Marks()
        self.processes = self._start(workers)
        self.pending: deque[tuple[PartTask, Future[PartRows]]] = deque()

    def _start(self, workers: int) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=start_worker,
                                   initargs=(self.marks.path,))

    def _submit(self, processes: ProcessPoolExecutor, task: PartTask) -> Future[PartRows]:
        return processes.submit(prepare_part, task, self.modality, self.reading)

    def run(self, next_task: NextTask) -> Iterator[PartRows]:
        """Parts in the order of their tasks."""
        while True:
            while len(self.pending) < self.workers + AHEAD and (task := next_task()) is not None:
                try:
                    future = self._submit(self.processes, task)
                except BrokenProcessPool as error:  # noted with the others when its turn comes
                    future = Future()
                    future.set_exception(error)
                self.pending.append((task, future))
            if not self.pending:
                return
            try:
                rows = self._wait(self.pending[0])
            except BrokenProcessPool:
                self._recover()
                continue
            task, _ = self.pending.popleft()
            self.marks.clear(task.part)
            yield rows

    def _wait(self, wanted: tuple[PartTask, Future[PartRows]]) -> PartRows:
        """The rows of a part; a process that hangs where no alarm reaches it is ended."""
        seen: dict[int, tuple[tuple[int, int, int], float]] = {}
        while True:
            try:
                return wanted[1].result(timeout=WATCH_SECONDS)
            except TimeoutError:
                if wanted[1].done():
                    raise
            now = time.monotonic()
            for task, future in (*self.pending, wanted):
                mark = self.marks.get(task.part)
                if future.done() or mark[0] < 0:
                    continue
                if task.part not in seen or seen[task.part][0] != mark:
                    seen[task.part] = mark, now
                elif now - seen[task.part][1] > 2 * FILE_SECONDS + 10:
                    with suppress(ProcessLookupError):
                        os.kill(mark[2], signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)

    def _recover(self) -> None:
        """Go on after a process died: parts in work are read again, each by itself, to find the file at fault."""
        self.processes.shutdown(wait=True, cancel_futures=True)
        done = [(task, future) for task, future in self.pending if _finished(future)]
        suspects = {task.part for task, _ in self.pending if self.marks.get(task.part)[0] >= 0} - {
            task.part for task, _ in done}
        if not suspects:
            raise _died()
        self.processes = self._start(self.workers)
        again: deque[tuple[PartTask, Future[PartRows]]] = deque()
        for task, future in self.pending:
            if _finished(future):
                again.append((task, future))
            elif task.part in suspects:
                again.append((task, self._alone(task)))
            else:
                again.append((task, self._submit(self.processes, task)))
        self.pending = again

    def _alone(self, task: PartTask) -> Future[PartRows]:
        """A part read in a process of its own; each file that ends the process is refused."""
        result: Future[PartRows] = Future()
        for _ in range(len(task.files) + 1):
            self.marks.clear(task.part)
            with self._start(1) as one:
                try:
                    result.set_result(self._wait((task, self._submit(one, task))))
                    return result
                except BrokenProcessPool:
                    file = self.marks.get(task.part)[0]
                    if file < 0:
                        raise _died() from None
                    task = replace(task, fatal=task.fatal | {file})
        raise _died()

    def close(self) -> None:
        """End the processes."""
        self.processes.shutdown(wait=True, cancel_futures=True)
        self.marks.close()


def _finished(future: Future[PartRows]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def _died() -> SpecclipError:
    return SpecclipError(
        "A worker process ended before it read a file, most often for want of memory.",
        "Start the command again, with fewer --workers or a smaller --shard-size; finished shards are kept. "
        "In a script of your own, call it below `if __name__ == '__main__':`.")


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
