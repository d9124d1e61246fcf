"""What tells that a catalogue is the one that was ingested before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from ..atlas.files import file_digest, text_digest
from ..errors import SpecclipError
from .stream import CHUNK_ROWS


def file_state(file: Path) -> dict[str, Any]:
    """What tells quickly that a file is the same as before."""
    paths = sorted(file.rglob("*.parquet")) if file.is_dir() else [file]
    try:
        stats = [path.stat() for path in paths]
    except OSError as error:
        raise SpecclipError(
            f"Expected a catalogue at {file}; found {error.strerror or error}.", "Check the path and its permissions."
        ) from error
    return {
        "path": str(file.resolve()),
        "size": sum(s.st_size for s in stats),
        "mtime_ns": max((s.st_mtime_ns for s in stats), default=0),
    }


def content_digest(file: Path) -> str:
    if file.is_dir():
        return text_digest(*(f"{p.relative_to(file)}:{file_digest(p)}" for p in sorted(file.rglob("*.parquet"))))
    return file_digest(file)


def table_digest(table: pa.Table) -> str:
    import hashlib

    sink = hashlib.sha256()

    class _Sink:
        closed = False

        def write(self, data: Any) -> int:
            sink.update(data)
            return len(data)

        def flush(self) -> None: ...

        def close(self) -> None: ...

    with pa.ipc.new_stream(pa.PythonFile(_Sink(), mode="w"), table.schema) as writer:
        writer.write_table(table.combine_chunks(), max_chunksize=CHUNK_ROWS)
    return "sha256:" + sink.hexdigest()
