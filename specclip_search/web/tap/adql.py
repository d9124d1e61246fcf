"""ADQL's SELECT as SQL of DuckDB: TOP, positions and circles; everything else is left to the sandbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import MissingExtra, QueryError

if TYPE_CHECKING:
    from sqlglot import exp

# ADQL 2.1, section 4: shapes and functions that are not understood here
_UNKNOWN = frozenset(
    {"BOX", "POLYGON", "REGION", "AREA", "CENTROID", "COORD1", "COORD2", "COORDSYS", "INTERSECTS", "POINT", "CIRCLE"}
)
_LONGEST = 20_000


def to_duckdb(query: str) -> str:
    """ADQL as DuckDB's SQL.

    `CONTAINS(POINT(...), CIRCLE(...))` is 1 or 0 by `separation_arcsec`, `DISTANCE` is in degrees, `LOG` is the
    natural logarithm. The result is checked by the sandbox as any other statement.

    Parameters
    ----------
    query
        One SELECT of ADQL 2.0 or 2.1.

    Raises
    ------
    QueryError
        If it cannot be read, or uses a shape other than points and circles.
    MissingExtra
        If sqlglot is not installed.
    """
    try:
        from sqlglot import exp
        from sqlglot.errors import SqlglotError
    except ImportError as error:
        raise MissingExtra("sqlglot", "web", "ADQL") from error
    if len(query) > _LONGEST:
        raise QueryError(f"The query is longer than {_LONGEST:,} characters.", "Shorten it.")
    try:
        trees = _parsed(query)
        if len(trees) != 1 or not isinstance(trees[0], exp.Query):
            raise QueryError("ADQL is one SELECT; found another statement, or several.", "Send one SELECT.")
        tree = trees[0].transform(_rewritten)
        _refuse_shapes(tree)
        return str(tree.sql(dialect="duckdb"))
    except (SqlglotError, RecursionError) as error:
        said = " ".join(str(error).split("\n", 1)[0].split())[:300]
        raise QueryError(f"The query cannot be read as ADQL: {said}", "Check its syntax.") from error


def _parsed(query: str) -> list[Any]:
    import sqlglot
    from sqlglot.dialects.postgres import Postgres
    from sqlglot.tokens import TokenType

    class Adql(Postgres):
        """PostgreSQL's grammar with TOP; DuckDB's own is a child of it."""

        class Tokenizer(Postgres.Tokenizer):
            KEYWORDS = {**Postgres.Tokenizer.KEYWORDS, "TOP": TokenType.TOP}  # noqa: RUF012

    return [tree for tree in sqlglot.parse(query, read=Adql) if tree is not None]


def _rewritten(node: exp.Expr) -> exp.Expr:
    """One node of the tree, where ADQL and DuckDB mean different things by it."""
    from sqlglot import exp

    name = _name(node)
    if name == "CONTAINS":
        point, circle = _arguments(node)
        (ra, dec), (ra0, dec0, radius) = _coordinates(point, "POINT", 2), _coordinates(circle, "CIRCLE", 3)
        near = exp.LTE(this=_separation(ra, dec, ra0, dec0), expression=_times(radius, 3600))
        return exp.Case(ifs=[exp.If(this=near, true=exp.Literal.number(1))], default=exp.Literal.number(0))
    if name == "DISTANCE":
        given = _arguments(node)
        if len(given) == 2:
            given = [*_coordinates(given[0], "POINT", 2), *_coordinates(given[1], "POINT", 2)]
        if len(given) != 4:
            raise QueryError("DISTANCE takes two POINTs or four numbers.", "Write DISTANCE(POINT(a, b), POINT(c, d)).")
        return exp.Paren(this=exp.Div(this=_separation(*given), expression=exp.Literal.number("3600.0")))
    if isinstance(node, exp.Log) and node.args.get("expression") is None:
        return exp.Ln(this=node.this)
    if isinstance(node, exp.Ordered) and not node.args.get("explicit_nulls"):
        node.set("nulls_first", False)
    if isinstance(node, exp.Table) and node.db.lower() in ("tap", "public", "main"):
        node.set("db", None)
    return node


def _name(node: exp.Expr) -> str:
    from sqlglot import exp

    if isinstance(node, exp.Anonymous):
        return str(node.this).upper()
    return node.sql_name() if isinstance(node, exp.Func) and type(node) is not exp.Func else ""


def _arguments(node: exp.Expr) -> list[Any]:
    from sqlglot import exp

    if isinstance(node, exp.Anonymous):
        return list(node.expressions)
    return [value for value in (node.this, node.args.get("expression")) if value is not None]


def _coordinates(node: exp.Expr, shape: str, count: int) -> list[Any]:
    """Numbers of a shape; the name of a coordinate system before them is left out, for all is ICRS."""
    from sqlglot import exp

    numbers = _arguments(node) if _name(node) == shape else []
    if numbers and isinstance(numbers[0], exp.Literal) and numbers[0].is_string:
        numbers = numbers[1:]
    # CIRCLE(POINT(ra, dec), radius) of ADQL 2.1
    if shape == "CIRCLE" and len(numbers) == 2 and _name(numbers[0]) == "POINT":
        numbers = [*_coordinates(numbers[0], "POINT", 2), numbers[1]]
    if len(numbers) != count:
        raise QueryError(
            f"A {shape} was expected; found {node.sql()[:80]}.",
            "Write CONTAINS(POINT(ra, dec), CIRCLE(ra0, dec0, radius)), degrees, ICRS.",
        )
    return numbers


def _separation(*numbers: Any) -> exp.Expr:
    from sqlglot import exp

    return exp.Anonymous(this="separation_arcsec", expressions=[number.copy() for number in numbers])


def _times(value: Any, factor: int) -> exp.Expr:
    from sqlglot import exp

    return exp.Mul(this=exp.Literal.number(factor), expression=exp.Paren(this=value.copy()))


def _refuse_shapes(tree: exp.Expr) -> None:
    from sqlglot import exp

    for node in tree.find_all(exp.Func):
        if _name(node) in _UNKNOWN:
            raise QueryError(
                f"{_name(node)} is not understood here.", "Positions are asked by CONTAINS(POINT, CIRCLE) or DISTANCE."
            )
