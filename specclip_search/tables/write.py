"""Output of result rows, shared by every command."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from ..errors import QueryError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

FORMATS = ("table", "csv", "json", "parquet", "votable", "fits")
_BINARY = ("parquet", "votable", "fits")
_SUFFIXES = {
    ".txt": "table",
    ".csv": "csv",
    ".json": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".vot": "votable",
    ".votable": "votable",
    ".xml": "votable",
    ".fits": "fits",
    ".fit": "fits",
}


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
    table = _as_arrow(table)
    if output is not None:
        _write_file(table, chosen, Path(output))
    elif chosen == "table":
        from .text import write_table

        write_table(table, stream or sys.stdout, first=first)
    else:
        _text_writer(chosen)(table, stream or sys.stdout)


def require_writable(format: str | None = None, output: str | os.PathLike[str] | None = None) -> str:
    """The format that `write_rows` will use; call it before a long search to report errors early.

    Raises
    ------
    QueryError
        If the format is unknown, does not follow from the file name or needs a file, or the file is not writable.
    """
    chosen = format_of(format, output)
    if output is None:
        if chosen in _BINARY:
            raise QueryError(
                f"The format '{chosen}' needs a file; none was given.",
                f"Add --output, for example --output rows.{'vot' if chosen == 'votable' else chosen}.",
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
    if suffix not in _SUFFIXES:
        raise QueryError(
            f"The name '{Path(output).name}' does not determine the file format.",
            f"Use one of the suffixes {', '.join(_SUFFIXES)}, or give --format.",
        )
    return _SUFFIXES[suffix]


def _as_arrow(table: pa.Table | pd.DataFrame) -> pa.Table:
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


def _text_writer(format: str) -> Callable[[pa.Table, TextIO], None]:
    from . import text

    return {"table": text.write_table, "csv": text.write_csv, "json": text.write_json}[format]


def _write_file(table: pa.Table, format: str, path: Path) -> None:
    from ..atlas.files import whole_file
    from .provenance import write_sidecar

    with whole_file(path) as temporary:
        if format in _BINARY:
            from . import binary

            {"parquet": binary.write_parquet, "votable": binary.write_votable, "fits": binary.write_fits}[format](
                table, temporary
            )
        else:
            with open(temporary, "w", encoding="utf-8", newline="") as handle:
                _text_writer(format)(table, handle)
    if format not in _BINARY:
        write_sidecar(table, path)
