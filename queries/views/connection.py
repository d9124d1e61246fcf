"""A DuckDB connection with a view over every stage of an atlas; DuckDB errors become QueryError."""

from __future__ import annotations

import os
import re
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import pyarrow as pa

from specclip_search.errors import QueryError, SpecclipError

from .label_sources import catalogue_names, open_catalogue
from .macros import add_catalogue_function, add_cone, add_macros
from .parquet import no_glob, quoted
from .rows import Rows
from .views import AtlasViews

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from specclip_search.atlas import Atlas

    from .views import AtlasViews

def as_query_error(error: Exception, views: AtlasViews) -> QueryError:
    """DuckDB's message in one line, with the available names if a name was not found."""
    text = str(error)
    first = text.split("\n\nLINE")[0].strip()
    lines = [line.strip() for line in first.splitlines() if line.strip()]
    message = re.sub(r"^[\w ]+ Error: ", "", lines[0]) if lines else type(error).__name__
    if "Table with name" in text:
        return QueryError(message, views.missing_hint())
    guesses = next((line for line in lines[1:] if line.startswith("Candidate bindings")), "")
    hint = guesses or "`DESCRIBE stars` lists a view's columns, `SHOW TABLES` the views."
    if "parameter" in message.lower():
        return QueryError(f"The statement cannot be run: {message}", "Give one value for each ? or $name of it.")
    pointer = text.split("\n\nLINE")[1:]
    if pointer and not guesses:
        hint = "LINE" + pointer[0].rstrip() + "\n" + hint
    return QueryError(f"The statement cannot be run: {message}", hint)


Parameters = Sequence[Any] | Mapping[str, Any] | None
_DESCRIBE = re.compile(r"\s*(?:describe|desc|show)\s+(?:table\s+)?\"?(\w+)\"?\s*;?\s*", re.IGNORECASE)
# statements that list views, or construct view names at run time
_NEEDS_ALL = re.compile(
    r"\b(show|describe|information_schema|duckdb_\w+|pragma\w*|query_table|query|summarize)\b", re.IGNORECASE
)


class Failures:
    """The last SpecclipError raised inside DuckDB, which passes on only its text."""

    def __init__(self) -> None:
        self.last: Exception | None = None

    def keep(self, error: Exception) -> None:
        self.last = error

    def take(self) -> Exception | None:
        error, self.last = self.last, None
        return error


AddFunction = Callable[["AtlasConnection", "Atlas", bool], None]
"""Registers an SQL function on a connection; the last argument says whether it may read files by path."""


def connect(atlas: Atlas, *, read_only: bool = False) -> AtlasConnection:
    """Open a DuckDB connection with a view over every stage of the atlas, without searches as functions.

    `specclip_search.queries.sql.ask.connect` adds those. While a session is open on `atlas`, its connection is lent.

    Nothing is read or copied. Views cover the shards committed at this moment. Each view is
    created when a statement first uses it, so that opening a survey is as fast as opening a demo.

    Parameters
    ----------
    read_only
        Allow access to the atlas's own files only: no other file, no network, no extension,
        no change of settings.
    """
    held = None if read_only else held_connection(atlas)
    return AtlasConnection(atlas, read_only=read_only) if held is None else held


Open = Callable[["Atlas"], "AtlasConnection"]


@dataclass(slots=True)
class _Held:
    """The connection of a session, how to open it, and the state of the atlas that its views stand over."""

    open: Open
    state: tuple[tuple[str, int], ...]
    connection: AtlasConnection


_HELD: WeakKeyDictionary[Atlas, _Held] = WeakKeyDictionary()


def hold(atlas: Atlas, opener: Open) -> None:
    """Keep one connection open for all questions asked of this atlas object, until `release`."""
    release(atlas)
    _HELD[atlas] = _Held(opener, _state(atlas), _lent(opener(atlas)))


def release(atlas: Atlas) -> None:
    """Close the connection that `hold` keeps."""
    held = _HELD.pop(atlas, None)
    if held is not None:
        held.connection.close()


def held_connection(atlas: Atlas) -> AtlasConnection | None:
    """The connection kept for this atlas object, renewed where the atlas has changed; None where none is kept."""
    held = _HELD.get(atlas)
    if held is not None and held.state != (state := _state(atlas)):
        held.connection.close()
        # while it opens, the atlas counts as not held: opening must not borrow the connection it replaces
        del _HELD[atlas]
        held.connection, held.state = _lent(held.open(atlas)), state
        _HELD[atlas] = held
    return None if held is None else held.connection


def _lent(connection: AtlasConnection) -> AtlasConnection:
    connection.lent = True
    return connection


def _state(atlas: Atlas) -> tuple[tuple[str, int], ...]:
    """Folders of stages with their modification times: a commit renames a file into one of them."""
    found = []
    for kind in ("spectra", "observed", "rejected", "catalogs", "vectors", "estimates", "translations", "results"):
        folders = [atlas.path / kind]
        for _ in range(3):
            below = []
            for folder in folders:
                try:
                    with os.scandir(folder) as entries:
                        below += [entry for entry in entries if entry.is_dir()]
                except OSError:
                    continue
            found += [(entry.path, entry.stat().st_mtime_ns) for entry in below]
            folders = [Path(entry.path) for entry in below]
    return tuple(sorted(found))


class AtlasConnection:
    """A DuckDB connection whose views are created as statements use them.

    Supports everything a DuckDB connection does; a `with` block closes it.

    Attributes
    ----------
    views
        The available views.
    duckdb
        The DuckDB connection.
    failures
        The last error of ours inside a function of SQL.
    lent
        A session keeps the connection: a `with` block leaves it open.
    """

    def __init__(
        self, atlas: Atlas, *, read_only: bool = False, untrusted: bool = False, functions: Sequence[AddFunction] = ()
    ) -> None:
        self.views = AtlasViews(atlas)
        self._made: set[str] = set()
        self.failures = Failures()
        self.lent = False
        for add in functions:
            add(self, atlas, not (read_only or untrusted))
        if read_only:
            _shut_out(self.duckdb, atlas.path)

    @cached_property
    def duckdb(self) -> DuckDBPyConnection:
        """Opened when a statement first needs it: who only looks at `views` does not."""
        connection = _bare_connection()
        add_macros(connection)
        return connection

    def lock_down(self, memory_mb: int, threads: int) -> None:
        """Limit resources, and access to the views created so far. Cannot be undone."""
        for setting in (
            f"memory_limit = '{memory_mb}MB'",
            f"threads = {threads}",
            "max_temp_directory_size = '0KB'",
            "max_expression_depth = 250",
        ):
            self.duckdb.execute(f"SET {setting}")
        _shut_out(self.duckdb, self.views.atlas.path)

    def prepare(self, statement: str) -> None:
        """Create the views that `statement` may read."""
        text = statement.lower()
        words = set(re.findall(r"\w+", text))
        everything = _NEEDS_ALL.search(statement) is not None
        names = [
            name
            for name in self.views.all
            if name not in self._made
            and (everything or _is_named(name.lower(), words, text) or (name == "stars" and "cone" in words))
        ]
        # a statement that lists views, or makes up their names, is not refused because one cannot be read
        read = [name for name in names if not everything or _is_named(name.lower(), words, text)]
        self.views.create(self.duckdb, read)
        self.views.create_if_whole(self.duckdb, [name for name in names if name not in read])
        self._made.update(names)
        if "stars" in names:
            add_cone(self.duckdb)
        for name in catalogue_names(self.views.atlas):
            function = f"{name}_of"
            if function in words and function not in self._made:
                source = open_catalogue(self.views.atlas, name)
                if source is not None and source.columns & {"source_id", "obsid"}:
                    add_catalogue_function(self.duckdb, self.views.atlas, source)
                    self._made.add(function)

    def run(self, statement: str, parameters: Parameters = None) -> Rows | None:
        """Run one statement; see `run`."""
        self.prepare(statement)
        if self.asks_for_columns(statement):
            statement = _meaning_sql(statement)
        relation = self.guarded(lambda: self.duckdb.sql(statement, params=_plain(parameters)))
        return None if relation is None else Rows(relation, self)

    def rows(self, statement: str) -> pa.Table:
        """Rows of one statement whose views already exist."""
        return self.guarded(lambda: self.duckdb.sql(statement).to_arrow_table())

    def asks_for_columns(self, statement: str) -> bool:
        """Whether a statement is `DESCRIBE <view>` or `SHOW TABLES`, which are answered with descriptions."""
        described = _DESCRIBE.fullmatch(statement)
        return described is not None and described[1].lower() in (*map(str.lower, self.views.all), "tables")

    def execute(self, statement: str, parameters: Parameters = None) -> DuckDBPyConnection:
        """DuckDB's `execute`."""
        self.prepare(statement)
        return self.guarded(lambda: self.duckdb.execute(statement, _plain(parameters)))

    def sql(self, statement: str, params: Parameters = None) -> Rows | None:
        """DuckDB's `sql`; rows as of `run`."""
        return self.run(statement, params)

    def guarded(self, call: Callable[[], Any]) -> Any:
        """Call into DuckDB; convert its errors to QueryError."""
        import duckdb

        try:
            return call()
        except (duckdb.Error, RuntimeError) as error:
            own = self.failures.take()
            if isinstance(own, SpecclipError):
                raise own from error
            raise as_query_error(error, self.views) from error

    def close(self) -> None:
        if "duckdb" in self.__dict__:
            self.duckdb.close()

    def __enter__(self) -> AtlasConnection:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.lent:
            self.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.duckdb, name)


def _is_named(view: str, words: set[str], statement: str) -> bool:
    """Whether a statement in lower case names a view; a name that is no plain word stands in quotes."""
    return view in words or (not view.isidentifier() and view in statement)


def _shut_out(connection: DuckDBPyConnection, folder: Path) -> None:
    """Leave `connection` no file but those below `folder`. Cannot be undone."""
    root = str(folder.resolve()) + "/"
    # DuckDB compares the path as written in the statement, with pattern characters escaped
    connection.execute(f"SET allowed_directories = [{quoted(root)}, {quoted(no_glob(root))}]")
    for setting in (
        "autoload_known_extensions = false",
        "allow_community_extensions = false",
        "enable_external_access = false",
        "lock_configuration = true",
    ):
        connection.execute(f"SET {setting}")


def _bare_connection() -> DuckDBPyConnection:
    import duckdb

    # a statement must not see Python variables as tables, nor fetch extensions from the network
    connection = duckdb.connect(
        config={
            "python_enable_replacements": False,
            "autoinstall_known_extensions": False,
            "temp_directory": str(Path(tempfile.gettempdir()) / "specclip-search-sql"),
        }
    )
    _open_connections.add(connection)
    return connection


_open_connections: weakref.WeakSet[Any] = weakref.WeakSet()


def _plain(parameters: Parameters) -> Any:
    return dict(parameters) if isinstance(parameters, Mapping) else None if parameters is None else list(parameters)


def _meaning_sql(statement: str) -> str:
    described = _DESCRIBE.fullmatch(statement)
    assert described is not None
    name = described[1].lower()
    if name == "tables":
        return (
            "SELECT view_name AS name, coalesce(comment, '') AS meaning FROM duckdb_views() WHERE NOT internal "
            "ORDER BY view_name"
        )
    return (
        "SELECT column_name, data_type AS column_type, coalesce(comment, '') AS meaning FROM duckdb_columns() "
        f"WHERE lower(table_name) = {quoted(name)} ORDER BY column_index"
    )
