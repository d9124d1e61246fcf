"""FAISS, imported on demand, and a context manager for its number of threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from specclip_search.errors import MissingExtra


def load_faiss(purpose: str = "A compressed index (IVF-PQ)") -> ModuleType:
    """The module `faiss`.

    Raises
    ------
    MissingExtra
        If no build of FAISS is installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise MissingExtra("faiss-cpu", "cpu", purpose) from error
    return faiss


@contextmanager
def faiss_threads(count: int) -> Iterator[None]:
    """FAISS with `count` threads inside the block; single queries are fastest with one."""
    faiss = load_faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(max(1, count))
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def default_threads() -> int:
    """Number of CPUs available to this process, or OMP_NUM_THREADS if set."""
    named = os.environ.get("OMP_NUM_THREADS", "")
    if named.isdigit() and int(named) > 0:
        return int(named)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
