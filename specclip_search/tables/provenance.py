"""Provenance of results (model, digests, version, options), kept from the query to every output format.

Arrow tables are converted to pandas frames with exact ids; units and descriptions are kept in `attrs`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ..atlas.files import write_json
from ..atlas.schemas import said_of
from ..version import __version__

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

KEY = b"specclip_search"
SIDECAR = ".about.json"


def with_about(table: pa.Table, about: Mapping[str, Any]) -> pa.Table:
    """The table with its provenance in the schema's metadata, as JSON; Parquet stores that directly."""
    if not about:
        return table
    kept = dict(table.schema.metadata or {})
    return table.replace_schema_metadata(kept | {KEY: json.dumps(about, ensure_ascii=False).encode()})


def about_of(table: pa.Table) -> dict[str, Any]:
    """The provenance stored by `with_about`, also after a round trip through Parquet; empty if there is none."""
    return dict(json.loads((table.schema.metadata or {}).get(KEY, b"{}")))


def lines_of(table: pa.Table) -> list[tuple[str, str]]:
    """The same as pairs of name and text, for simpler formats: `options.k`, `12`."""
    return list(_flat("", about_of(table)))


def _flat(prefix: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [line for name, item in value.items() for line in _flat(f"{prefix}.{name}" if prefix else name, item)]
    if isinstance(value, list):
        value = ", ".join(str(item) for item in value)
    return [] if value is None else [(prefix, str(value))]


def write_sidecar(table: pa.Table, path: Path) -> None:
    """Write `FILE.about.json` for a format without metadata; an outdated one is removed."""
    beside = path.with_name(path.name + SIDECAR)
    about = about_of(table)
    if about:
        write_json(beside, about)
    else:
        beside.unlink(missing_ok=True)


def stamped(table: pa.Table, query: str, options: dict[str, Any], **origin: Any) -> pa.Table:
    """The table with the query's name, its options, the code version and `origin` (digests) as its provenance.

    Only plain values are stored, so that they survive Parquet and JSON.
    """
    return with_about(table, _about(query, options, origin))


def stamp(frame: pd.DataFrame, query: str, options: dict[str, Any], **origin: Any) -> pd.DataFrame:
    """As `stamped`, in `frame.attrs`; the column metadata of `to_frame` (units, descriptions) are kept."""
    said = {COLUMNS: frame.attrs[COLUMNS]} if COLUMNS in frame.attrs else {}
    frame.attrs = _about(query, options, origin) | said
    return frame


def _about(query: str, options: dict[str, Any], origin: dict[str, Any]) -> dict[str, Any]:
    return {
        "query": query,
        "version": __version__,
        "options": _plain(options),
        **{key: _plain(value) for key, value in origin.items()},
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return value.item() if hasattr(value, "item") else str(value)


# key of the columns' units, descriptions and UCDs in a frame's attrs
COLUMNS = "columns"


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Convert Arrow to pandas with exact ids: int64, or pandas' nullable Int64 if some are null.

    The provenance of `stamped` comes first in `attrs`, then the columns' units and descriptions.
    """
    import pandas as pd

    numbers = [field.name for field in table.schema if field.type == pa.int64()]
    if any(table[name].null_count for name in numbers):
        frame = table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
        for name in numbers:
            if not table[name].null_count:
                frame[name] = frame[name].astype("int64")
    else:
        frame = table.to_pandas()
    frame.attrs = about_of(table)
    frame.attrs[COLUMNS] = {
        field.name: said_of(field)
        for field in table.schema
        if field.metadata
    }
    return frame
