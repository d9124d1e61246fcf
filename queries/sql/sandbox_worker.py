"""The process in which untrusted statements run; it may be killed at any time.

It prints `ready`, then reads requests as lines of JSON on standard input and answers on standard
output: `running` when the statement itself begins, unless it was refused before; then a line of JSON,
followed by an Arrow stream of the length given in that line.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

import pyarrow as pa

from specclip_search.errors import QueryError, SpecclipError

READY = b"ready\n"
RUNNING = b"running\n"
_BATCH_ROWS = 2048


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one statement.

    Attributes
    ----------
    rows
        Maximum rows of the result; more are cut off and `truncated` is set.
    bytes
        Maximum bytes of the result; a larger one is rejected.
    seconds
        Wall time of the statement itself, without opening the atlas.
    memory_mb
        Memory of DuckDB; the process itself may use 1 GB more.
    threads
        Threads of DuckDB.
    """

    rows: int = 10_000
    bytes: int = 64 << 20
    seconds: float = 10.0
    memory_mb: int = 512
    threads: int = 1


def answer(
    atlas_path: str,
    statement: str,
    parameters: Any,
    limits: Limits,
    begins: Callable[[], None],
    partial: bool = False,
) -> tuple[pa.Table, bool]:
    """Check and run one statement on a new connection; `begins` is called when its time begins.

    Returns
    -------
    table : pa.Table
    truncated : bool
        Whether rows beyond the limit were left out.
    """
    from specclip_search.atlas import Atlas

    from ..views.rows import with_meanings
    from .ask import connect
    from .sandbox_rules import check_statement

    with connect(_opened(atlas_path, Atlas, partial), untrusted=True) as connection:
        if not connection.asks_for_columns(statement):
            check_statement(connection.duckdb, statement, connection.views.all)
        # locked before the first view is made: what stands in an atlas is no more trusted than the statement
        connection.lock_down(limits.memory_mb, limits.threads)
        begins()
        connection.prepare(statement)
        timer = threading.Timer(limits.seconds, connection.duckdb.interrupt)
        timer.start()
        try:
            rows = connection.run(statement, parameters)
            if rows is None:
                raise QueryError("This statement is not allowed: it returns no rows.", "Allowed is one SELECT.")
            table, truncated = connection.guarded(lambda: _capped(rows.relation, limits))
        finally:
            timer.cancel()
        return with_meanings(table, connection.views), truncated


_atlases: dict[tuple[str, bool], Any] = {}


def _opened(path: str, kind: Any, partial: bool) -> Any:
    """The atlas is kept, for with it go the opened indexes."""
    if (path, partial) not in _atlases:
        _atlases[path, partial] = kind(path, allow_partial=partial)
    return _atlases[path, partial]


def _capped(relation: Any, limits: Limits) -> tuple[pa.Table, bool]:
    reader = relation.to_arrow_reader(_BATCH_ROWS)
    batches, rows, size = [], 0, 0
    for batch in reader:
        rows += batch.num_rows
        size += batch.nbytes
        if size > limits.bytes:
            raise QueryError(f"The answer is larger than {limits.bytes >> 20} MB.", "Ask for fewer rows or columns.")
        batches.append(batch)
        if rows > limits.rows:
            break
    table = pa.Table.from_batches(batches, schema=reader.schema)
    return table.slice(0, limits.rows), rows > limits.rows


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until standard input is closed.

    An answer says whether the process is `spent`: memory used by a statement is not
    fully released, and a later statement with too little memory would fail without fault.
    """

    def begins() -> None:
        answers.write(RUNNING)
        answers.flush()

    for line in requests:
        request = json.loads(line)
        limits = Limits(**request["limits"])
        _limit_memory(limits)
        payload, broken = b"", False
        try:
            asked = (request["atlas"], request["statement"], request["parameters"])
            table, truncated = answer(*asked, limits, begins, request["partial"])
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
            payload = sink.getvalue().to_pybytes()
            head: dict[str, Any] = {"truncated": truncated}
        except SpecclipError as error:
            head = {"error": error.message, "hint": error.hint}
        except MemoryError:
            head = {"error": "The statement needs more memory than it may have.", "hint": "Ask for less at once."}
            broken = True
        except Exception as error:
            head = {"error": f"The statement failed: {' '.join(str(error).split())[:300]}", "hint": ""}
            broken = True
        spent = broken or _allowance(limits) - _memory_taken() < limits.memory_mb << 20
        answers.write(json.dumps({**head, "bytes": len(payload), "spent": spent}).encode() + b"\n" + payload)
        answers.flush()


def _limit_memory(limits: Limits) -> None:
    """Limit the memory of the process; mapped index files do not count."""
    try:
        import resource
    except ImportError:
        return
    allowed = _allowance(limits)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or allowed <= hard:
        resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _allowance(limits: Limits) -> int:
    """Maximum bytes of data of the process."""
    return (limits.memory_mb + 1024) << 20


def _memory_taken() -> int:
    """Bytes of data of this process, as counted by its limit; 0 if unknown."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmData:"))
    except (OSError, StopIteration):
        return 0


def request_line(atlas_path: str, statement: str, parameters: Any, limits: Limits, partial: bool = False) -> bytes:
    """A request as the worker reads it."""
    content = {"atlas": atlas_path, "statement": statement, "parameters": parameters, "limits": asdict(limits)}
    content["partial"] = partial
    return json.dumps(content).encode() + b"\n"


if __name__ == "__main__":
    output = sys.stdout.buffer
    # printed output must not mix with answers
    sys.stdout = sys.stderr
    # import before answering, so that a statement's time limit does not include it
    import specclip_search.queries.sql.ask
    import specclip_search.queries.sql.sandbox_rules  # noqa: F401

    output.write(READY)
    output.flush()
    serve(sys.stdin.buffer, output)
