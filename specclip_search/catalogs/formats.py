"""Opening a catalogue file of any supported format, identified by its content."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from ..errors import SpecclipError
from ..opening.guard import reading
from ..opening.regular import open_bytes
from .stream import CatalogFile


def open_catalog(path: Path, hdu: str | None = None) -> CatalogFile:
    """Open a catalogue, whatever its format; see `open_by_content`.

    Raises
    ------
    SpecclipError
        If there is no such file, it is no catalogue, or, here or while rows are read, it is damaged; the file
        is named.
    """
    with reading(path, "a catalogue"):
        opened = open_by_content(path, hdu)

    def chunks(wanted: Sequence[str]) -> Iterator[pa.Table]:
        with reading(path, "a catalogue"):
            yield from opened.chunks(wanted)

    return replace(opened, chunks=chunks)


def open_by_content(path: Path, hdu: str | None = None) -> CatalogFile:
    """Open a FITS, VOTable, ECSV, CSV or Parquet file, gzipped or not (Parquet: a folder too).

    Raises
    ------
    SpecclipError
        If there is no such file, or its format is none of these.
    """
    if path.is_dir():
        from .arrow import open_parquet

        return open_parquet(sorted(path.rglob("*.parquet")), path)
    head = _head(path)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if head.startswith(b"SIMPLE  ="):
        from .arrow import open_fits

        return open_fits(path, hdu)
    if head.startswith(b"PAR1"):
        from .arrow import open_parquet

        return open_parquet([path], path)
    if text[:9].lower() == b"<!doctype" or text[:5].lower() == b"<html":
        raise SpecclipError(
            f"{path} should be a catalogue; it is a web page, probably an error message of the server.",
            "Download it again, and open it in a browser if the problem persists.",
        )
    if b"<VOTABLE" in text[:4096] or text.startswith(b"<?xml"):
        from .arrow import open_votable

        return open_votable(path, hdu)
    if head.startswith(b"PARE"):
        raise SpecclipError(f"{path} is encrypted Parquet; nothing here holds its key.", "Get it unencrypted.")
    if head.startswith(b"PK\x03\x04"):
        raise SpecclipError(f"{path} is a zip archive; a table was expected.", f"Unpack it first: unzip '{path}'.")
    if b"\0" in head and not head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SpecclipError(
            f"{path} is none of FITS, VOTable, ECSV, CSV and Parquet (it begins with {head[:8]!r}).",
            "Convert it to one of these, for example with TOPCAT or astropy.",
        )
    from .text import open_text

    return open_text(path)


def _head(path: Path, size: int = 8192) -> bytes:
    """First bytes of the content, unpacked where the file is gzipped."""
    with open_bytes(path) as handle:
        head = handle.read(size)
    if not head.strip():
        raise SpecclipError(f"Expected a catalogue at {path}; found an empty file.", "Download or write it again.")
    return head
