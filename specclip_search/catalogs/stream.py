"""A catalogue as a stream of Arrow tables, whatever its file format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

CHUNK_ROWS = 131_072


@dataclass(frozen=True, slots=True)
class CatalogFile:
    """An opened catalogue: its columns, and a function that streams its rows from the beginning.

    Attributes
    ----------
    schema
        Columns as in the file; field metadata hold unit, description and ucd where the file does.
    chunks
        Called for each pass with the names of the wanted columns; yields tables of these columns.
    rows
        Number of rows; None if it is known only after reading to the end.
    """

    schema: pa.Schema
    chunks: Callable[[Sequence[str]], Iterator[pa.Table]]
    rows: int | None = None


def is_gzip(path: Path) -> bool:
    with open(path, "rb") as handle:
        return handle.read(2) == b"\x1f\x8b"


def rechunk(tables: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of exactly `rows` rows except the last, whatever the sizes of the input tables."""
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
    """A field with the file's metadata of the column; empty values are left out."""
    metadata = {
        key: str(value)
        for key, value in (("unit", unit), ("description", description), ("ucd", ucd))
        if value is not None and str(value).strip()
    }
    return pa.field(name, kind, metadata=metadata or None)
