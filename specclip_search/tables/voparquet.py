"""Parquet output, with the Virtual Observatory's metadata: VOParquet.

The IVOA note "Parquet in the VO" (VOParquet 1.0, 2025) stores a VOTable without data in the file's key-value metadata.
TOPCAT reads it by itself, astropy with ``Table.read(path, format="parquet.votable")``. Arrow's own field metadata are
kept beside it.
"""

from __future__ import annotations

import base64
import io
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from .binary import to_table
from .plain import storable
from .provenance import lines_of

VERSION = b"IVOA.VOTable-Parquet.version"
CONTENT = b"IVOA.VOTable-Parquet.content"


@dataclass(slots=True)
class Seen:
    """What a reader of VOParquet must know of the values, gathered from one batch after another.

    Attributes
    ----------
    longest
        Characters of the longest text, at least 1, of each column of texts or lists of texts.
    unknown
        Columns of booleans that have nulls.
    """

    longest: dict[str, int] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)

    def add(self, table: pa.Table) -> Seen:
        """Look at more rows; returns itself."""
        for name, column in zip(table.column_names, table.columns, strict=True):
            if _element(column.type) != column.type:
                column = pc.list_flatten(column)
            if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
                longest = pc.max(pc.utf8_length(column)).as_py() or 1
                self.longest[name] = max(longest, self.longest.get(name, 1))
            elif pa.types.is_boolean(column.type) and column.null_count:
                self.unknown.add(name)
        return self


def vo_metadata(schema: pa.Schema, seen: Seen) -> dict[bytes, bytes]:
    """Key-value metadata of a Parquet file with these columns.

    Parameters
    ----------
    schema
        Columns with the field metadata `unit`, `description` and `ucd`; the provenance in the schema's own metadata
        becomes INFO elements.
    seen
        All rows of the file, looked at.

    Returns
    -------
    dict
        The version of the convention, the VOTable with a FIELD for each column in the same order, and lengths of
        texts in the form that astropy's reader of Parquet looks for: without them it measures each text itself and
        fails at the first null.
    """
    from astropy.io.votable import from_table
    from astropy.io.votable.tree import Info

    # a list of any length is declared by the type of its elements
    declared = pa.schema([field.with_type(_element(field.type)) for field in schema], metadata=schema.metadata)
    empty = declared.empty_table()
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        votable = from_table(to_table(empty))
        for said, column in zip(votable.get_first_table().fields, schema, strict=True):
            if said.datatype == "bit":
                said.datatype = "boolean"
            if _element(column.type) != column.type or column.name in seen.unknown:
                # booleans: none or one, because astropy cannot join a column with nulls to one of plain booleans
                said.arraysize = "*"
            elif said.datatype in ("char", "unicodeChar"):
                # astropy joins texts only to a column of fixed length; "10*", at most ten, is refused by 7.0
                said.arraysize = str(seen.longest.get(column.name, "*"))
        votable.infos.extend(Info(name=name, value=value) for name, value in lines_of(empty))
        # without rows there is no DATA element, as the convention wants it
        votable.to_xml(content)
    return {
        VERSION: b"1.0",
        CONTENT: content.getvalue(),
        **{f"table::len::{name}".encode(): str(length).encode() for name, length in seen.longest.items()},
    }


def at_the_end(schema: pa.Schema, seen: Seen) -> dict[bytes, bytes]:
    """`vo_metadata` for a file that is written in batches, whose values are known at its end only.

    For `ParquetWriter.add_key_value_metadata`; the writer is opened with ``store_schema=False``, because readers of
    Arrow take the metadata of a file from the schema that is stored in it, which is written here.
    """
    metadata = (schema.metadata or {}) | vo_metadata(schema, seen)
    stored = schema.with_metadata(metadata).serialize().to_pybytes()
    return metadata | {b"ARROW:schema": base64.b64encode(stored)}


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write Parquet; unit, description and UCD are stored in the field metadata and as VOParquet."""
    import pyarrow.parquet as pq

    held = storable(table)
    metadata = (held.schema.metadata or {}) | vo_metadata(held.schema, Seen().add(held))
    pq.write_table(held.replace_schema_metadata(metadata), path, compression="zstd")


def _element(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind
