"""Rows of a statement as pandas, Arrow, polars or astropy tables, with units and descriptions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from specclip_search.atlas.manifest import as_text
from specclip_search.errors import MissingExtra, QueryError
from specclip_search.tables.provenance import with_about

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import polars
    from astropy.table import QTable

    from .connection import AtlasConnection
    from .views import AtlasViews


_BATCH_ROWS = 65_536


class Rows:
    """Rows of a statement: a DuckDB relation that keeps its connection open and raises QueryError.

    Supports everything a DuckDB relation does. Ids are integers in every format, even if
    some are null. Every call runs the statement again; keep the table to use it twice.
    """

    def __init__(self, relation: duckdb.DuckDBPyRelation, connection: AtlasConnection) -> None:
        self.relation = relation
        self._connection = connection

    def df(self) -> pd.DataFrame:
        """A pandas DataFrame; integers with nulls are `Int64`."""
        return self._connection.guarded(self.relation.df)

    to_df = df

    def arrow(self) -> pa.Table:
        """An Arrow table; fields carry unit, description and ucd if the atlas has them."""
        table = self._connection.guarded(self.relation.to_arrow_table)
        return with_meanings(table, self._connection.views)

    to_arrow_table = arrow

    def pl(self) -> polars.DataFrame:
        """A polars DataFrame; ids are Int64, null where missing.

        Raises
        ------
        MissingExtra
            If polars is not installed.
        """
        try:
            import polars
        except ImportError as error:
            raise MissingExtra("polars", "polars", "A polars DataFrame") from error
        return polars.DataFrame(self.arrow())

    def qtable(self) -> QTable:
        """An astropy QTable with units."""
        from specclip_search.tables import to_qtable

        return to_qtable(self.arrow())

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.relation, name)
        if not callable(value):
            return value

        def call(*arguments: Any, **options: Any) -> Any:
            result = self._connection.guarded(lambda: value(*arguments, **options))
            return Rows(result, self._connection) if type(result) is type(self.relation) else result

        return call

    def __repr__(self) -> str:
        return self._connection.guarded(lambda: repr(self.relation))

    def __len__(self) -> int:
        return self._connection.guarded(lambda: len(self.relation))


def with_meanings(table: pa.Table, views: AtlasViews) -> pa.Table:
    """Add unit, description and UCD to columns with the name of an atlas column."""
    known = views.meanings()
    fields = [
        field.with_metadata(known[field.name].metadata) if field.name in known and not field.metadata else field
        for field in table.schema
    ]
    whole = pa.Table.from_arrays(table.columns, schema=pa.schema(fields))
    partial = views.atlas.partial
    return with_about(whole, {"partial": as_text(partial)}) if partial else whole


def stream(
    connection: AtlasConnection, table: str, batch_rows: int = _BATCH_ROWS
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Columns with their descriptions, and rows of a view or SELECT in batches."""
    rows = connection.run(f"SELECT * FROM {table}" if table.isidentifier() else table)
    if rows is None:
        raise QueryError(f"'{table}' is neither a table nor a SELECT.", "Name a view or catalogue, or give a SELECT.")
    reader = connection.guarded(lambda: rows.relation.to_arrow_reader(batch_rows))
    schema = with_meanings(reader.schema.empty_table(), connection.views).schema

    def batches() -> Iterator[pa.RecordBatch]:
        while (batch := connection.guarded(lambda: next(reader, None))) is not None:
            yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)

    return schema, batches()
