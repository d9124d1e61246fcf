"""SQL on the command line: parameters from text, and statements with row and time limits."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import QueryError

if TYPE_CHECKING:
    import pyarrow as pa

    from ..atlas import Atlas

Parameters = list[Any] | dict[str, Any] | None
Fetched = tuple["pa.Table | None", bool]
_LOOK_S = 0.2
_GRACE_S = 5.0
_NAME = re.compile(r"\$?([A-Za-z_]\w*)=(.*)", re.DOTALL)
_INTEGER = re.compile(r"[+-]?\d+")
_WORDS: dict[str, Any] = {"null": None, "true": True, "false": False}


def parse_parameters(named: Sequence[str], positional: Sequence[str]) -> Parameters:
    """Values for a statement's `$name` or `?`.

    Parameters
    ----------
    named
        `NAME=VALUE` each.
    positional
        Values in the order of the question marks.

    Raises
    ------
    QueryError
        If one has no name, a name is repeated, or both kinds are given.
    """
    if named and positional:
        raise QueryError(
            f"Parameters are given both by name ({named[0]}) and by position ({positional[0]}).",
            "Write all of them as $name in the statement and --param name=value, or all as ? and values after it.",
        )
    if not named:
        return [parse_value(text) for text in positional] or None
    values: dict[str, Any] = {}
    for text in named:
        found = _NAME.fullmatch(text)
        if found is None:
            raise QueryError(f"A parameter is NAME=VALUE; found '{text}'.", "For example --param limit=-2.5.")
        if found[1] in values:
            raise QueryError(f"The parameter '{found[1]}' is given twice.", "Give it once.")
        values[found[1]] = parse_value(found[2])
    return values


def parse_value(text: str) -> Any:
    """An integer of any size, a number, true, false, null, or text; quoted values are always text."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INTEGER.fullmatch(text):
        return int(text)
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    # float() would also accept '1_000', 'nan' and 'infinity', which are text in SQL
    if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text):
        return float(text)
    return text


class Statements:
    """Runs statements one after another on one connection, with limits.

    Parameters
    ----------
    atlas
        Atlas to query.
    rows
        Maximum number of rows to fetch; all by default.
    seconds
        Maximum wall time of a statement; unlimited by default.
    sandbox
        Treat statements as untrusted, see `specclip_search.queries.sql.sandbox`, whose limits are the defaults.

    Attributes
    ----------
    ran
        Number of statements in the text that was run last; the rows are those of the last statement.
    """

    def __init__(
        self, atlas: Atlas, rows: int | None = None, seconds: float | None = None, sandbox: bool = False
    ) -> None:
        from specclip_search.queries.sql.ask import connect
        from specclip_search.queries.sql.sandbox import Sandbox
        from specclip_search.queries.sql.sandbox_worker import Limits

        self.rows = rows
        self.seconds = seconds
        self.connection = connect(atlas)
        self.ran = 1
        self._abandoned = False
        self._sandbox: Sandbox | None = None
        if sandbox:
            usual = Limits()
            limits = Limits(rows=rows or usual.rows, seconds=seconds or usual.seconds)
            self.rows, self.seconds = limits.rows, limits.seconds
            self._sandbox = Sandbox(atlas, limits)

    def run(self, statement: str, parameters: Parameters = None) -> tuple[pa.Table | None, bool]:
        """Run one statement.

        Returns
        -------
        table : pa.Table or None
            At most as many rows as the limit; None if the statement returns no rows.
        truncated : bool
            Whether there were more rows.

        Raises
        ------
        QueryError
            If it is not allowed, invalid, or does not end in time.
        """
        if self._sandbox is not None:
            answer = self._sandbox.run(statement, parameters)
            return answer.table, answer.truncated
        late = threading.Event()

        def stop() -> None:
            late.set()
            self.connection.duckdb.interrupt()

        timer = threading.Timer(self.seconds, stop) if self.seconds is not None else None
        if timer is not None:
            timer.start()
        try:
            return self._interruptible(lambda: self._fetched(statement, parameters))
        except QueryError as error:
            if late.is_set():
                raise QueryError(
                    f"The statement did not end within {self.seconds:g} s.", "Request less, or raise --timeout."
                ) from error
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _interruptible(self, fetch: Callable[[], Fetched]) -> Fetched:
        """Run `fetch` in a thread, because DuckDB does not react to Ctrl-C while it works."""
        ended: list[Fetched | BaseException] = []
        # not Thread.join: after Ctrl-C it would treat the thread as ended
        done = threading.Event()

        def work() -> None:
            try:
                ended.append(fetch())
            except BaseException as error:
                ended.append(error)
            finally:
                done.set()

        # opened here: two threads that open it on demand would have two, of which the wrong one is interrupted
        running = self.connection.duckdb
        thread = threading.Thread(target=work, daemon=True)
        try:
            thread.start()
            while not done.wait(_LOOK_S):
                pass
        except KeyboardInterrupt:
            # again and again: an interrupt before the statement has begun is lost
            end = time.monotonic() + _GRACE_S
            while not done.is_set() and time.monotonic() < end:
                running.interrupt()
                done.wait(_LOOK_S)
            self._abandoned = not done.is_set()
            raise
        if isinstance(ended[0], BaseException):
            raise ended[0]
        return ended[0]

    def _fetched(self, statement: str, parameters: Parameters) -> Fetched:
        kinds = self._kinds(statement)
        self.ran = len(kinds)
        relation = self.connection.run(statement, parameters)
        if relation is None:
            return None, False
        if self.rows is None or not kinds[-1]:
            return relation.arrow() if kinds[-1] else None, False
        table = relation.limit(self.rows + 1).arrow()
        return table.slice(0, self.rows), table.num_rows > self.rows

    def _kinds(self, text: str) -> list[bool]:
        """For each statement in `text`, whether it returns rows; statements that cannot be parsed raise later."""
        import duckdb

        try:
            found = self.connection.duckdb.extract_statements(text)
            kinds = [duckdb.ExpectedResultType.NOTHING not in each.expected_result_type for each in found]
        except (duckdb.Error, ValueError):
            kinds = []
        return kinds or [True]

    def close(self) -> None:
        """Close the connection and the sandbox process."""
        if self._sandbox is not None:
            self._sandbox.close()
        if not self._abandoned:  # closing would wait for a statement that does not heed interrupts
            self.connection.close()

    def __enter__(self) -> Statements:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
