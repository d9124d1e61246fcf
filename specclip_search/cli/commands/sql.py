"""`specclip-search sql`"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..options import AtlasOption, FormatOption, OutputOption, open_atlas

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def sql(
    atlas: AtlasOption,
    statement: Annotated[str | None, typer.Argument(metavar="STATEMENT", help="SQL; '-' reads standard input.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", exists=True, dir_okay=False, help="Read the statement here.")
    ] = None,
    format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Ask the atlas in SQL (DuckDB) over stars, spectra, vectors, scores and catalogues.

    `SHOW TABLES` lists what there is, `DESCRIBE stars` the columns. `similar('lamost:101001', 100)` is a table.

    Example: specclip-search sql "SELECT count(*) FROM spectra" --atlas demo-atlas
    """
    from ...errors import QueryError
    from ...tables import write_rows

    if file is not None:
        statement = file.read_text(encoding="utf-8")
    elif statement == "-":
        statement = sys.stdin.read()
    if not statement or not statement.strip():
        raise QueryError("No SQL statement was given.", 'Give one in quotes, with --file, or "-" for standard input.')
    relation = open_atlas(atlas).sql(statement)
    if relation is not None:
        write_rows(relation.to_arrow_table(), format, output)
