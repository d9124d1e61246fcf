"""Output of result rows to the terminal and to files; every command uses `write_rows`."""

from __future__ import annotations

from .binary import to_qtable, to_table
from .write import FORMATS, format_of, require_writable, write_rows

__all__ = ["FORMATS", "format_of", "require_writable", "to_qtable", "to_table", "write_rows"]
