"""Fast reader of the two LAMOST low-resolution layouts, directly from the bytes.

It supports the image of 5 or 6 rows (up to DR8) and the one-row table `COADD` (from DR9), which
cover all LAMOST releases. astropy reads all other files, and the tests compare both.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..errors import Reason, SpectrumError
from .content import cannot_open, damaged_gzip

_inflater: Any = zlib
if find_spec("isal") is not None:  # optional: decompresses about twice as fast
    _inflater = import_module("isal.isal_zlib")

_INFLATE_ERRORS: tuple[type[Exception], ...] = (zlib.error, _inflater.error)

BLOCK = 2880
CARD = 80
_END = b"END" + b" " * 77


Cards = dict[str, "str | int | float | bool | None"]


class OtherLayout(Exception):
    """The bytes are not one of the two layouts; astropy may still read them."""


@dataclass(slots=True)
class RawLamost:
    """A LAMOST file's arrays and header, without checks.

    Attributes
    ----------
    flux, ivar
        (P,) float32 in native byte order.
    wavelength
        (P,) float32 or float64, vacuum Angstrom as in the file.
    andmask
        (P,) or None.
    header
        Primary header: keyword to str, int, float, bool or None.
    """

    flux: np.ndarray
    ivar: np.ndarray
    wavelength: np.ndarray
    andmask: np.ndarray | None
    header: Cards


def read_bytes(path: Path) -> bytes:
    """A file's bytes, decompressed.

    Raises
    ------
    SpectrumError
        `unreadable`, if the file cannot be opened, is empty or its gzip stream is damaged.
    """
    try:
        with open(path, "rb") as handle:
            raw = handle.read()
    except OSError as error:
        raise cannot_open(path, error) from None
    if not raw:
        raise SpectrumError(Reason.UNREADABLE, f"{path} is empty (0 bytes).", "Download it again.")
    if raw[:2] != b"\x1f\x8b":
        return raw
    try:
        inflater = _inflater.decompressobj(31)
        data = inflater.decompress(raw)
    except _INFLATE_ERRORS as error:
        raise damaged_gzip(path, error) from None
    if not inflater.eof:
        raise damaged_gzip(path, EOFError("it ends before the end-of-stream marker"))
    return data


def parse(data: bytes) -> RawLamost:
    """Parse a whole file's bytes.

    Raises
    ------
    OtherLayout
        If they are not in one of the two layouts, or are truncated.
    """
    if not data.startswith(b"SIMPLE  ="):
        raise OtherLayout("no FITS file")
    header, end = _header(data, 0)
    if header.get("NAXIS") == 2:
        return _image(data, header, end)
    if header.get("NAXIS") == 0 and data[end : end + 8] == b"XTENSION":
        return _table(data, header, end)
    raise OtherLayout("neither an image nor a table")


class Header(Cards):
    """A FITS header whose cards are parsed on access; the first card of a name counts."""

    # position of each keyword in the previous header; nearly always right, since files of a release are alike
    _places: ClassVar[dict[str, int]] = {}

    def __init__(self, block: bytes) -> None:
        super().__init__()
        self._block = block

    def __missing__(self, key: str) -> str | int | float | bool | None:
        name = key.ljust(8).encode() + b"= "
        at = self._places.get(key, 0)
        if not self._block.startswith(name, at):
            at = self._block.find(name)
            while at >= 0 and at % CARD:
                at = self._block.find(name, at + 1)
            if at >= 0:
                self._places[key] = at
        self[key] = None if at < 0 else _value(self._block[at + 10 : at + CARD])
        return dict.__getitem__(self, key)

    def get(self, key: str, default: str | int | float | bool | None = None) -> str | int | float | bool | None:  # type: ignore[override]
        value = self[key]
        return default if value is None else value


def _header(data: bytes, start: int) -> tuple[Header, int]:
    """The header at `start`, and the offset of its data."""
    mark = data.find(_END, start)
    while mark >= 0 and (mark - start) % CARD:
        mark = data.find(_END, mark + 1)
    blocks = (mark - start) // BLOCK + 1
    if mark < 0 or len(data) < start + blocks * BLOCK:
        raise OtherLayout("the header has no end")
    return Header(data[start:mark]), start + blocks * BLOCK


def _value(card: bytes) -> str | int | float | bool | None:
    text = card.decode("ascii", "replace").strip()
    if text.startswith("'"):
        return _string(text)
    text = text.partition("/")[0].strip()
    if text in ("T", "F"):
        return text == "T"
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text.replace("D", "E"))
    except ValueError:
        return None


def _string(text: str) -> str:
    end = text.find("'", 1)
    while end >= 0 and text[end + 1 : end + 2] == "'":
        end = text.find("'", end + 2)
    return text[1 : end if end > 0 else None].replace("''", "'").rstrip()


def _whole(header: Header, key: str) -> int:
    value = header[key]
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise OtherLayout(f"{key} is {value!r}")
    return value


def _image(data: bytes, header: Header, start: int) -> RawLamost:
    pixels, rows = _whole(header, "NAXIS1"), _whole(header, "NAXIS2")
    if header.get("BITPIX") != -32 or not 3 <= rows <= 8 or header.get("BSCALE", 1) != 1 or header.get("BZERO", 0) != 0:
        raise OtherLayout("an image of another type")
    if len(data) < start + 4 * rows * pixels:
        raise OtherLayout("the image is truncated")
    image = np.frombuffer(data, dtype=">f4", count=rows * pixels, offset=start).reshape(rows, pixels)
    return from_image(image, header)


def from_image(image: np.ndarray, header: Cards) -> RawLamost:
    """Image rows by meaning: flux, inverse variance, and the wavelength, whose position varies.

    The wavelength is the row that agrees with the header's dispersion; if no row does (some 6-row files),
    it is computed from COEFF0 and COEFF1.
    """
    last = image.shape[1] - 1
    ends = _dispersion(header, np.array([0, last]))
    for row in range(2, len(image)):
        if _is_wavelength(image[row], ends):
            mask = image[row + 1] if row < len(image) - 1 else None
            return RawLamost(_native(image[0]), _native(image[1]), _native(image[row]), mask, header)
    computed = _dispersion(header, np.arange(last + 1))
    if computed is None:
        raise OtherLayout("no row holds wavelengths and COEFF0, COEFF1 are missing")
    return RawLamost(_native(image[0]), _native(image[1]), computed, None, header)


def _dispersion(header: Cards, pixels: np.ndarray) -> np.ndarray | None:
    """Wavelengths of `pixels` from the header's log-linear dispersion; None if it has none."""
    c0, c1 = header.get("COEFF0"), header.get("COEFF1")
    if not isinstance(c0, float | int) or not isinstance(c1, float | int):
        return None
    return np.power(10.0, c0 + c1 * pixels)


def _is_wavelength(row: np.ndarray, ends: np.ndarray | None) -> bool:
    first, last = float(row[0]), float(row[-1])
    if ends is not None:
        return abs(first / ends[0] - 1) < 1e-5 and abs(last / ends[1] - 1) < 1e-5
    return bool(len(row) > 2 and 1000 < first < last < 30000 and (np.diff(row) > 0).all())


_COLUMN_TYPES = {"E": ">f4", "D": ">f8", "J": ">i4", "I": ">i2", "K": ">i8"}


def _table(data: bytes, primary: Header, start: int) -> RawLamost:
    table, begin = _header(data, start)
    is_table = str(table.get("XTENSION", "")).startswith("BINTABLE") and table.get("NAXIS") == 2
    if not is_table or _whole(table, "NAXIS2") < 1:
        raise OtherLayout("no table with a row")
    width, offset, columns = _whole(table, "NAXIS1"), begin, {}
    for number in range(1, _whole(table, "TFIELDS") + 1):
        name, form = str(table[f"TTYPE{number}"]).upper(), str(table[f"TFORM{number}"])
        count, kind = form[:-1] or "1", form[-1:]
        if kind not in _COLUMN_TYPES or not count.isdigit() or table[f"TSCAL{number}"] or table[f"TZERO{number}"]:
            raise OtherLayout(f"a column of form {form}")
        columns[name] = (np.dtype(_COLUMN_TYPES[kind]), int(count), offset)
        offset += columns[name][0].itemsize * int(count)
    if offset - begin != width or len(data) < offset:
        raise OtherLayout("the table is truncated")
    arrays = {name: np.frombuffer(data, dtype, count, at) for name, (dtype, count, at) in columns.items()}
    return from_columns(arrays, primary)


def from_columns(arrays: dict[str, np.ndarray], header: Cards) -> RawLamost:
    """The first row of a `COADD` table by its column names."""
    missing = {"FLUX", "IVAR", "WAVELENGTH"} - arrays.keys()
    if missing or len({len(arrays[name]) for name in ("FLUX", "IVAR", "WAVELENGTH")}) != 1:
        raise OtherLayout(f"columns {', '.join(sorted(missing))} are missing")
    mask = arrays.get("ANDMASK")
    return RawLamost(_native(arrays["FLUX"]), _native(arrays["IVAR"]), _native(arrays["WAVELENGTH"]), mask, header)


def _native(values: np.ndarray) -> np.ndarray:
    return values.astype(values.dtype.newbyteorder("="))
