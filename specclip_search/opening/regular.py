"""Only regular files are opened, a gzip stream inflates no further than a cap, and every path can be shown.

Files come from everywhere: a named pipe would be waited for without end, and a few megabytes of gzip can hold
gigabytes of zeros.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any, BinaryIO

from ..errors import Reason, SpectrumError

_gzip: Any = import_module("isal.igzip" if find_spec("isal") is not None else "gzip")

GZIP_MAGIC = b"\x1f\x8b"
MIB = 1 << 20
# tables of text and of floats shrink by 2 to 30 in gzip; a hundred leaves room for columns that are nearly empty
INFLATED_ALWAYS_ALLOWED = 128 * MIB
INFLATION = 100

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class HeldBytes(os.PathLike[str]):
    """Bytes that lie in memory, such as a member of an archive, under the name that messages give them."""

    name: str
    data: bytes = field(repr=False)

    def __fspath__(self) -> str:
        return self.name


def shown_path(path: PathLike | bytes) -> str:
    r"""A path as text that every file and terminal takes; bytes that are not UTF-8 stand as ``\xb9``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def shown_text(text: str) -> str:
    """`text` with what stands for undecodable bytes of a path written out."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def open_regular(path: PathLike) -> BinaryIO:
    """Open a regular file to read its bytes; anything else is refused at once.

    Raises
    ------
    SpectrumError
        `unreadable`, if there is no such file, it may not be read, or it is a folder, pipe, device or socket.
    """
    if isinstance(path, HeldBytes):
        return io.BytesIO(path.data)
    try:
        # a pipe that nobody writes to would block here; the flag does nothing to a regular file
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        raise cannot_open(path, error) from None
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise _not_regular(path, mode)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        with suppress(OSError):
            os.close(descriptor)
        raise


def cannot_open(path: PathLike, error: OSError | ValueError) -> SpectrumError:
    """The error to raise where the system refuses a file."""
    file = shown_path(path)
    with suppress(OSError, ValueError):
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode) and os.access(path, os.R_OK):
            return _not_regular(path, mode)
    if isinstance(error, FileNotFoundError):
        return SpectrumError(Reason.UNREADABLE, f"{file} does not exist.", "Check the path.")
    code = getattr(error, "errno", None)
    if code in (errno.EACCES, errno.EPERM, errno.EISDIR):
        return SpectrumError(Reason.UNREADABLE, f"{file} may not be read (permission denied).",
                             f"Give yourself the right: chmod u+r '{file}'.")
    return SpectrumError(Reason.UNREADABLE, f"{file} cannot be read: {getattr(error, 'strerror', None) or error}.",
                         "Check the disk and the path.")


def _not_regular(path: PathLike, mode: int) -> SpectrumError:
    file = shown_path(path)
    if stat.S_ISDIR(mode):
        return SpectrumError(Reason.UNREADABLE, f"{file} is a folder; a file was expected.",
                             "Name the files inside it, or ingest the folder.")
    if stat.S_ISFIFO(mode):
        return SpectrumError(Reason.UNREADABLE, f"{file} is a pipe; a regular file was expected.",
                             "A pipe cannot be read twice: write its content to a file and name that.")
    kind = "a socket" if stat.S_ISSOCK(mode) else "a device"
    return SpectrumError(Reason.UNREADABLE, f"{file} is {kind}; a regular file was expected.",
                         "Name a file that holds the data.")


def inflated_limit(compressed: int) -> int:
    """Bytes that a gzip file of `compressed` bytes may inflate to."""
    return max(INFLATED_ALWAYS_ALLOWED, INFLATION * compressed)


def inflates_too_far(path: PathLike, limit: int) -> SpectrumError:
    """The error to raise where a gzip stream goes beyond its cap."""
    return SpectrumError(
        Reason.UNREADABLE,
        f"{shown_path(path)} inflates to more than {limit / MIB:,.0f} MiB; no real table or spectrum of its size does.",
        f"If the content is meant, unpack it first: gunzip --keep '{shown_path(path)}'.")


def open_bytes(path: PathLike, gzipped: bool | None = None) -> BinaryIO:
    """The bytes of a regular file as a stream, inflated where it is gzip, to its cap at most.

    Raises
    ------
    SpectrumError
        As `open_regular`; while reading, where the stream inflates beyond `inflated_limit`.
    """
    handle = open_regular(path)
    if gzipped is None:
        gzipped = handle.read(2) == GZIP_MAGIC
        handle.seek(0)
    if not gzipped:
        return handle
    limit = inflated_limit(handle.seek(0, io.SEEK_END))
    handle.seek(0)
    return io.BufferedReader(_Capped(handle, limit, path), 1 << 18)  # type: ignore[return-value]


class _Capped(io.RawIOBase):
    """An inflating stream that ends in an error beyond its limit."""

    def __init__(self, handle: BinaryIO, limit: int, path: PathLike) -> None:
        self._handle, self._limit, self._path = handle, limit, path
        self._stream = _gzip.open(handle)
        self._read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(min(len(buffer), 1 << 18))
        self._read += len(data)
        if self._read > self._limit:
            raise inflates_too_far(self._path, self._limit)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
            self._handle.close()
        super().close()
