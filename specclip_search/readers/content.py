"""File type detection from the first bytes of a file, not from its name."""

from __future__ import annotations

import errno
import io
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import Reason, SpectrumError

_gzip: Any = import_module("isal.igzip" if find_spec("isal") is not None else "gzip")

HEAD_BYTES = 8192
_KINDS = "FITS, VOTable, ECSV, CSV or text, Parquet or Avro, gzipped or not"


@dataclass(frozen=True, slots=True)
class Content:
    """A file and its type according to the first bytes.

    Attributes
    ----------
    path
        The file.
    kind
        One of ``fits``, ``votable``, ``ecsv``, ``text``, ``parquet``, ``avro``.
    head
        First bytes, decompressed.
    gzipped
        Whether the file is gzip-compressed.
    """

    path: Path
    kind: str
    head: bytes
    gzipped: bool

    def open(self) -> BinaryIO:
        """The decompressed bytes as a stream."""
        return _gzip.open(self.path) if self.gzipped else open(self.path, "rb")


def look(path: str | os.PathLike[str]) -> Content:
    """Look at a file.

    Raises
    ------
    SpectrumError
        `unreadable` if it cannot be opened or decompressed, is empty, a folder or a web page;
        `layout_unknown` if its format is not supported.
    """
    file = Path(path)
    raw = read_start(file)
    gzipped = raw[:2] == b"\x1f\x8b"
    head = _inflate_start(file, raw) if gzipped else raw
    return Content(file, kind_of(file, head), head, gzipped)


def read_start(file: Path, size: int = HEAD_BYTES) -> bytes:
    """First bytes of a file as stored on disk; raises `SpectrumError` if it cannot be read."""
    try:
        with open(file, "rb") as handle:
            raw = handle.read(size)
    except OSError as error:
        raise cannot_open(file, error) from None
    if not raw:
        raise SpectrumError(Reason.UNREADABLE, f"{file} is empty (0 bytes).", "Download it again.")
    return raw


def cannot_open(file: Path, error: OSError) -> SpectrumError:
    """The error to raise if the operating system cannot open a file."""
    if (isinstance(error, IsADirectoryError) or file.is_dir()) and os.access(file, os.R_OK | os.X_OK):
        return SpectrumError(Reason.UNREADABLE, f"{file} is a folder; a spectrum file was expected.",
                             "Give the files inside it, or ingest the folder.")
    if isinstance(error, FileNotFoundError):
        return SpectrumError(Reason.UNREADABLE, f"{file} does not exist.", "Check the path.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EISDIR):
        return SpectrumError(Reason.UNREADABLE, f"{file} may not be read (permission denied).",
                             f"Make it readable: chmod u+r '{file}'.")
    return SpectrumError(Reason.UNREADABLE, f"{file} cannot be read: {error.strerror or error}.",
                         "Check the disk and the path.")


def damaged_gzip(file: Path, error: Exception) -> SpectrumError:
    """The error to raise if a gzip stream ends early or cannot be decompressed."""
    return SpectrumError(Reason.UNREADABLE, f"{file} is gzip-compressed but damaged or truncated ({error}).",
                         "Download it again.")


@contextmanager
def decoding(content: Content) -> Iterator[None]:
    """Convert any error of a decoder on a damaged file to an `unreadable` error; our own errors pass unchanged.

    Decoders of other packages raise many exceptions on damaged bytes: KeyError, IndexError, UnicodeDecodeError,
    MemoryError if a damaged header gives an impossible size.
    """
    try:
        yield
    except SpectrumError:
        raise
    except Exception as error:
        text = (str(error) or type(error).__name__).splitlines()[0][:120]
        raise SpectrumError(
            Reason.UNREADABLE,
            f"{content.path} cannot be read as {content.kind.upper()}: damaged or truncated ({text}).",
            "Download it again.") from None


def _inflate_start(file: Path, raw: bytes) -> bytes:
    try:
        head = zlib.decompressobj(31).decompress(raw, HEAD_BYTES)
    except zlib.error as error:
        raise damaged_gzip(file, error) from None
    if not head:
        raise damaged_gzip(file, EOFError("nothing inside"))
    return head


def kind_of(file: Path, head: bytes) -> str:
    """The kind of a file by its first bytes, decompressed; see `Content.kind` and `look`."""
    if head.startswith(b"SIMPLE  ="):
        return "fits"
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"Obj\x01"):
        return "avro"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    lowered = start[:1000].lower()
    if lowered.startswith((b"<!doctype html", b"<html")) or b"<html" in lowered:
        raise SpectrumError(Reason.UNREADABLE, f"{file} is a web page, not a spectrum{_page_title(head)}.",
                            "The download failed or needs a login; get the file again.")
    if b"<votable" in start[:4096].lower():
        return "votable"
    if b"%ECSV" in start[:200]:
        return "ecsv"
    if _is_text(head):
        return "text"
    raise SpectrumError(Reason.LAYOUT_UNKNOWN, f"{file} begins with {head[:8]!r}, which is none of {_KINDS}.",
                        "Check that it is a spectrum file and was transferred completely.")


def _page_title(head: bytes) -> str:
    found = re.search(rb"<title>\s*(.{1,80}?)\s*</title>", head, re.IGNORECASE | re.DOTALL)
    return f" (titled '{found.group(1).decode('utf-8', 'replace')}')" if found else ""


def _is_text(head: bytes) -> bool:
    if b"\0" in head:
        return False
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return False
        text = head[: error.start].decode("utf-8")
    return all(char.isprintable() or char in "\t\r\n\f" for char in text)


def as_text_stream(content: Content) -> io.TextIOWrapper:
    """The file as UTF-8 text, decompressed."""
    return io.TextIOWrapper(content.open(), encoding="utf-8", errors="replace", newline="")
