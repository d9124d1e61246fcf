"""Export tables of an atlas to any format, larger than memory if the format allows it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from specclip_search.errors import QueryError
from specclip_search.tables import FORMATS, format_of, write_rows
from specclip_search.tables.hats import GROUP_ROWS, MARGIN_ARCSEC, MAX_ROWS, write_hats
from specclip_search.tables.plain import storable

from ..views.rows import stream
from .ask import connect
from .nested import ROWS_A_TILE, ROWS_AT_ONCE, nested_statement

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas

_CHOICES = (*(name for name in FORMATS if name != "table"), "hats")


def export_table(
    atlas: Atlas,
    table: str,
    output: str | os.PathLike[str],
    format: str | None = None,
    *,
    nested: bool = False,
    max_rows: int | None = None,
    margin_arcsec: float = MARGIN_ARCSEC,
    progress: Callable[[int], None] | None = None,
) -> str:
    """Write a view, a catalogue or the rows of a SELECT atomically.

    Parameters
    ----------
    output
        A file; for hats a folder that must not exist yet.
    format
        parquet, hats, votable, fits, csv or json; by default from the suffix of `output`.
        parquet and hats are written in batches, the others from memory.
    nested
        For hats and a view of spectra: arrays as the nested columns of `specclip_search.queries.sql.nested`.
    max_rows, margin_arcsec
        Options for hats; see `specclip_search.tables.hats.write_hats`.
    progress
        Called with the rows written so far.

    Returns
    -------
    Description of what was written.

    Raises
    ------
    QueryError
        If the table, the format or the output is invalid.

    Examples
    --------
    >>> from specclip_search import Atlas, export_table
    >>> export_table(Atlas("demo-atlas"), "SELECT source_id, ra, dec FROM stars LIMIT 10", "stars.vot")
    '10 rows'
    """
    chosen = _format(format, output)
    if nested and chosen != "hats":
        raise QueryError(f"Nested columns are for hats; the format is {chosen}.", "Leave out --format.")
    most = max_rows or (ROWS_A_TILE if nested else MAX_ROWS)
    at_once = ROWS_AT_ONCE if nested else GROUP_ROWS
    with connect(atlas) as connection:
        schema, batches = stream(connection, nested_statement(atlas, table) if nested else table, at_once)
        if chosen == "hats":
            report = write_hats(
                batches, schema, output, max_rows=most, margin_arcsec=margin_arcsec, group_rows=at_once,
                progress=progress,
            )  # fmt: skip
            return str(report)
        if chosen == "parquet":
            rows = _write_parquet(batches, schema, Path(output), progress)
        else:
            whole = pa.Table.from_batches(list(batches), schema=schema)
            write_rows(whole, chosen, output)
            rows = whole.num_rows
    return f"{rows:,} rows"


def _format(format: str | None, output: str | os.PathLike[str]) -> str:
    chosen = "hats" if format is not None and format.lower() == "hats" else format_of(format, output)
    if chosen not in _CHOICES:
        raise QueryError(f"'{chosen}' is for the terminal.", f"Choose one of {', '.join(_CHOICES)}.")
    return chosen


def _write_parquet(
    batches: Iterator[pa.RecordBatch], schema: pa.Schema, path: Path, progress: Callable[[int], None] | None
) -> int:
    import pyarrow.parquet as pq

    from specclip_search.atlas.files import whole_file
    from specclip_search.tables.voparquet import Seen, at_the_end

    rows, none = 0, storable(schema.empty_table())
    seen = Seen().add(none)
    with (
        whole_file(path) as temporary,
        pq.ParquetWriter(temporary, none.schema, compression="zstd", store_schema=False) as writer,
    ):
        for batch in batches:
            piece = storable(pa.Table.from_batches([batch], schema=schema))
            writer.write_table(piece)
            seen.add(piece)
            rows += batch.num_rows
            if progress is not None:
                progress(rows)
        writer.add_key_value_metadata(at_the_end(none.schema, seen))
    return rows
