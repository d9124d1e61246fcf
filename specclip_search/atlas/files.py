"""Atomic file writes: write a temporary file, fsync, rename.

Each stage of an atlas has one writer at a time; readers are never blocked.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import AtlasError

TEMPORARY_PREFIX, LOCK = ".writing-", ".lock"
# of Linux: rename two paths into each other
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """Yield a temporary path next to `target`; on a clean exit it is synced and renamed to `target`.

    If the body raises, the temporary file is removed and `target` is unchanged. If the
    process dies, only a file beginning with ``.writing-`` is left; `remove_leftovers` removes it, or the next
    `whole_file` of this target.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if not (target.parent / LOCK).exists():  # else its lock's holder has removed them all
        remove_abandoned(target)
    temporary = beside(target)
    try:
        yield temporary
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and is_full(error):
            raise no_room(error, target) from error
        raise
    sync_folder(target.parent)


def is_full(error: OSError) -> bool:
    """Whether the disk, or what this user may take of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))


def no_room(error: OSError, target: Path) -> AtlasError:
    """What did not fit, and what to do about it."""
    return AtlasError(
        f"There is no room for {target}: {os.strerror(error.errno or errno.ENOSPC)}.",
        f"Make room (`df -h '{target.parent}'` says how much there is) and run the command again; what stood before "
        "is kept, and so are finished shards.",
    )


def beside(target: Path) -> Path:
    """The name under which this process writes what will become `target`."""
    return target.with_name(f"{TEMPORARY_PREFIX}{_host()}-{os.getpid()}-{target.name}")


def remove_abandoned(target: Path) -> None:
    """Remove what processes of this host that run no more have left of `target`, a file or a folder."""
    if os.name != "posix":
        return
    mine = re.compile(rf"{re.escape(f'{TEMPORARY_PREFIX}{_host()}-')}(\d+)-{re.escape(target.name)}", re.ASCII)
    with suppress(FileNotFoundError), os.scandir(target.parent) as entries:
        for entry in entries:
            if (found := mine.fullmatch(entry.name)) and not _runs(int(found[1])):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    Path(entry.path).unlink(missing_ok=True)


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9]", "_", socket.gethostname())[:32]


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def sync_folder(folder: Path) -> None:
    """Sync a rename or removal in `folder` to disk, where the operating system supports it."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files that a killed writer left in `folder`. Call only while holding its lock."""
    for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
        leftover.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Write a small text file atomically."""
    with whole_file(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: Path, content: dict[str, Any]) -> None:
    """Write a JSON object atomically, with sorted keys, so that equal content gives equal bytes."""
    write_text(target, json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, as ``sha256:<hex>``."""
    with open(path, "rb") as handle:
        return "sha256:" + hashlib.file_digest(handle, "sha256").hexdigest()


def text_digest(*parts: str) -> str:
    """SHA-256 of strings in order, each terminated by NUL so that boundaries matter."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode("utf-8") + b"\0")
    return "sha256:" + digest.hexdigest()


class NotPermitted(AtlasError):
    """The system does not let this user read or write a file of the atlas."""


def is_refusal(error: OSError) -> bool:
    """Whether the system refused: missing rights, or a file system that is mounted read-only."""
    return error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)


def not_permitted(error: OSError) -> NotPermitted:
    """What the system refused, and what to do about it."""
    path = error.filename2 or error.filename or "a file of the atlas"
    return NotPermitted(
        f"{path} may not be read or written by this user: {error.strerror or error}.",
        f"Give the right to it (`chmod u+rw '{path}'`), ask its owner, or work on a copy of the atlas.",
    )


@contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Hold the write lock of `folder`; the system releases it when the process ends, for any reason.

    Temporary files of a killed writer are removed on entry.

    Raises
    ------
    AtlasError
        If another process holds the lock; the message gives its process ID and host.
    """
    from filelock import FileLock, Timeout

    owner = folder / ".writer"
    lock = FileLock(str(folder / LOCK), timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        lock.acquire()
    except Timeout:
        who = owner.read_text(encoding="utf-8").strip() if owner.exists() else "another process"
        raise AtlasError(
            f"{folder} is being written by {who}; only one writer at a time is allowed.",
            "Wait for it to finish, or stop it and run this command again; no data are lost.",
        ) from None
    except OSError as error:
        if not is_refusal(error):
            raise
        raise not_permitted(error) from error
    try:
        owner.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        remove_leftovers(folder)
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def exchange_folders(new: Path, old: Path) -> None:
    """Let two folders of one file system change places; where the system can, in one step.

    Elsewhere there is an instant at which `old` is not there; `new` and what was `old` stay beside it.
    """
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        done = libc.renameat2(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(old), _RENAME_EXCHANGE) == 0
    except (OSError, AttributeError, TypeError):
        done = False
    if not done:
        aside = beside(old)
        os.rename(old, aside)
        try:
            os.rename(new, old)
        except BaseException:
            os.rename(aside, old)
            raise
        os.rename(aside, new)
    sync_folder(old.parent)
