"""`specclip-search sql`"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..options import AtlasOption, FormatOption, OutputOption, open_atlas
from ..reports import say

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def sql(
    atlas: AtlasOption,
    statement: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[STATEMENT] [VALUE]...",
            help="SQL, and values for its '?'; '-' reads standard input. On a terminal without it: a prompt.",
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", exists=True, dir_okay=False, metavar="FILE", help="Read the statement here."),
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", metavar="NAME=VALUE", help="Value for '$NAME'; repeatable.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="Fetch at most N rows.")] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", min=0.001, metavar="S", help="Give up after S seconds.")
    ] = None,
    sandbox: Annotated[
        bool,
        typer.Option(
            "--read-only-sandbox",
            help="Allow one SELECT over the atlas alone: no files, network or settings; 10,000 rows, 10 s, 512 MB.",
        ),
    ] = False,
    format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Ask the atlas in SQL (DuckDB) over stars, spectra, vectors, scores and catalogues.

    `SHOW TABLES` lists what there is, `DESCRIBE stars` the columns. `similar('lamost:101001', 100)` is a table.

    Example: specclip-search sql "SELECT count(*) FROM spectra WHERE snr > ?" 50 --atlas demo-atlas
    """
    from ...tables import format_of, write_rows
    from ..statements import Statements, parse_parameters

    text, values = _statement(list(statement or []), file)
    format_of(format, output)
    parameters = parse_parameters(param or [], values)
    with Statements(open_atlas(atlas), limit, timeout, sandbox) as statements:
        if text is None:
            from ..prompt import Prompt

            Prompt(statements, format).run()
            return
        table, truncated = statements.run(text, parameters)
        if table is not None:
            write_rows(table, format, output)
        if truncated:
            say(f"There are more rows than the {statements.rows:,} of the limit.")


def _statement(words: list[str], file: Path | None) -> tuple[str | None, list[str]]:
    """The statement, None where a prompt should ask for it; and values for its question marks."""
    from ...errors import QueryError

    if file is not None:
        try:
            text, values = file.read_text(encoding="utf-8-sig"), words
        except (OSError, UnicodeDecodeError) as error:
            raise QueryError(f"{file} cannot be read as text: {error}.", "Save the statement as UTF-8.") from error
    elif not words:
        if sys.stdin.isatty():
            return None, []
        text, values = "", []
    else:
        text, values = sys.stdin.read() if words[0] == "-" else words[0], words[1:]
    if not text.strip():
        raise QueryError("No SQL statement was given.", 'Give one in quotes, with --file, or "-" for standard input.')
    return text, values
