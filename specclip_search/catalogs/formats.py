"""Opening a catalogue file of any supported format, identified by its content."""

from __future__ import annotations

import gzip
from pathlib import Path

from ..errors import SpecclipError
from .stream import CatalogFile, is_gzip


def open_catalog(path: Path) -> CatalogFile:
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

        return open_fits(path)
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

        return open_votable(path)
    if b"\0" in head:
        raise SpecclipError(
            f"{path} is none of FITS, VOTable, ECSV, CSV and Parquet (it begins with {head[:8]!r}).",
            "Convert it to one of these, for example with TOPCAT or astropy.",
        )
    from .text import open_ecsv, open_text

    return open_ecsv(path) if text.startswith(b"# %ECSV") else open_text(path)


def _head(path: Path, size: int = 8192) -> bytes:
    """First bytes of the content, decompressed if the file is gzipped."""
    try:
        with gzip.open(path, "rb") if is_gzip(path) else open(path, "rb") as handle:
            head = handle.read(size)
    except (OSError, EOFError) as error:
        found = "no file" if isinstance(error, FileNotFoundError) else str(error)
        raise SpecclipError(
            f"Expected a catalogue at {path}; found {found}.", "Check the path and its permissions."
        ) from error
    if not head.strip():
        raise SpecclipError(f"Expected a catalogue at {path}; found an empty file.", "Download or write it again.")
    return head
