"""File type detection from the first bytes of a file, not from its name."""

from __future__ import annotations

import io
import os
import re
import zlib
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..errors import Reason, SpectrumError
from ..opening.archives import ZIP_MAGIC
from ..opening.fits_headers import check_fits
from ..opening.guard import reading
from ..opening.regular import PathLike, cannot_open, open_bytes, open_regular, shown_path
from ..opening.text_tables import text_encoding

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

    @property
    def file(self) -> PathLike:
        """What `opening.regular` opens: the path, or the bytes of a member of an archive."""
        return self.path

    def open(self) -> BinaryIO:
        """The decompressed bytes as a stream; a gzip stream ends in an error beyond its cap."""
        return open_bytes(self.file, self.gzipped)

    def open_fits(self) -> BinaryIO:
        """The decompressed bytes, to seek in, after the FITS headers were found to be sound.

        Raises
        ------
        SpectrumError
            `unreadable`, where a header announces what the file does not hold or FITS does not allow.
        """
        stream = self.open()
        if self.gzipped:
            with stream:
                stream = io.BytesIO(stream.read())
        try:
            check_fits(stream, shown_path(self.path))
        except BaseException:
            stream.close()
            raise
        return stream


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
    """First bytes of a file as they lie on disk; our own error where that cannot be."""
    with open_regular(file) as handle:
        try:
            raw = handle.read(size)
        except OSError as error:
            raise cannot_open(file, error) from None
    if not raw:
        raise SpectrumError(Reason.UNREADABLE, f"{file} is empty (0 bytes).", "Download it again.")
    return raw


def damaged_gzip(file: Path, error: Exception) -> SpectrumError:
    """The error to raise if a gzip stream ends early or cannot be decompressed."""
    return SpectrumError(Reason.UNREADABLE, f"{file} is gzip-compressed but damaged or truncated ({error}).",
                         "Download it again.")


def decoding(content: Content) -> AbstractContextManager[None]:
    """Whatever a decoder raises on a damaged file becomes one `unreadable` error; our own errors pass."""
    return reading(content.path, content.kind.upper())


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
    if head.startswith(ZIP_MAGIC):
        raise SpectrumError(Reason.LAYOUT_UNKNOWN, f"{file} is a zip archive; a spectrum file was expected.",
                            f"Unpack it first: unzip '{file}'; `ingest gaia-xp` reads DataLink's archives as they are.")
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
    encoding = text_encoding(head)
    if encoding != "utf-16" and b"\0" in head:
        return False
    if encoding == "cp1252" and sum(byte >= 128 for byte in head) > len(head) // 20:
        return False  # text in a Western language has few such letters, other bytes many
    text = head.decode(encoding, "ignore")
    return all(char.isprintable() or char in "\t\r\n\f" for char in text)
