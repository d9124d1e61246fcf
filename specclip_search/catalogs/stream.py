"""Catalogue files of every usual format as streams of Arrow tables; the format is told by content."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from ..errors import SpecclipError

CHUNK_ROWS = 131_072


@dataclass(frozen=True, slots=True)
class CatalogFile:
    """An opened catalogue: its columns, and a function that streams its rows from the beginning.

    Attributes
    ----------
    schema
        Columns as in the file; field metadata hold unit, description and ucd where the file does.
    chunks
        Called for each pass with the names of the columns that are wanted; yields tables of these.
    rows
        Number of rows, None where only reading to the end would tell.
    """

    schema: pa.Schema
    chunks: Callable[[Sequence[str]], Iterator[pa.Table]]
    rows: int | None = None


def open_catalog(path: Path) -> CatalogFile:
    """Open a FITS, VOTable, ECSV, CSV or Parquet file, gzipped or not (Parquet: a folder too).

    Raises
    ------
    SpecclipError
        If there is no such file, or it is none of these.
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
            "Download it again, and look at it in a browser if it stays so.",
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


def is_gzip(path: Path) -> bool:
    with open(path, "rb") as handle:
        return handle.read(2) == b"\x1f\x8b"


def _head(path: Path, size: int = 8192) -> bytes:
    """First bytes of the content, unpacked where the file is gzipped."""
    try:
        with gzip.open(path, "rb") if is_gzip(path) else open(path, "rb") as handle:
            head = handle.read(size)
    except (OSError, EOFError) as error:
        found = "nothing there" if isinstance(error, FileNotFoundError) else str(error)
        raise SpecclipError(
            f"Expected a catalogue at {path}; found {found}.", "Check the path and its permissions."
        ) from error
    if not head.strip():
        raise SpecclipError(f"Expected a catalogue at {path}; found an empty file.", "Download or write it again.")
    return head


def rechunk(tables: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of exactly `rows` rows, but for the last; boundaries do not depend on the input's."""
    waiting: list[pa.Table] = []
    have = 0
    for table in tables:
        start = 0
        while start < table.num_rows:
            piece = table.slice(start, rows - have)
            waiting.append(piece)
            have += piece.num_rows
            start += piece.num_rows
            if have == rows:
                yield pa.concat_tables(waiting)
                waiting, have = [], 0
    if have:
        yield pa.concat_tables(waiting)


def described_field(
    name: str, kind: pa.DataType, unit: object = None, description: object = None, ucd: object = None
) -> pa.Field:
    """A field with what the file says about the column; empty statements are left out."""
    metadata = {
        key: str(value)
        for key, value in (("unit", unit), ("description", description), ("ucd", ucd))
        if value is not None and str(value).strip()
    }
    return pa.field(name, kind, metadata=metadata or None)
