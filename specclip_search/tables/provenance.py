"""What a table of results was made with, carried from a query into every format of file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..atlas.files import write_json

if TYPE_CHECKING:
    import pyarrow as pa

KEY = b"specclip_search"
SIDECAR = ".about.json"


def with_about(table: pa.Table, about: Mapping[str, Any]) -> pa.Table:
    """The table with what it was made with in its schema's metadata, as JSON; Parquet keeps that by itself."""
    if not about:
        return table
    kept = dict(table.schema.metadata or {})
    return table.replace_schema_metadata(kept | {KEY: json.dumps(about, ensure_ascii=False).encode()})


def about_of(table: pa.Table) -> dict[str, Any]:
    """What `with_about` put into a table, also after it came back from Parquet; empty where nothing was."""
    return dict(json.loads((table.schema.metadata or {}).get(KEY, b"{}")))


def lines_of(table: pa.Table) -> list[tuple[str, str]]:
    """The same as name and text, for formats that know no more: `options.k`, `12`."""
    return list(_flat("", about_of(table)))


def _flat(prefix: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [line for name, item in value.items() for line in _flat(f"{prefix}.{name}" if prefix else name, item)]
    if isinstance(value, list):
        value = ", ".join(str(item) for item in value)
    return [] if value is None else [(prefix, str(value))]


def write_sidecar(table: pa.Table, path: Path) -> None:
    """`FILE.about.json` beside a file of a format with no place for it; none is left that is no longer true."""
    beside = path.with_name(path.name + SIDECAR)
    about = about_of(table)
    if about:
        write_json(beside, about)
    else:
        beside.unlink(missing_ok=True)
