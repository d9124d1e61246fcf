"""Parquet files behind a view, and the metadata of their columns."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa


def read_parquet_sql(files: Sequence[str]) -> str:
    """`read_parquet([...])` over exactly these files."""
    return "read_parquet([" + ", ".join(quoted(no_glob(file)) for file in files) + "])"


def quoted(text: str) -> str:
    """A SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """A SQL identifier, quoted."""
    return '"' + name.replace('"', '""') + '"'


def no_glob(path: str) -> str:
    """Escape a path: a folder may be called 'run[1]', which DuckDB would treat as a pattern."""
    return "".join(f"[{c}]" if c in "[*?" else c for c in path)


def fields_of(file: str) -> list[pa.Field]:
    """Columns of a shard with their metadata, from its footer."""
    import pyarrow.parquet as pq

    return list(pq.read_schema(file))


def meaning(field: pa.Field) -> str:
    """One-line description of a column with its unit."""
    said = {key.decode(): value.decode("utf-8", "replace") for key, value in (field.metadata or {}).items()}
    unit = f" [{said['unit']}]" if said.get("unit") else ""
    return (said.get("description", "") + unit).strip()
