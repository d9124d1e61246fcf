"""Which Parquet files stand behind a view, what is said of their columns, and the one place where names get into SQL.

Names of columns, folders and catalogues, and what is said of them, come from the atlas's files. An atlas is what
people share: none of its names may end a literal and begin a statement. Whatever puts a name into SQL does it with
`identifier`, whatever puts a text there with `quoted`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from specclip_search.atlas.integrity import check_shards
from specclip_search.atlas.schemas import said_of
from specclip_search.errors import AtlasError

if TYPE_CHECKING:
    from specclip_search.atlas import Stage


def read_parquet_sql(files: Sequence[str]) -> str:
    """`read_parquet([...])` over exactly these files, whose bytes are those that their sidecars say.

    DuckDB does not look at Parquet's checksums, so that they are checked before it may read them.
    """
    check_shards(files)
    return "read_parquet([" + ", ".join(quoted(no_glob(file)) for file in files) + "])"


def quoted(text: str) -> str:
    """A SQL string literal. NUL, which ends a statement for some parsers, becomes the replacement character."""
    return "'" + text.replace("'", "''").replace("\0", "\N{REPLACEMENT CHARACTER}") + "'"


def identifier(name: str) -> str:
    """A SQL identifier, quoted.

    Raises
    ------
    AtlasError
        If it is empty or holds NUL: no database can have a column or table of that name.
    """
    if not name or "\0" in name:
        raise AtlasError(
            f"The atlas has a column or table named {name!r}, which SQL cannot name.",
            "Ingest that table again with other names.",
        )
    return '"' + name.replace('"', '""') + '"'


def no_glob(path: str) -> str:
    """Escape a path: a folder may be called 'run[1]', which DuckDB would treat as a pattern."""
    return "".join(f"[{c}]" if c in "[*?" else c for c in path)


def fields_of(file: str) -> list[pa.Field]:
    """Columns of a shard with their metadata, from its footer."""
    import pyarrow.parquet as pq

    check_shards([file])
    return list(pq.read_schema(file))


def meaning(field: pa.Field) -> str:
    """One-line description of a column with its unit."""
    said = said_of(field)
    unit = f" [{said['unit']}]" if said.get("unit") else ""
    return (said.get("description", "") + unit).strip()


def take_rows(stage: Stage, rows: np.ndarray) -> pa.Table:
    """Rows of a stage by their number over all shards, in the order of `rows`; one shard in memory at a time."""
    import pyarrow.parquet as pq

    pieces, owners, start = [], [], 0
    for part in stage.parts():
        here = np.flatnonzero((rows >= start) & (rows < start + part.rows))
        if len(here):
            pieces.append(pq.ParquetFile(part.path).read().take(pa.array(rows[here] - start)))
            owners.append(here)
        start += part.rows
    if not pieces:
        raise stage.missing()
    return pa.concat_tables(pieces).take(pa.array(np.argsort(np.concatenate(owners), kind="stable")))
