"""Output of result rows, shared by every command."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ..errors import QueryError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Format:
    """One format of rows.

    Attributes
    ----------
    name
        Its name for `--format`.
    suffixes
        Ends of file names that mean it, in lower case, the usual one first.
    write
        Writes a pyarrow Table to a text stream; of a format for files alone, to a path.
    needs_file
        Binary: it cannot be written to the terminal, and holds its own provenance.
    """

    name: str
    suffixes: tuple[str, ...]
    write: Callable[[pa.Table, Any], None]
    needs_file: bool = False


FORMATS: dict[str, Format] = {}
"""Formats by name, in the order in which they are offered."""


def register_format(format: Format) -> Format:
    """Make a format known to `write_rows` and the command line.

    Raises
    ------
    QueryError
        If another format has its name or one of its suffixes.
    """
    taken = [suffix for known in FORMATS.values() for suffix in known.suffixes if suffix in format.suffixes]
    if format.name in FORMATS or taken:
        raise QueryError(
            f"The format '{format.name}' is registered already, or its suffix is: {', '.join(taken) or format.name}.",
            "Give the new one another name and other suffixes.",
        )
    FORMATS[format.name] = format
    return format


def _writer(module: str, function: str) -> Callable[[pa.Table, Any], None]:
    """A writer of this package, imported when it is first used."""

    def write(table: pa.Table, target: Any) -> None:
        getattr(import_module(f".{module}", __package__), function)(table, target)

    return write


for _format in (
    Format("table", (".txt",), _writer("text", "write_table")),
    Format("csv", (".csv",), _writer("text", "write_csv")),
    Format("json", (".json",), _writer("text", "write_json")),
    Format("parquet", (".parquet", ".pq"), _writer("voparquet", "write_parquet"), needs_file=True),
    Format("votable", (".vot", ".votable", ".xml"), _writer("binary", "write_votable"), needs_file=True),
    Format("fits", (".fits", ".fit"), _writer("binary", "write_fits"), needs_file=True),
):
    register_format(_format)


def write_rows(
    table: pa.Table | pd.DataFrame,
    format: str | None = None,
    output: str | os.PathLike[str] | None = None,
    stream: TextIO | None = None,
    first: Sequence[str] = (),
) -> None:
    """Write rows to the terminal or, atomically, to a file.

    Parameters
    ----------
    table
        Rows; field metadata `unit`, `description` and `ucd` are written to formats that support them.
        A DataFrame is accepted too; the provenance in its `attrs` (model, digests, version, options) is written
        to Parquet metadata, VOTable INFO and FITS HISTORY, and for other formats to `FILE.about.json`.
    format
        One of `FORMATS`; by default from the suffix of `output`, else 'table'.
    output
        File to write; parquet, votable and fits need one.
    stream
        Where to write without `output`; standard output by default.
    first
        Columns that a table shows first if the terminal is too narrow for all.

    Raises
    ------
    QueryError
        If the format is unknown, does not follow from the file name, or needs a file.
    """
    chosen = require_writable(format, output)
    table = as_arrow(table)
    if output is not None:
        _write_file(table, chosen, Path(output))
    elif chosen == "table":
        from .text import write_table

        write_table(table, stream or sys.stdout, first=first)
    else:
        FORMATS[chosen].write(table, stream or sys.stdout)


def require_writable(format: str | None = None, output: str | os.PathLike[str] | None = None) -> str:
    """The format that `write_rows` will use; call it before a long search to report errors early.

    Raises
    ------
    QueryError
        If the format is unknown, does not follow from the file name or needs a file, or the file is not writable.
    """
    chosen = format_of(format, output)
    if output is None:
        if FORMATS[chosen].needs_file:
            raise QueryError(
                f"The format '{chosen}' needs a file; none was given.",
                f"Add --output, for example --output rows.{FORMATS[chosen].suffixes[0].lstrip('.')}.",
            )
        return chosen
    path = Path(output)
    if path.is_dir():
        raise QueryError(
            f"--output must name a file; {path} is a folder.", f"Give a file in it: {path / 'rows'}.{chosen}"
        )
    folder = next(parent for parent in (path.absolute()).parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        what = "is a file" if not folder.is_dir() else "is not writable"
        raise QueryError(f"--output {path} cannot be written: {folder} {what}.", "Choose another folder.")
    return chosen


def format_of(format: str | None, output: str | os.PathLike[str] | None) -> str:
    """The format given by an explicit name or by a file suffix.

    Raises
    ------
    QueryError
        If neither determines the format.
    """
    if format is not None:
        if format.lower() not in FORMATS:
            raise QueryError(f"There is no format '{format}'.", f"Choose one of {', '.join(FORMATS)}.")
        return format.lower()
    if output is None:
        return "table"
    suffix = Path(output).suffix.lower()
    by_suffix = {ending: known.name for known in FORMATS.values() for ending in known.suffixes}
    if suffix not in by_suffix:
        raise QueryError(
            f"The name '{Path(output).name}' does not determine the file format.",
            f"End it in one of {', '.join(by_suffix)}, or give --format.",
        )
    return by_suffix[suffix]


def as_arrow(table: pa.Table | pd.DataFrame) -> pa.Table:
    """Rows as Arrow with their units, descriptions and provenance; NaN of a DataFrame becomes null."""
    import pyarrow as pa

    from .meanings import with_known
    from .provenance import with_about

    if isinstance(table, pa.Table):
        return with_known(table)
    # NaN in a float column of a DataFrame means null
    said = table.attrs.get("columns", {})
    about = {name: value for name, value in table.attrs.items() if name != "columns"}
    plain = pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(None)
    plain = plain.cast(pa.schema([field.with_metadata(said.get(field.name)) for field in plain.schema]))
    return with_about(with_known(plain), about)


def _write_file(table: pa.Table, format: str, path: Path) -> None:
    from ..atlas.files import whole_file
    from .provenance import write_sidecar

    chosen = FORMATS[format]
    with whole_file(path) as temporary:
        if chosen.needs_file:
            chosen.write(table, temporary)
        else:
            with open(temporary, "w", encoding="utf-8", newline="") as handle:
                chosen.write(table, handle)
    if not chosen.needs_file:
        write_sidecar(table, path)
