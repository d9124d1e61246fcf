"""Which table of a file with several is the catalogue: the one with keys, unless the user names another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import SpecclipError
from ..labels import KEY_NAMES, standard_name


@dataclass(frozen=True, slots=True)
class Choice:
    """A table of a file: its number, name, columns and number of rows."""

    number: int
    name: str
    columns: list[str]
    rows: int

    def __str__(self) -> str:
        shown = ", ".join(self.columns[:4]) + (", ..." if len(self.columns) > 4 else "")
        named = f" ({self.name})" if self.name else ""
        return f"table {self.number}{named} of {self.rows:,} rows: {shown}"

    def merit(self) -> int:
        """2 with keys of stars or spectra, 1 with positions, else 0; -1 without a row."""
        names = {standard_name(name) for name in self.columns}
        if not self.rows:
            return -1
        return 2 if names & set(KEY_NAMES) else 1 if {"ra", "dec"} <= names else 0


def choose_table(tables: Sequence[Choice], path: Path, wanted: str | None) -> tuple[int, list[str]]:
    """Number of the table to read, and a note for each that is left out.

    Raises
    ------
    SpecclipError
        If there is no table of the name or number that was asked for.
    """
    if wanted is None:
        chosen = max(tables, key=lambda table: table.merit())
    else:
        found = [table for table in tables if wanted.lower() in (table.name.lower(), str(table.number))]
        if not found:
            raise SpecclipError(f"{path} has no table '{wanted}'.",
                                f"Name one with --hdu: {'; '.join(map(str, tables))}.")
        chosen = found[0]
    notes = [f"{table} left out; --hdu {table.number} takes it" for table in tables if table is not chosen]
    if notes:
        notes.insert(0, f"{chosen} taken")
    return chosen.number, notes
