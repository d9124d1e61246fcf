"""Units and meanings put back into a HATS catalogue that another program wrote without them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def with_fields(schema: pa.Schema, fields: Mapping[str, pa.Field]) -> pa.Schema:
    """The schema with the metadata of the fields of the same names; types stay."""
    return pa.schema(
        [pa.field(f.name, f.type, metadata=fields[f.name].metadata) if f.name in fields else f for f in schema]
    )


def describe_catalogue(folder: Path, fields: Mapping[str, pa.Field]) -> None:
    """Write every tile of a catalogue or collection, and what tiles share, anew with the metadata of `fields`.

    The list of all tiles' footers that some programs keep (`_metadata`) is removed: it would no
    longer be true. For a catalogue that nobody reads yet.
    """
    for dataset in sorted(path.parent for path in folder.rglob("dataset/_common_metadata")):
        _describe(dataset, fields)


def _describe(dataset: Path, fields: Mapping[str, pa.Field]) -> None:
    for path in sorted(dataset.rglob("*.parquet")):
        file = pq.ParquetFile(path)
        kind = file.metadata.row_group(0).column(0).compression if file.num_row_groups else "ZSTD"
        table = file.read().replace_schema_metadata(None)
        described = pa.Table.from_arrays(table.columns, schema=with_fields(table.schema, fields))
        beside = path.with_suffix(".described")
        pq.write_table(described, beside, compression="NONE" if kind == "UNCOMPRESSED" else kind.lower())
        os.replace(beside, path)
    common = dataset / "_common_metadata"
    with common.open("rb") as handle:
        shared = pq.read_schema(handle).remove_metadata()
    pq.write_metadata(with_fields(shared, fields), common)
    (dataset / "_metadata").unlink(missing_ok=True)
