"""One spectrum in a text file: CSV, ECSV, or plain columns."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from ..errors import Reason, SpectrumError
from ..labels import split_unit
from ..opening.text_tables import is_rule, open_text, text_encoding, text_layout
from ..spectrum import Spectrum
from .content import Content, decoding
from .registry import ReadOptions
from .wavelengths import Columns, columns_from_arrays, to_spectrum

MAX_BYTES = 64_000_000
_SEPARATORS = re.compile(r"[,;|\s]+")


def is_text_spectrum(content: Content) -> bool:
    """Whether a text file looks like one spectrum: lines of at least two numbers, or named columns."""
    if content.kind not in ("text", "ecsv"):
        return False
    lines = [line for line in content.head.decode("utf-8", "replace").splitlines()[:-1] if _is_data(line)]
    if content.kind == "ecsv":
        return any(name in content.head.lower() for name in (b"wave", b"lambda", b"loglam", b"spectral_axis"))
    return len(lines) >= 2 and len(_numbers(lines[1])) >= 2


def read_text_spectrum(content: Content, options: ReadOptions) -> Iterator[Spectrum]:
    """The spectrum of a text file, from named columns or the first two or three columns.

    Raises
    ------
    SpectrumError
        `unreadable` if a line holds no numbers; otherwise as `to_spectrum`.
    """
    columns = _ecsv(content) if content.kind == "ecsv" else _plain(content)
    yield to_spectrum(columns, options, str(content.path))


def _ecsv(content: Content) -> Columns:
    from astropy.table import Table

    with decoding(content):
        with content.open() as stream:
            table = Table.read(stream.read(MAX_BYTES).decode("utf-8"), format="ascii.ecsv")
        arrays = {name: np.ma.filled(np.ma.asarray(table[name], dtype=np.float64), np.nan)
                  for name in table.colnames if table[name].dtype.kind in "fiu"}
        units = {name: str(table[name].unit) if table[name].unit is not None else None for name in table.colnames}
    columns = columns_from_arrays(arrays, units)
    if columns is None:
        raise SpectrumError(Reason.LAYOUT_UNKNOWN, f"{content.path} has no columns wavelength and flux "
                            f"(found {', '.join(table.colnames[:6])}).", "Rename the columns.")
    medium = str(table.meta.get("medium", table.meta.get("MEDIUM", ""))).lower() or None
    columns.medium = columns.medium or medium
    return columns


def _plain(content: Content) -> Columns:
    names: list[str] | None = None
    rows: list[list[float]] = []
    units: dict[str, str | None] = {}
    layout = text_layout(content.file, need_names=False) if not _only_numbers(content) else None
    comma = layout is not None and layout.kind == "delimited" and layout.delimiter in ";\t"
    with decoding(content), open_text(content.file, text_encoding(content.head)) as stream:
        for number, line in enumerate(stream, 1):
            if not _is_data(line) or is_rule(line):
                continue
            values = _numbers(line.replace(",", ".") if comma else line)
            if not values and not rows and names is None:
                names = [name.strip().strip('"') for name in _SEPARATORS.split(line.strip()) if name.strip()]
                if layout is not None and layout.kind == "delimited" and layout.names:
                    names = [split_unit(name)[0] for name in layout.names]
                    units = {split_unit(name)[0]: split_unit(name)[1] or layout.units.get(name) or None
                             for name in layout.names}
            elif not values and not rows and units and any(units.values()):
                continue  # the line of units
            elif len(values) < 2 or (rows and len(values) != len(rows[0])):
                raise _bad(content, f"line {number} holds {len(values)} numbers")
            else:
                rows.append(values)
    if not rows:
        raise _bad(content, "no line of numbers")
    return _from_rows(content, names, np.array(rows), units)


def _only_numbers(content: Content) -> bool:
    """Whether the head of a file has no line of names: most spectra have none, and need no layout."""
    lines = content.head.decode("utf-8", "replace").splitlines()
    return all(_numbers(line) or not _is_data(line) for line in lines[:-1][:50])


def _from_rows(content: Content, names: list[str] | None, table: np.ndarray,
               units: dict[str, str | None]) -> Columns:
    if len(table) == 2 and table.shape[1] > 10:  # wavelengths in one line, flux in the next
        return Columns(table[0], table[1], None)
    if names is not None and len(names) == table.shape[1]:
        found = columns_from_arrays(dict(zip(names, table.T, strict=True)), units)
        if found is not None:
            return found
    if names is not None:
        raise SpectrumError(Reason.LAYOUT_UNKNOWN, f"{content.path} has no columns wavelength and flux "
                            f"(found {', '.join(names[:6])}).", "Rename the columns, or remove the header line.")
    ivar = None
    if table.shape[1] >= 3:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ivar = np.where(table[:, 2] > 0, table[:, 2] ** -2.0, 0.0)
    return Columns(table[:, 0], table[:, 1], ivar)


def _is_data(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith(("#", "!", "%"))


def _numbers(line: str) -> list[float]:
    """All fields of a line as numbers; empty if any of them is not a number."""
    fields = [field for field in _SEPARATORS.split(line.strip()) if field]
    try:
        return [float(field) if field.lower() not in ("null", "none") else float("nan") for field in fields]
    except ValueError:
        return []


def _bad(content: Content, what: str) -> SpectrumError:
    return SpectrumError(Reason.UNREADABLE, f"{content.path} is not a table of numbers: {what}.",
                         "Expected columns of wavelength, flux and, if there is one, the error of the flux.")
