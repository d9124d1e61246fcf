"""`specclip-search sql`"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..options import AtlasOption, FormatOption, OutputOption, open_atlas
from ..quick_start import keep_pandas_out
from ..reports import say

if TYPE_CHECKING:
    import pyarrow as pa

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def sql(
    atlas: AtlasOption,
    statement: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[STATEMENT] [VALUE]...",
            help="SQL, and values for its '?'; '-' reads standard input. Without it, a prompt on a terminal.",
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", exists=True, dir_okay=False, metavar="FILE", help="Read the statement from this file."),
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", metavar="NAME=VALUE", help="Value for '$NAME'; repeatable.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="Fetch at most N rows.")] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", min=0.001, metavar="S", help="Stop after S seconds.")
    ] = None,
    sandbox: Annotated[
        bool,
        typer.Option(
            "--read-only-sandbox",
            help="Allow only one SELECT over the atlas: no files, network or settings; 10,000 rows, 10 s, 512 MB.",
        ),
    ] = False,
    send: Annotated[
        str | None,
        typer.Option(
            "--send",
            metavar="PROGRAM",
            help="Send the rows by SAMP to topcat, aladin, ... or all, instead of printing.",
        ),
    ] = None,
    selected: Annotated[
        float | None,
        typer.Option(
            "--selected",
            min=0.1,
            metavar="S",
            help="With --send: wait S seconds for rows selected in that program, and print them.",
        ),
    ] = None,
    format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Query the atlas with SQL (DuckDB): stars, spectra, vectors, scores and catalogues.

    `SHOW TABLES` lists the views, `DESCRIBE stars` their columns. `similar('lamost:101001', 100)` is a table.

    Example: specclip-search sql "SELECT count(*) FROM spectra WHERE snr > ?" 50 --atlas demo-atlas
    """
    keep_pandas_out()
    from ...errors import QueryError
    from ...tables import require_writable, write_rows
    from ..statements import Statements, parse_parameters

    text, values = _statement(list(statement or []), file)
    require_writable(format, output)
    parameters = parse_parameters(param or [], values)
    if selected is not None and send is None:
        raise QueryError("--selected waits for rows of a table that was sent; none was sent.", "Add --send topcat.")
    if text is None and (send is not None or output is not None):
        raise QueryError("--send and --output need a statement; none was given.", "Give one in quotes, or with --file.")
    with Statements(open_atlas(atlas), limit, timeout, sandbox) as statements:
        if text is None:
            from ..prompt import Prompt

            Prompt(statements, format).run()
            return
        table, truncated = statements.run(text, parameters)
        if statements.ran > 1:
            say(f"{statements.ran} statements were run; only the rows of the last one are shown.")
        if truncated:
            say(f"There are more rows than the limit of {statements.rows:,}.")
        if table is not None and send is not None:
            table = _sent(table, send, selected)
        if table is not None:
            write_rows(table, format, output)


def _sent(table: pa.Table, program: str, wait_s: float | None) -> pa.Table | None:
    """Send rows to other programs; return the rows selected there if requested."""
    from ...tables.samp import SampTable

    with SampTable(table, client=None if program.lower() == "all" else program) as sent:
        say(f"{table.num_rows:,} rows sent to {', '.join(sent.receivers)}")
        if wait_s is None:
            return None
        chosen = sent.selected(wait_s)
    if chosen is None:
        say(f"No rows were selected within {wait_s:g} s.")
    return chosen


def _statement(words: list[str], file: Path | None) -> tuple[str | None, list[str]]:
    """The statement (None: use the prompt) and the values for its question marks."""
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
