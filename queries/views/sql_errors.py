"""DuckDB's complaints as our own errors."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from specclip_search.errors import QueryError

if TYPE_CHECKING:
    from .views import AtlasViews


def as_query_error(error: Exception, views: AtlasViews) -> QueryError:
    """DuckDB's message in one line, and what there is where a name was not found."""
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
