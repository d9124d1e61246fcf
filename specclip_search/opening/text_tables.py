"""One opener for all tables in text: encoding, delimiter, names, units, rules and trailers, told by content.

Every part that reads a table of text stands on it: catalogues, Gaia XP tables, lists of known stars, spectra. Tables
with one delimiter are streamed by Arrow, every field as text; formats with a description of their own (IPAC, the
machine-readable tables of the journals, LaTeX, fixed widths) are read by astropy's readers.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import Reason, SpectrumError
from .guard import reading
from .regular import MIB, PathLike, open_bytes, shown_path

if TYPE_CHECKING:
    import pyarrow as pa
    from astropy.table import Table

DELIMITERS = ("|", ",", "\t", ";", " ")
NULLS = ["", "null", "NULL", "nan", "NaN", "\\N", "--", "N/A"]
BLOCK_BYTES = 4 << 20
HEAD_BYTES = 4 * MIB
HEAD_LINES = 4000
ASTROPY_BYTES = 256 * MIB
# forms that astropy reads, by our name and astropy's
ASTROPY_FORMATS = {"ipac": "ascii.ipac", "mrt": "ascii.cds", "latex": "ascii.latex", "aastex": "ascii.aastex",
                   "rst": "ascii.rst", "blank": "ascii.basic", "two_line": "ascii.fixed_width_two_line"}
_UNIT_WORDS = (
    "deg degree degrees arcsec mas k mag dex km/s km.s-1 kms km s-1 m/s mas/yr mas.yr-1 mas/a pc kpc angstrom nm um "
    'day d yr s h:m:s d:m:s "h:m:s" "d:m:s" hms dms [cm/s2] [cm.s**-2] cgs [-] --- - log(cm/s2) w/m2/nm ct/s e-/s '
    "solrad sollum solmass")
_UNITS = frozenset(_UNIT_WORDS.split())
_TRAILER = re.compile(r"^\s*(\(?[\d,]+ rows?( selected| affected| in set.*)?\)?\.?|query (took|time).*|\\?end\b.*)\s*$",
                      re.IGNORECASE)


@dataclass(slots=True)
class TextLayout:
    """How a table of text is laid out.

    Attributes
    ----------
    kind
        ``delimited``, ``ecsv``, or a key of `ASTROPY_FORMATS`.
    encoding
        Python's name of the encoding.
    delimiter
        One character; of no meaning to the forms that astropy reads.
    names
        Column names; empty where the table has none, or astropy will tell.
    skip_lines
        Lines before the first row.
    units, descriptions, ucds
        By column name, where the file says them.
    comments
        Comment lines at the head.
    left_out
        Lines that are no rows, by what they are: ``units``, ``rule``, ``comment``, ``trailer``.
    """

    kind: str
    encoding: str = "utf-8"
    delimiter: str = ","
    names: list[str] = field(default_factory=list)
    skip_lines: int = 0
    units: dict[str, str] = field(default_factory=dict)
    descriptions: dict[str, str] = field(default_factory=dict)
    ucds: dict[str, str] = field(default_factory=dict)
    comments: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def text_encoding(head: bytes) -> str:
    """Encoding of a text by its first bytes: a byte order mark, valid UTF-8, else Windows-1252."""
    if head.startswith(b"\xef\xbb\xbf"):
        return "utf-8-sig"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return "cp1252"
    return "utf-8"


def read_head(path: PathLike, size: int = HEAD_BYTES) -> bytes:
    """First bytes of a file, inflated."""
    with reading(path, "text"), open_bytes(path) as handle:
        pieces, have = [], 0
        while have < size and (piece := handle.read(min(size - have, 1 << 18))):
            pieces.append(piece)
            have += len(piece)
            if piece.count(b"\n") > HEAD_LINES:
                break
        return b"".join(pieces)


def open_text(path: PathLike, encoding: str) -> io.TextIOWrapper:
    """The file as text, inflated; bytes that the encoding lacks become U+FFFD."""
    return io.TextIOWrapper(open_bytes(path), encoding=encoding, errors="replace", newline=None)


def text_layout(path: PathLike, *, need_names: bool = True) -> TextLayout:
    """Look at the head of a table of text.

    Parameters
    ----------
    need_names
        Refuse a table without a line of names.

    Raises
    ------
    SpectrumError
        If it is no table, or lacks names that are needed.
    """
    head = read_head(path)
    encoding = text_encoding(head)
    lines = head.decode(encoding, "replace").splitlines()[:HEAD_LINES]
    if not any(line.strip() for line in lines):
        raise SpectrumError(Reason.UNREADABLE, f"{shown_path(path)} is an empty file.", "Download or write it again.")
    kind = _kind(lines)
    if kind == "json":
        raise SpectrumError(Reason.LAYOUT_UNKNOWN, f"{shown_path(path)} is JSON; a table was expected.",
                            "Write it as CSV, for example with pandas: pd.read_json(...).to_csv('table.csv').")
    if kind in ASTROPY_FORMATS:
        return TextLayout(kind, encoding)
    layout = _delimited(lines, encoding, kind)
    if kind == "ecsv":
        return layout
    if not layout.names and need_names:
        raise SpectrumError(
            Reason.LAYOUT_UNKNOWN,
            f"{shown_path(path)} should begin with a line of column names; found '{_first(lines)[:60]}'.",
            "Add a first line with the names, separated as the values are.")
    twice = sorted(name for name, count in Counter(layout.names).items() if count > 1)
    if twice and need_names:
        raise SpectrumError(Reason.LAYOUT_UNKNOWN, f"{shown_path(path)} names a column twice: {', '.join(twice)}.",
                            "Give each column its own name.")
    return layout


def _first(lines: Sequence[str]) -> str:
    return next((line for line in lines if line.strip() and not line.startswith("#")), "")


def _kind(lines: Sequence[str]) -> str:
    """The form of a table by its first lines."""
    filled = [line for line in lines[:200] if line.strip()]
    first = filled[0].lstrip()
    if first.startswith("# %ECSV") or first.startswith("#%ECSV"):
        return "ecsv"
    if first[0] in "{[" and '"' in first[:200]:
        return "json"
    whole = "\n".join(filled)
    if r"\begin{deluxetable" in whole or r"\startdata" in whole:
        return "aastex"
    if r"\begin{tab" in whole or r"\begin{table" in whole:
        return "latex"
    if re.search(r"^Byte-by-byte Description", whole, re.MULTILINE | re.IGNORECASE):
        return "mrt"
    body = [line for line in filled if not line.startswith(("\\", "#"))]
    bars = [line.strip().startswith("|") and line.strip().endswith("|") for line in body]
    if bars and bars[0] and (len(body) == 1 or not all(bars[: min(8, len(bars))])) and "|" not in body[-1]:
        return "ipac"
    if len(body) > 2 and re.fullmatch(r"\s*=+(\s+=+)+\s*", body[0]):
        return "rst"
    if len(body) > 1 and re.fullmatch(r"\s*-{2,}( +-{2,})+\s*", body[1]) and "\t" not in body[0]:
        return "two_line"
    if body and not any(d in body[0] for d in DELIMITERS[:-1]) and re.search(r"\S {2,}\S", "\n".join(body[:20])):
        return "blank"
    return "delimited"


def _delimited(lines: list[str], encoding: str, kind: str) -> TextLayout:
    layout = TextLayout(kind, encoding)
    at = 0
    while at < len(lines) and (not lines[at].strip() or lines[at].startswith("#")):
        if lines[at].startswith("#"):
            layout.comments.append(lines[at])
        at += 1
    first = lines[at] if at < len(lines) else ""
    if kind == "ecsv":
        said = re.search(r"^# ?delimiter:\s*['\"]?(.)", "\n".join(layout.comments), re.MULTILINE)
        layout.delimiter = said[1] if said else " "
        layout.names = [name.strip() for name in split_line(first, layout.delimiter)]
        layout.skip_lines = at + 1
        return layout
    if is_rule(first, "|") and at + 1 < len(lines):  # +----+----+ above the names
        at += 1
        layout.left_out["rule"] += 1
        first = lines[at]
    header, next_line = first, at + 1
    if layout.comments:
        # the names may stand in the last comment: it has as many names as the first row has values
        candidate = layout.comments[-1].lstrip("# ")
        by = delimiter_of(candidate)
        row = split_line(first, by)
        if len(split_line(candidate, by)) > 1 and len(split_line(candidate, by)) == len(row) and any(
                map(is_number, row)):
            header, next_line = candidate, at
    layout.delimiter = delimiter_of(header)
    names = [name.strip() for name in split_line(header, layout.delimiter)]
    if not any(names) or all(map(is_number, names)):
        layout.skip_lines = at
        return layout
    layout.names = [name or f"column_{i}" for i, name in enumerate(names, 1)]
    layout.skip_lines = next_line
    _skip_units_and_rules(lines, layout)
    _describe(layout)
    return layout


def _skip_units_and_rules(lines: list[str], layout: TextLayout) -> None:
    """Lines of units and of dashes between the names and the first row."""
    at = layout.skip_lines
    rows = lines[at : at + 3]
    if rows and not is_rule(rows[0], layout.delimiter):
        fields = [text.strip() for text in split_line(rows[0], layout.delimiter)]
        ruled = len(rows) > 1 and is_rule(rows[1], layout.delimiter)
        known = sum(text.lower() in _UNITS for text in fields)
        below = split_line(rows[1], layout.delimiter) if len(rows) > 1 else []
        numbers = sum(map(is_number, below))
        plain = len(fields) <= len(layout.names) and not any(map(is_number, fields))
        if plain and (ruled or (known and numbers and known >= sum(map(bool, fields)) / 2)):
            layout.units = {name: text for name, text in zip(layout.names, fields, strict=False)
                            if text and set(text) - set("-")}
            layout.left_out["units"] += 1
            at += 1
    if at < len(lines) and is_rule(lines[at], layout.delimiter):
        layout.left_out["rule"] += 1
        at += 1
    layout.skip_lines = at


def is_rule(line: str, delimiter: str = "|") -> bool:
    """Whether a line is of dashes, as drawn between the names and the rows of a table."""
    text = line.strip()
    return bool(text) and set(text) <= set("-=+|: \t" + delimiter) and ("--" in text or "==" in text)


def _describe(layout: TextLayout) -> None:
    """Descriptions and UCDs of VizieR's comment lines: ``#Column  name  (F15.11)  words  [ucd=...]``."""
    for line in layout.comments:
        found = re.match(r"#Column\s+(\S+)\s+\([^)]*\)\s*(.*?)\s*(?:\[ucd=([^\]]*)\])?\s*$", line)
        if found and found[1] in layout.names:
            if found[2]:
                layout.descriptions[found[1]] = found[2]
            if found[3]:
                layout.ucds[found[1]] = found[3]


def delimiter_of(line: str) -> str:
    """The delimiter of a line of names."""
    return next((one for one in DELIMITERS if one in line), ",")


def split_line(line: str, delimiter: str) -> list[str]:
    """Fields of a line, quotes honoured."""
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:  # a field beyond csv's limit, a NUL
        return line.split(delimiter)


def is_number(text: str) -> bool:
    """Whether a text is a number in Python's writing."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def text_batches(path: PathLike, layout: TextLayout, types: dict[str, pa.DataType],
                 names: Sequence[str] | None = None, *, block: int = BLOCK_BYTES) -> Iterator[pa.RecordBatch]:
    """Rows of a delimited table, streamed.

    Parameters
    ----------
    types
        Columns that are wanted, and their types.
    names
        Names of all columns of the file; by default the layout's.

    Raises
    ------
    SpectrumError
        If a row has another number of values than there are names, or a value is not of its type; its row is named.
    """
    import pyarrow as pa
    import pyarrow.csv as pv

    columns = list(layout.names if names is None else names)

    def odd(row: Any) -> str:
        text = row.text or ""
        what = "comment" if text.lstrip().startswith("#") else "trailer" if _TRAILER.match(text) else (
            "rule" if is_rule(text, layout.delimiter) else "")
        if what:
            layout.left_out[what] += 1
        return "skip" if what else "error"

    with open_bytes(path) as handle:
        stream: Any = pa.PythonFile(handle, "r")
        if layout.encoding not in ("utf-8", "utf-8-sig"):
            stream = pa.transcoding_input_stream(stream, layout.encoding, "utf8")
        try:
            with pv.open_csv(
                stream,
                read_options=pv.ReadOptions(column_names=columns, skip_rows=layout.skip_lines, block_size=block,
                                            use_threads=False),
                parse_options=pv.ParseOptions(delimiter=layout.delimiter, newlines_in_values=False,
                                              invalid_row_handler=odd),
                convert_options=pv.ConvertOptions(column_types=types, include_columns=list(types),
                                                  strings_can_be_null=True, null_values=NULLS,
                                                  quoted_strings_can_be_null=True),
            ) as reader:
                yield from reader
        except SpectrumError:
            raise
        except (pa.ArrowInvalid, EOFError, OSError, UnicodeDecodeError) as error:
            if "Empty CSV file" in str(error):
                return
            text = str(error).splitlines()[0][:300]
            raise SpectrumError(
                Reason.UNREADABLE,
                f"{shown_path(path)} cannot be read as text separated by {layout.delimiter!r} ({text}).",
                "See the named row; each must have as many values as there are column names.") from None


def astropy_text_table(path: PathLike, layout: TextLayout, *, as_text: bool) -> Table:
    """A table in one of `ASTROPY_FORMATS`, whole.

    Parameters
    ----------
    as_text
        Leave every value of a form without types as text.

    Raises
    ------
    SpectrumError
        If astropy cannot read it, or it is larger than fits comfortably into memory.
    """
    from astropy.io.ascii import convert_numpy
    from astropy.table import Table

    with reading(path, f"a table in the form {ASTROPY_FORMATS[layout.kind]!r} of astropy"):
        with open_text(path, layout.encoding) as stream:
            text = stream.read(ASTROPY_BYTES)
            if stream.read(1):
                raise SpectrumError(
                    Reason.UNREADABLE,
                    f"{shown_path(path)} is a table of form {layout.kind} of more than {ASTROPY_BYTES // MIB} MiB.",
                    "Write it as CSV or FITS, which are read in pieces.")
        options: dict[str, Any] = {}
        if as_text and layout.kind in ("blank", "rst", "two_line", "latex", "aastex"):
            options["converters"] = {"*": [convert_numpy(str)]}
        return Table.read(text, format=ASTROPY_FORMATS[layout.kind], guess=False, **options)
