"""The interactive prompt of `sql`: completion, history, statements over several lines."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import QueryError, SpecclipError
from .reports import say

if TYPE_CHECKING:
    from .statements import Statements

_HISTORY_LENGTH = 2000
_KEYWORDS = re.findall(
    r"\w+",
    "SELECT FROM WHERE GROUP BY ORDER LIMIT JOIN LEFT USING ON AS AND OR NOT IN IS NULL BETWEEN LIKE DISTINCT COUNT "
    "HAVING WITH UNION ALL DESC ASC CASE WHEN THEN ELSE END DESCRIBE SHOW TABLES SUMMARIZE",
)
_FUNCTIONS = tuple(
    f"{name}("
    for name in re.findall(r"\w+", "similar translate cone sky_match cosine separation_arcsec median avg min max")
)
_HELP = """End a statement with ';'. Tab completes views, columns and functions; arrows bring back earlier statements.
.tables           the available views
.describe VIEW    its columns, units and descriptions
.format NAME      table, csv or json
.quit             leave (also Ctrl-D)"""


class Prompt:
    """Read statements from the terminal and show their rows.

    Parameters
    ----------
    statements
        Runs the statements.
    format
        Output format: table, csv or json.
    """

    def __init__(self, statements: Statements, format: str | None = None) -> None:
        self.statements = statements
        self.format = _text_format(format or "table")
        self._candidates: list[str] = []

    def run(self) -> None:
        """The prompt loop; an error in one statement does not end it."""
        say("SQL over the atlas; .help shows help, Ctrl-D leaves.")
        with self._line_editing():
            while (statement := self._read()) is not None:
                try:
                    if not self._done(statement):
                        return
                except SpecclipError as error:
                    say(error.message, *([error.hint] if error.hint else []))
                except KeyboardInterrupt:
                    say("stopped")

    def _read(self) -> str | None:
        """One statement, up to the ';' at the end of a line; None at the end of input."""
        lines: list[str] = []
        while True:
            try:
                line = input("...> " if lines else "sql> ")
            except EOFError:
                say("")
                return None
            except KeyboardInterrupt:
                say("")
                lines = []
                continue
            if not lines and line.strip().startswith("."):
                return line.strip()
            if not lines and line.strip().lower() in ("quit", "exit", "quit;", "exit;"):
                return ".quit"
            if line.strip() or lines:
                lines.append(line)
            if line.rstrip().endswith(";"):
                return "\n".join(lines)

    def _done(self, statement: str) -> bool:
        """Run a statement; False if the user wants to leave."""
        if statement.startswith("."):
            word, _, rest = statement[1:].partition(" ")
            if word == "quit":
                return False
            if word == "help":
                say(_HELP)
                return True
            if word == "format":
                self.format = _text_format(rest.strip())
                return True
            if word not in ("tables", "describe"):
                raise QueryError(f"There is no command '.{word}'.", "See .help.")
            statement = "SHOW TABLES" if word == "tables" else f"DESCRIBE {rest.strip()}"
        self._show(statement)
        return True

    def _show(self, statement: str) -> None:
        from ..tables import write_rows

        table, truncated = self.statements.run(statement)
        if self.statements.ran > 1:
            say(f"{self.statements.ran} statements were run; only the rows of the last one are shown.")
        if table is None:
            return
        write_rows(table, self.format)
        sys.stdout.flush()
        more = ", and more beyond the limit" if truncated else ""
        say(f"({table.num_rows:,} row{'' if table.num_rows == 1 else 's'}{more})")

    def complete(self, text: str, state: int) -> str | None:
        """For readline: the completion number `state` of `text`, None after the last."""
        if state == 0:
            self._candidates = list(self._completions(text))
        return self._candidates[state] if state < len(self._candidates) else None

    def _completions(self, text: str) -> Iterator[str]:
        views = self.statements.connection.views.all
        view, point, start = text.rpartition(".")
        if point:
            known = [field.name for field in views[view.lower()].fields()] if view.lower() in views else []
            return (f"{view}.{name}" for name in known if name.startswith(start.lower()))
        columns = {field.name for each in views.values() for field in each.fields()}
        words = [*views, *sorted(columns - set(views)), *_FUNCTIONS]
        lower = [word.lower() if text.islower() else word for word in _KEYWORDS]
        found = dict.fromkeys(word for word in [*words, *lower] if word.lower().startswith(text.lower()))
        return iter(found)

    @contextmanager
    def _line_editing(self) -> Iterator[None]:
        """Set up completion and history if Python has readline; the prompt also works without it."""
        try:
            import readline
        except ImportError:
            yield
            return
        history = history_file()
        try:
            readline.read_history_file(history)
        except OSError:
            readline.clear_history()
        readline.set_history_length(_HISTORY_LENGTH)
        readline.set_completer(self.complete)
        readline.set_completer_delims(re.sub(r"[.]", "", readline.get_completer_delims()))
        # Python on macOS may be built with libedit, which uses another syntax
        edit = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if edit else "tab: complete")
        try:
            yield
        finally:
            readline.set_completer(None)
            try:
                history.parent.mkdir(parents=True, exist_ok=True)
                readline.write_history_file(history)
            except OSError as error:
                say(f"The history is not saved: {error}")


def history_file() -> Path:
    """Path of the history file: below XDG_STATE_HOME, by default ~/.local/state."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return state / "specclip-search" / "sql_history"


def _text_format(name: str) -> str:
    if name not in ("table", "csv", "json"):
        raise QueryError(f"The prompt cannot show rows as '{name}'.", "Choose table, csv or json.")
    return name
