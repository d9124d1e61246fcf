"""Which Parquet files stand behind a view, and what is said of their columns."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa


def committed_files(folder: Path) -> list[str]:
    """Absolute paths of a stage's committed shards, in order of their numbers.

    Names alone are looked at: reading every sidecar of a 10M-row stage would take longer than
    a whole second.
    """
    try:
        with os.scandir(folder) as entries:
            names = {entry.name for entry in entries if entry.name.startswith("part-")}
    except FileNotFoundError:
        return []
    root = folder.resolve()
    return [
        str(root / name)
        for name in sorted(names)
        if name.endswith(".parquet") and f"{name.removesuffix('.parquet')}.json" in names
    ]


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
    """A folder may be called 'run[1]'; DuckDB would take that for a pattern."""
    return "".join(f"[{c}]" if c in "[*?" else c for c in path)


def fields_of(file: str) -> list[pa.Field]:
    """Columns of a shard with their metadata, from its footer."""
    import pyarrow.parquet as pq

    return list(pq.read_schema(file))


def meaning(field: pa.Field) -> str:
    """What is said of a column in one line: description, unit."""
    said = {key.decode(): value.decode("utf-8", "replace") for key, value in (field.metadata or {}).items()}
    unit = f" [{said['unit']}]" if said.get("unit") else ""
    return (said.get("description", "") + unit).strip()
