"""Rows and errors as HTTP answers: JSON for browsers, CSV, VOTable and Parquet for programs."""

from __future__ import annotations

import gzip
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from starlette.responses import Response

from ..errors import QueryError, SpecclipError
from ..tables.meanings import with_known

if TYPE_CHECKING:
    import pandas as pd
    from starlette.requests import Request

FORMATS = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "vot": "application/x-votable+xml",
    "parquet": "application/vnd.apache.parquet",
}
_ID_NAMES = frozenset({"obsid", "uid", "gp_id"})
# a browser's numbers are whole up to here
_WHOLE = 2**53
_WORTH_PACKING = 1400


@dataclass(frozen=True)
class Page:
    """What a page knows.

    Attributes
    ----------
    content
        Everything for the browser, plain values.
    table
        The page's rows, for the other formats.
    """

    content: Mapping[str, Any]
    table: pa.Table
    cacheable: bool = field(default=True)


def as_table(frame: pd.DataFrame) -> pa.Table:
    """A result of a query as an Arrow table, with its columns' meanings and what it was made with."""
    from ..tables.write import as_arrow

    return as_arrow(frame)


def rows_json(table: pa.Table, truncated: bool = False) -> dict[str, Any]:
    """A table as plain values: columns with unit and meaning, and rows as lists.

    Ids are texts, for a browser's numbers hold no more than 2**53; so is any other column with a larger
    number. NaN and infinities are null.
    """
    table = with_known(table)
    columns, lists = [], []
    for schema_field, column in zip(table.schema, table.columns, strict=True):
        said = {key.decode(): value.decode("utf-8", "replace") for key, value in (schema_field.metadata or {}).items()}
        as_text = _is_text_id(schema_field, column)
        columns.append(
            {
                "name": schema_field.name,
                "type": _plain_type(schema_field.type),
                "unit": said.get("unit", ""),
                "description": said.get("description", ""),
                "ucd": said.get("ucd", ""),
                **({"text": True} if as_text else {}),
            }
        )
        lists.append(plain_values(column, as_text))
    return {
        "columns": columns,
        "rows": [list(row) for row in zip(*lists, strict=True)] if lists else [],
        "truncated": truncated,
    }


def records(table: pa.Table) -> list[dict[str, Any]]:
    """Rows as plain objects, ids as texts."""
    content = rows_json(table)
    names = [column["name"] for column in content["columns"]]
    return [dict(zip(names, row, strict=True)) for row in content["rows"]]


def _is_text_id(schema_field: pa.Field, column: pa.ChunkedArray) -> bool:
    if not pa.types.is_integer(schema_field.type):
        return False
    name = schema_field.name.lower()
    ucd = (schema_field.metadata or {}).get(b"ucd", b"")
    if name.endswith("_id") or name in _ID_NAMES or b"meta.id" in ucd:
        return True
    if schema_field.type.bit_width < 64 or not len(column):
        return False
    ends = pc.min_max(column).as_py()
    return any(value is not None and abs(value) > _WHOLE for value in ends.values())


def plain_values(column: pa.ChunkedArray, as_text: bool = False) -> list[Any]:
    """A column as values that JSON knows."""
    if as_text:
        column = column.cast(pa.string())
    elif pa.types.is_floating(column.type):
        return _plain_floats(column)
    return [_plain(value) for value in column.to_pylist()]


def _plain_floats(column: pa.ChunkedArray) -> list[float | None]:
    """Numbers, of float32 by the shortest digits that give the same: 0.1, not 0.10000000149011612."""
    numbers = column.cast(pa.float32()).to_numpy() if column.type.bit_width < 64 else column.to_numpy()
    finite = np.isfinite(numbers)
    if column.type.bit_width < 64:
        numbers = numbers.astype(str)
    return [float(value) if good else None for value, good in zip(numbers, finite, strict=True)]


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if abs(value) <= _WHOLE else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    return str(value)


def _plain_type(kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "integer" if pa.types.is_integer(kind) else "number"
    if pa.types.is_nested(kind):
        return "list"
    return "string"


def page_response(request: Request, page: Page, format: str, etag: str, name: str) -> Response:
    """A page in one of `FORMATS`; 304 where the browser has it already."""
    headers = cache_headers(etag) if page.cacheable else {"Cache-Control": "no-store"}
    if page.cacheable and unchanged(request, etag):
        return Response(status_code=304, headers=headers)
    if format == "json":
        body = json.dumps(_plain(page.content), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return packed(request, body.encode("utf-8", "replace"), FORMATS["json"], headers)
    headers["Content-Disposition"] = f'attachment; filename="{name}.{format}"'
    return packed(request, table_bytes(page.table, format), FORMATS[format], headers)


def table_bytes(table: pa.Table, format: str) -> bytes:
    """A table as a file of `FORMATS` other than JSON, written by the same code as the command line's files."""
    from ..tables import binary, text, voparquet

    table = with_known(table)
    if format == "csv":
        stream = io.StringIO(newline="")
        text.write_csv(table, stream)
        return stream.getvalue().encode("utf-8", "replace")
    writers = {"vot": binary.write_votable, "parquet": voparquet.write_parquet}
    # the writers name files; the folder is gone before the answer leaves
    with TemporaryDirectory(prefix="specclip-search-") as folder:
        path = Path(folder) / f"rows.{format}"
        writers[format](table, path)
        return path.read_bytes()


def cache_headers(etag: str) -> dict[str, str]:
    """A cache must ask again, and learns from the digest alone whether its copy is up to date."""
    return {"ETag": f'"{etag}"', "Cache-Control": "no-cache", "Vary": "Accept-Encoding, Cookie, Authorization"}


def unchanged(request: Request, etag: str) -> bool:
    """Whether the asker's copy is of this digest."""
    given = request.headers.get("if-none-match", "")
    return any(part.strip().removeprefix("W/").strip('"') == etag for part in given.split(","))


def packed(request: Request, body: bytes, kind: str, headers: Mapping[str, str] | None = None) -> Response:
    """A body, gzipped where it is worth it and the asker takes it."""
    sent = dict(headers or {})
    accepts = "gzip" in request.headers.get("accept-encoding", "")
    if accepts and len(body) >= _WORTH_PACKING and not kind.startswith("application/vnd"):
        body = gzip.compress(body, 4, mtime=0)
        sent["Content-Encoding"] = "gzip"
    return Response(body, media_type=kind, headers=sent)


def error_response(error: SpecclipError, status: int = 400) -> Response:
    """An error of ours: what was expected and found, and what to do."""
    content = {"error": error.message, "hint": error.hint}
    body = json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")
    return Response(body, status, media_type=FORMATS["json"], headers={"Cache-Control": "no-store"})


def whole_number(text: str | None, name: str, low: int, high: int, default: int) -> int:
    """A whole number of a request's query, within limits.

    Raises
    ------
    QueryError
        If it is anything else.
    """
    if text is None or text == "":
        return default
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18) or not low <= int(text) <= high:
        raise QueryError(
            f"{name} must be a whole number from {low:,} to {high:,}; found '{text[:40]}'.", f"Try {name}={default}."
        )
    return int(text)


def real_number(text: str | None, name: str, default: float | None = None) -> float | None:
    """A finite number of a request's query.

    Raises
    ------
    QueryError
        If it is none.
    """
    if text is None or text == "":
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise QueryError(f"{name} must be a number; found '{text[:40]}'.", f"Write it as {name}=1.5.")
    return value
