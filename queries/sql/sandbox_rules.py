"""Rules for untrusted statements: one SELECT over the atlas's views, with functions that only compute.

A function is allowed by its name in `judged_functions`, not refused by it: one that is unknown may not be called.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from specclip_search.errors import QueryError

from .judged_functions import ALLOWED, TABLES_ALLOWED

if TYPE_CHECKING:
    import duckdb

LONGEST_STATEMENT = 20_000
TABLE_FUNCTIONS = TABLES_ALLOWED | {"similar", "resolve", "cone", "sky_match"}
OWN_FUNCTIONS = frozenset({"cosine", "separation_arcsec", "unnest"})
_TABLES = frozenset({"BASE_TABLE", "SUBQUERY", "JOIN", "TABLE_FUNCTION", "EMPTY", "EXPRESSION_LIST", "COLUMN_DATA"})
_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_PLAIN_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)


def check_statement(connection: duckdb.DuckDBPyConnection, statement: str, views: Collection[str]) -> None:
    """Reject anything but one SELECT over `views`.

    Parameters
    ----------
    connection
        Any connection; the statement is not run on it.
    views
        Names of readable tables.

    Raises
    ------
    QueryError
        With a single line stating what is not allowed.
    """
    if len(statement) > LONGEST_STATEMENT:
        raise _refused(f"it is longer than {LONGEST_STATEMENT:,} characters")
    if "\0" in statement:
        raise _refused("it holds a NUL character")
    if any("\ud800" <= letter <= "\udfff" for letter in statement):
        raise _refused("it holds half of a Unicode character")
    tree = _parsed(connection, statement)
    with_names = set(_cte_names(tree))
    inner = _system_views(duckdb_version())
    for name in with_names:
        if not _PLAIN_NAME.fullmatch(name):
            raise _refused(f"WITH gives a name that is no plain word: {name!r}")
        # outside its own WITH the name would refer to DuckDB's view, which reveals paths and settings
        if name.lower() in inner:
            raise _refused(f"WITH gives the name of a view of DuckDB's own: {name!r}")
    _check_tree(tree, {*views, *(name.lower() for name in with_names)}, ALLOWED | OWN_FUNCTIONS)


def _refused(why: str) -> QueryError:
    return QueryError(
        f"This statement is not allowed: {why}.",
        "Allowed is one SELECT over the atlas's views, with functions that only compute.",
    )


def _parsed(connection: duckdb.DuckDBPyConnection, statement: str) -> dict[str, Any]:
    """The statement's syntax tree, if it is one SELECT."""
    import duckdb

    try:
        statements = connection.extract_statements(statement)
    except duckdb.Error as error:
        raise _refused("it is not SQL: " + " ".join(str(error).split("\n\nLINE")[0].split())) from error
    except (TypeError, ValueError) as error:
        raise _refused("it cannot be parsed for checking") from error
    if len(statements) != 1:
        raise _refused(f"it holds {len(statements)} statements")
    kind = _kind(statements[0])
    if kind != "SELECT":
        raise _refused(f"it is a {kind} statement")
    try:
        text = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [statement]).fetchall()[0][0]
        content = json.loads(text)
    except (duckdb.Error, ValueError, RecursionError) as error:
        raise _refused("it cannot be parsed for checking") from error
    if content.get("error") or len(content["statements"]) != 1:
        raise _refused("it cannot be parsed for checking")
    return content["statements"][0]


def _kind(statement: Any) -> str:
    """Name of a statement's kind; DuckDB has kinds unknown to its Python module."""
    try:
        return str(statement.type).rsplit(".", 1)[-1]
    except ValueError:
        return "unknown"


def _walk(node: Any) -> Iterator[dict[str, Any]]:
    """All objects of the tree, without recursion, because its depth is untrusted."""
    waiting = [node]
    while waiting:
        here = waiting.pop()
        if isinstance(here, dict):
            yield here
            waiting.extend(here.values())
        elif isinstance(here, list):
            waiting.extend(here)


def _cte_names(tree: dict[str, Any]) -> Iterator[str]:
    for node in _walk(tree):
        entries = node.get("cte_map", {}).get("map", []) if isinstance(node.get("cte_map"), dict) else []
        for entry in entries:
            yield entry["key"]
        if node.get("type") == "RECURSIVE_CTE_NODE":
            yield node["cte_name"]


def _check_tree(tree: dict[str, Any], tables: set[str], functions: frozenset[str]) -> None:
    table_calls = {id(node["function"]) for node in _walk(tree) if node.get("type") == "TABLE_FUNCTION"}
    for node in _walk(tree):
        kind = node.get("type")
        if "query_location" in node and "sample" in node and kind not in _TABLES:
            raise _refused(f"it reads from {str(kind).lower().replace('_ref', '')}")
        if isinstance(kind, str) and kind.endswith("_NODE") and "select_list" not in node and kind not in _NODES:
            raise _refused(f"it holds a {kind.lower()}")
        if kind == "BASE_TABLE":
            _check_table(node, tables)
        if "function_name" in node:
            allowed = TABLE_FUNCTIONS if id(node) in table_calls else functions
            _check_function(node, allowed)
            if node["function_name"].lower() == "sky_match":
                _check_named_tables(node, tables)


def _check_named_tables(node: dict[str, Any], tables: set[str]) -> None:
    """Apply the rule of FROM to `sky_match`, which reads tables by name."""
    for argument in node["arguments"]:
        given = argument["expression"]
        literal = given.get("literal", {})
        names = [literal.get("text", "")] if literal.get("kind") == "STRING" else given.get("column_names", [])
        if given.get("class") not in ("CONSTANT", "COLUMN_REF") or len(names) > 1:
            raise _refused("an argument of sky_match is neither a view's name nor a number")
        for name in names:
            if name.lower() not in tables:
                raise _refused(f"there is no view {name!r}")


def _check_table(node: dict[str, Any], tables: set[str]) -> None:
    name = node["table_name"]
    if node.get("catalog_name") or node.get("schema_name"):
        raise _refused(f"it reads the table {name!r} of another schema")
    if name.lower() not in tables:
        raise _refused(f"there is no view {name!r}")


def _check_function(node: dict[str, Any], allowed: Collection[str]) -> None:
    name = node["function_name"].lower()
    if node.get("catalog") or node.get("schema") not in ("", "main", None):
        raise _refused(f"it calls the function {name!r} of another schema")
    if name not in allowed:
        raise _refused(f"the function {name!r} may not be called here")
    if node.get("export_state"):
        raise _refused("it takes the internal state of an aggregate")


@lru_cache(maxsize=1)
def _system_views(version: str) -> frozenset[str]:
    import duckdb

    with duckdb.connect() as connection:
        rows = connection.execute(
            "SELECT lower(view_name) FROM duckdb_views() WHERE internal AND schema_name <> 'information_schema'"
        ).fetchall()
    return frozenset(name for (name,) in rows)


def duckdb_version() -> str:
    """Version of DuckDB; cache key for its functions and views."""
    import duckdb

    return duckdb.__version__
