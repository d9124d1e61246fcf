"""One writer a stage and atlas; readers are never blocked."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import AtlasError
from .files import remove_leftovers


@contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Hold the right to write in `folder`; the system releases it when the process ends, however it ends.

    Leftovers of a killed writer are removed on entry.

    Raises
    ------
    AtlasError
        If another process holds the lock; its process number and host are named.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    owner = folder / ".writer"
    lock = FileLock(str(folder / ".lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        who = owner.read_text(encoding="utf-8").strip() if owner.exists() else "another process"
        raise AtlasError(
            f"{folder} is being written by {who}; only one writer at a time is allowed.",
            "Wait for it to end, or stop it and start this command again; nothing is lost.",
        ) from None
    try:
        owner.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        remove_leftovers(folder)
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()
