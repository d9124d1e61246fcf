"""Text output: a table that fits the terminal, CSV, JSON."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from ..errors import printable
from .plain import json_value, plain_column

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH_ROWS = 10_000
_GAP = 2
# useful decimals for display; --format csv and the others keep every digit
_DECIMALS = {
    "similarity": 4,
    "probability": 4,
    "ra": 6,
    "dec": 6,
    "teff": 0,
    "logg": 2,
    "feh": 2,
    "alpha_m": 2,
    "alpha_fe": 2,
    "c_fe": 2,
    "rv": 1,
    "snr": 1,
    "score": 2,
}
_DIGITS = {"p_value": 2, "q_value": 2}
_WIDEST_TEXT = 60
_NARROWEST_TEXT = 20
_MOST_NAMED = 24


def write_table(table: pa.Table, stream: TextIO, width: int | None = None, first: Sequence[str] = ()) -> None:
    """Write aligned columns; on a terminal only those that fit, and a last line that lists the others.

    Text is truncated to 60 characters, except in the last column, which is wrapped on a terminal.

    Parameters
    ----------
    width
        Characters per line; by default the terminal's width, unlimited without a terminal.
    first
        Most important columns, shown first if not all fit; columns without any value are skipped. If the last
        of them is text, it takes the rest of the line and no other columns are shown.
    """
    if width is None:
        width = _terminal_width(stream)
    everything = table.column_names
    if width is not None and first:
        table = _most_telling_first(table, first)
    names = [_printable(name) for name in table.column_names]
    cells = [_cells(field, column) for field, column in zip(table.schema, table.columns, strict=True)]
    widths = [max([len(name), *map(len, column)]) for name, column in zip(names, cells, strict=True)]
    room = _room_for_whole_texts(table, widths, width)
    if room > 0:
        cells[-1] = ["" if value is None else _printable(value) for value in table.columns[-1].to_pylist()]
        widths[-1] = min(room, max([len(names[-1]), *map(len, cells[-1])]))
    shown = _that_fit(widths, width)
    right = [_is_number(field) for field in table.schema]

    def line(values: list[str]) -> str:
        padded = [v.rjust(w) if r else v.ljust(w) for v, w, r in zip(values, widths, right, strict=False)]
        return (" " * _GAP).join(padded[:shown]).rstrip()

    heading = line(names)
    bold = ("\x1b[1m", "\x1b[0m") if _is_terminal(stream) else ("", "")
    stream.write(f"{bold[0]}{heading}{bold[1]}\n")
    for row in zip(*cells, strict=True):
        first, *rest = textwrap.wrap(row[-1], room) if len(row[-1]) > room > 0 else [row[-1]]
        stream.write(line([*row[:-1], first]) + "\n")
        for piece in rest:
            stream.write(" " * (sum(widths[:-1]) + _GAP * (len(names) - 1)) + piece + "\n")
    hidden = [name for name in map(_printable, everything) if name not in names[:shown]]
    if hidden:
        named = ", ".join(hidden) if len(hidden) <= _MOST_NAMED else f"{', '.join(hidden[:_MOST_NAMED])}, ..."
        stream.write(f"({len(hidden)} more: {named}; --format csv shows all)\n")


def _most_telling_first(table: pa.Table, first: Sequence[str]) -> pa.Table:
    """The columns of `first` that hold a value, then the others unless the last of `first` is text."""
    ahead = [name for name in first if name in table.column_names and table[name].null_count < max(len(table), 1)]
    text_last = ahead[-1:] == list(first[-1:]) and _is_text(table.schema.field(ahead[-1]))
    return table.select(ahead if text_last else [*ahead, *(name for name in table.column_names if name not in ahead)])


def _room_for_whole_texts(table: pa.Table, widths: list[int], width: int | None) -> int:
    """Characters per line for a last column that is wrapped, 0 if it is truncated like the others."""
    if not widths or not _is_text(table.schema.field(len(widths) - 1)):
        return 0
    if width is None:
        return sys.maxsize
    room = width - sum(widths[:-1]) - _GAP * (len(widths) - 1)
    return room if room >= max(_NARROWEST_TEXT, len(table.column_names[-1])) else 0


def _terminal_width(stream: TextIO) -> int | None:
    import shutil

    return shutil.get_terminal_size().columns if _is_terminal(stream) else None


def _is_terminal(stream: TextIO) -> bool:
    return hasattr(stream, "isatty") and stream.isatty()


def _that_fit(widths: list[int], width: int | None) -> int:
    if width is None:
        return len(widths)
    used, shown = -_GAP, 0
    for column in widths:
        used += column + _GAP
        if used > width and shown:
            break
        shown += 1
    return shown


class _Printed:
    """A terminal that gets no control characters: files and pipes get every byte, a screen none that acts on it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(printable(text))


def _for_terminal(stream: TextIO) -> Any:
    return _Printed(stream) if _is_terminal(stream) else stream


def _is_text(field: pa.Field) -> bool:
    import pyarrow as pa

    return pa.types.is_string(field.type) or pa.types.is_large_string(field.type)


def _is_number(field: pa.Field) -> bool:
    import pyarrow as pa

    return pa.types.is_integer(field.type) or pa.types.is_floating(field.type)


def _cells(field: pa.Field, column: pa.ChunkedArray) -> list[str]:
    import pyarrow as pa

    if pa.types.is_floating(field.type):
        decimals = _decimals(field.name)
        digits = _DIGITS.get(field.name, 5 if field.type.bit_width <= 32 else 6)
        pattern = f"{{:.{decimals}f}}" if decimals is not None else f"{{:.{digits}g}}"
        return ["" if v is None or v != v else pattern.format(v) for v in column.to_pylist()]
    if pa.types.is_list(field.type) or pa.types.is_fixed_size_list(field.type):
        return ["" if v is None else _short_list(v) for v in column.to_pylist()]
    return ["" if v is None else _short_text(v) for v in column.to_pylist()]


def _decimals(name: str) -> int | None:
    """Decimals of a column by its name; an error has as many as its value."""
    name = name.removesuffix("_right").removesuffix("_1").removesuffix("_estimated")
    name = name.removesuffix("_err").removesuffix("_xp").removesuffix("_lrs").removeprefix("catalog_")
    if name.endswith("_mag"):
        return 3
    return _DECIMALS.get(name, _DECIMALS.get(name.split("_")[0]) if name.startswith("snr_") else None)


def _short_list(values: list[Any]) -> str:
    texts = [f"{v:.4g}" if isinstance(v, float) else _printable(v) for v in values[:4]]
    return "[" + ", ".join(texts) + (f", ... {len(values)} in all]" if len(values) > 4 else "]")


def _short_text(value: Any) -> str:
    text = _printable(value)
    return text if len(text) <= _WIDEST_TEXT else text[: _WIDEST_TEXT - 3] + "..."


def _printable(value: Any) -> str:
    text = " ".join(str(value).split()) if not isinstance(value, bool) else str(value).lower()
    # control characters in a catalogue must not reach the terminal
    return "".join(c if c.isprintable() else "?" for c in text)


def write_csv(table: pa.Table, stream: TextIO) -> None:
    """Write comma-separated values with a header line, quoted as in RFC 4180; null and NaN are empty.

    Lines end with a newline character, as Unix tools expect.
    """
    import csv

    writer = csv.writer(_for_terminal(stream), lineterminator="\n")
    writer.writerow(table.column_names)
    for start in range(0, table.num_rows, _BATCH_ROWS):
        piece = table.slice(start, _BATCH_ROWS)
        texts = [_csv_values(field, column) for field, column in zip(piece.schema, piece.columns, strict=True)]
        writer.writerows(zip(*texts, strict=True))


def _csv_values(field: pa.Field, column: pa.ChunkedArray) -> list[str | None]:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_decimal(field.type) and not pa.types.is_uint64(field.type):
        column = plain_column(column)
    if pa.types.is_nested(column.type):
        values = column.to_pylist()
        return [None if value is None else json.dumps(_clean(value), default=json_value) for value in values]
    if pa.types.is_floating(field.type):
        column = column.cast(pa.float32()) if pa.types.is_float16(field.type) else column
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    elif pa.types.is_binary(field.type):
        return [None if value is None else value.hex() for value in column.to_pylist()]
    return column.cast(pa.string()).to_pylist()


def write_json(table: pa.Table, stream: TextIO) -> None:
    """Write a list of records, one per line; ids are JSON integers; NaN and infinities are null."""
    stream = _for_terminal(stream)
    stream.write("[")
    first = True
    for start in range(0, table.num_rows, _BATCH_ROWS):
        piece = table.slice(start, _BATCH_ROWS)
        columns = [_json_values(field, column) for field, column in zip(piece.schema, piece.columns, strict=True)]
        for row in zip(*columns, strict=True):
            record = json.dumps(dict(zip(table.column_names, row, strict=True)), ensure_ascii=False, default=json_value)
            stream.write(("\n " if first else ",\n ") + record)
            first = False
    stream.write("]\n" if first else "\n]\n")


def _json_values(field: pa.Field, column: pa.ChunkedArray) -> list[Any]:
    import pyarrow as pa

    if pa.types.is_floating(field.type) and field.type.bit_width <= 32:
        # the fewest digits that give the same float32: 0.1, not 0.10000000149011612
        numbers = column.to_numpy().astype(np.float32)
        return [
            float(text) if finite else None
            for text, finite in zip(numbers.astype(str), np.isfinite(numbers), strict=True)
        ]
    exact = pa.types.is_decimal(field.type) or pa.types.is_uint64(field.type)
    return [_clean(value) for value in (column if exact else plain_column(column)).to_pylist()]


def _clean(value: Any) -> Any:
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    return value
