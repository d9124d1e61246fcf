"""HDUs of a FITS file straight from its bytes, for surveys of millions of small files.

It reads headers, images and binary tables of fixed width, which is what surveys deliver. Tile-compressed images
and tables in unusual forms are left to astropy, which `open_fits` asks where it must.
"""

from __future__ import annotations

import mmap
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np

from ...errors import Reason, SpectrumError
from ..content import Content, decoding
from ..lamost_bytes import BLOCK, CARD, Header, OtherLayout
from ..lamost_bytes import _value as card_value

_END = b"END" + b" " * 77
_IMAGE_TYPES = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
_COLUMN_TYPES = {
    "L": "S1",
    "B": "u1",
    "I": ">i2",
    "J": ">i4",
    "K": ">i8",
    "E": ">f4",
    "D": ">f8",
    "C": ">c8",
    "M": ">c16",
    "P": "V8",
    "Q": "V16",
}
_UNSIGNED = {("I", 2**15): (">u2", 2**15), ("J", 2**31): (">u4", 2**31), ("K", 2**63): (">u8", 2**63)}
_FORM = re.compile(r"(\d*)([LXBIJKAEDCMPQ])")
MAX_HDUS = 10_000
MAX_BYTES = 8 << 30
LARGE_ENOUGH_TO_MAP = 1 << 18


@dataclass(slots=True)
class Hdu:
    """One header and where its data lie.

    Attributes
    ----------
    header
        Keyword to str, int, float, bool; None where a keyword is absent.
    name
        EXTNAME in capitals; empty where there is none.
    """

    header: Any
    name: str
    _data: bytes | mmap.mmap
    _start: int
    _columns: Mapping[str, np.ndarray] | None = None

    @property
    def is_table(self) -> bool:
        """Whether it is a binary table."""
        return self._columns is not None or str(self.header.get("XTENSION", "")).strip() == "BINTABLE"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an image in numpy's order; empty where it has no data."""
        return tuple(_whole(self.header, f"NAXIS{axis}") for axis in range(_whole(self.header, "NAXIS"), 0, -1))

    def image(self) -> np.ndarray:
        """The image, scaled where its header asks for it; a view of the file's bytes where it does not."""
        shape = self.shape
        kind = _IMAGE_TYPES.get(_whole_or(self.header, "BITPIX", 0))
        if not shape or kind is None:
            raise self._unknown("it holds no image")
        values = self._values(np.dtype(kind), int(np.prod(shape, dtype=object))).reshape(shape)
        scale, zero = self.header.get("BSCALE", 1), self.header.get("BZERO", 0)
        return values if scale == 1 and zero == 0 else values * np.float64(scale) + np.float64(zero)

    def columns(self) -> Mapping[str, np.ndarray]:
        """A binary table's columns by name in capitals, (rows,) or (rows, width), each read when it is asked for."""
        if self._columns is None:
            header = self.header
            try:
                width, rows = _whole(header, "NAXIS1"), _whole(header, "NAXIS2")
                layout = _layout(header.block) if isinstance(header, HeaderBytes) else _layout_of(header)
            except OtherLayout as error:
                raise self._unknown(str(error)) from None
            if any(one.offset + one.size > width for one in layout.values()):
                raise self._unknown(f"its columns reach beyond its rows of {width} bytes")
            raw = self._values(np.dtype("u1"), width * rows)
            self._columns = _LazyColumns(raw, rows, width, layout)
        return self._columns

    def _unknown(self, what: str) -> SpectrumError:
        return SpectrumError(
            Reason.LAYOUT_UNKNOWN,
            f"HDU {self.name or 'without a name'} cannot be read: {what}.",
            "Get the file again; fitsverify says what is wrong with it.",
        )

    def _values(self, kind: np.dtype, count: int) -> np.ndarray:
        if count < 0 or self._start + count * kind.itemsize > len(self._data):
            raise SpectrumError(
                Reason.UNREADABLE,
                f"HDU {self.name or 'without a name'} is cut short: "
                f"{count * kind.itemsize} bytes are announced, {len(self._data) - self._start} are there.",
                "Download the file again.",
            )
        return np.frombuffer(self._data, dtype=kind, count=count, offset=self._start)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a column's values lie in each row, and how they are scaled."""

    offset: int
    size: int
    item: np.dtype
    count: int
    kind: str
    scale: float
    zero: float


class _LazyColumns(Mapping[str, np.ndarray]):
    """Columns of a table that are views of the file's bytes, made when asked for."""

    def __init__(self, raw: np.ndarray, rows: int, width: int, layout: dict[str, _Place]) -> None:
        self._raw, self._rows, self._width, self._layout = raw, rows, width, layout
        self._known: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._known:
            self._known[name] = self._read(self._layout[name])
        return self._known[name]

    def __contains__(self, name: object) -> bool:
        return name in self._layout

    def __iter__(self) -> Iterator[str]:
        return iter(self._layout)

    def __len__(self) -> int:
        return len(self._layout)

    def _read(self, place: _Place) -> np.ndarray:
        single = place.count == 1 or place.kind == "A"
        shape = (self._rows,) if single else (self._rows, place.count)
        if not self._rows:
            return np.empty(shape, place.item)
        steps = (self._width,) if single else (self._width, place.item.itemsize)
        values = np.ndarray(shape, place.item, self._raw.data, place.offset, steps)
        if place.scale == 1 and place.zero == 0:
            return values
        unsigned = _UNSIGNED.get((place.kind, int(place.zero))) if place.scale == 1 else None
        if unsigned is not None:  # FITS has no unsigned integers: they are stored with their highest bit turned over
            return values.astype(unsigned[0]) ^ np.asarray(unsigned[1], unsigned[0])
        return values * np.float64(place.scale) + np.float64(place.zero)


_TABLE_CARD = re.compile(rb"(TTYPE|TFORM|TSCAL|TZERO)(\d{1,3}) *= (.{70})", re.DOTALL)


@lru_cache(maxsize=256)
def _layout(block: bytes) -> dict[str, _Place]:
    """The columns of a table by its header's bytes; files of one survey share their headers' tables."""
    cards: dict[str, Any] = {}
    for at in range(0, len(block), CARD):
        found = _TABLE_CARD.match(block, at)
        if found is not None:
            cards[(found[1] + found[2]).decode()] = card_value(found[3])
    cards["TFIELDS"] = Header(block)["TFIELDS"]
    return _layout_of(cards)


def _layout_of(header: Any) -> dict[str, _Place]:
    found: dict[str, _Place] = {}
    at = 0
    for number in range(1, _whole(header, "TFIELDS") + 1):
        form = _FORM.match(str(header.get(f"TFORM{number}") or "").strip())
        if form is None:
            raise OtherLayout(f"TFORM{number} is {header.get(f'TFORM{number}')!r}")
        count, kind = int(form[1]) if form[1] else 1, form[2]
        if kind == "A":
            item = np.dtype(f"S{max(count, 1)}")
            size = count
        elif kind == "X":
            item, size = np.dtype("u1"), (count + 7) // 8
        else:
            item = np.dtype(_COLUMN_TYPES[kind])
            size = item.itemsize * count
        name = str(header.get(f"TTYPE{number}") or f"COL{number}").strip().upper()
        if count and kind not in "XPQ":
            scale, zero = header.get(f"TSCAL{number}"), header.get(f"TZERO{number}")
            scalable = kind in "BIJKED"
            found[name] = _Place(
                at,
                size,
                item,
                count,
                kind,
                scale if scalable and scale is not None else 1,
                zero if scalable and zero is not None else 0,
            )
        at += size
    return found


class HeaderBytes(Header):
    """A header that keeps its bytes."""

    def __init__(self, block: bytes) -> None:
        super().__init__(block)
        self.block = block


def read_hdus(data: bytes | mmap.mmap) -> list[Hdu]:
    """All HDUs of a file's decompressed bytes.

    Raises
    ------
    OtherLayout
        If a header cannot be followed.
    """
    if data[:9] != b"SIMPLE  =":
        raise OtherLayout("no FITS file")
    found: list[Hdu] = []
    at = 0
    while at < len(data) and len(found) < MAX_HDUS:
        if found and data[at : at + 8] != b"XTENSION":
            break  # padding or special records after the last HDU
        mark = data.find(_END, at)
        while mark >= 0 and (mark - at) % CARD:
            mark = data.find(_END, mark + 1)
        if mark < 0:
            raise OtherLayout("a header has no end")
        header = HeaderBytes(data[at:mark])
        if header.get("ZIMAGE") is not None or header.get("ZTABLE") is not None:
            raise OtherLayout("it is tile-compressed")
        start = at + ((mark - at) // BLOCK + 1) * BLOCK
        found.append(Hdu(header, str(header.get("EXTNAME", "")).strip().upper(), data, start))
        at = start + -(-_data_bytes(header) // BLOCK) * BLOCK
    return found


def _data_bytes(header: Any) -> int:
    axes = _whole(header, "NAXIS")
    if axes == 0:
        return 0
    count = 1
    for axis in range(1, axes + 1):
        count *= _whole(header, f"NAXIS{axis}")
    size = abs(_whole_or(header, "BITPIX", 8)) // 8
    return size * _whole_or(header, "GCOUNT", 1) * (_whole_or(header, "PCOUNT", 0) + count)


def _whole(header: Any, key: str) -> int:
    value = header.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise OtherLayout(f"{key} is {value!r}")
    return value


def _whole_or(header: Any, key: str, default: int) -> int:
    value = header.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def open_fits(content: Content) -> list[Hdu]:
    """The HDUs of a file whose headers are sound; through astropy where the narrow reader does not know the form.

    Raises
    ------
    SpectrumError
        `unreadable`, where the file is damaged, cut short or larger than 8 GiB.
    """
    with decoding(content):
        with content.open_fits() as stream:
            data = _bytes_of(stream)
        if len(data) > MAX_BYTES:
            raise SpectrumError(
                Reason.UNREADABLE,
                f"{content.path} is larger than 8 GiB.",
                "Split it, or give the survey's files by pixel or tile.",
            )
        try:
            return read_hdus(data)
        except OtherLayout:
            return list(_with_astropy(data))


def _bytes_of(stream: BinaryIO) -> bytes | mmap.mmap:
    """A file's decompressed bytes; a plain file is mapped, so that only what is looked at is read."""
    with suppress(OSError):  # bytes in memory have no descriptor
        if os.fstat(stream.fileno()).st_size >= LARGE_ENOUGH_TO_MAP:
            return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    return stream.read(MAX_BYTES + 1)


def _with_astropy(data: bytes | mmap.mmap) -> Iterator[Hdu]:
    from astropy.io import fits

    with warnings.catch_warnings(action="ignore"), fits.open(BytesIO(data[:]), memmap=False) as hdus:
        for hdu in hdus:
            header = {card.keyword: card.value for card in hdu.header.cards if card.keyword}
            columns = None
            if getattr(hdu, "columns", None) is not None:
                columns = {name.upper(): np.asarray(hdu.data[name]) for name in hdu.columns.names}
            elif hdu.data is not None:
                image = np.ascontiguousarray(hdu.data)
                header |= {
                    "NAXIS": image.ndim,
                    "ZIMAGE": None,
                    "BSCALE": 1,
                    "BZERO": 0,
                    **{f"NAXIS{image.ndim - axis}": size for axis, size in enumerate(image.shape)},
                }
                kept = image.astype(">f8") if image.dtype.kind == "f" else image.astype(">i8")
                header["BITPIX"] = -64 if image.dtype.kind == "f" else 64
                yield Hdu(header, hdu.name.upper(), kept.tobytes(), 0)
                continue
            yield Hdu(header, hdu.name.upper(), b"", 0, columns)


def text_of(value: Any) -> str | None:
    """A table's or header's text without its padding; None where it is empty or no text."""
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    return value.strip("\0 ") or None if isinstance(value, str) else None


def number_of(value: Any) -> float | None:
    """A finite number; None for text, NaN, and the surveys' -9999."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number):
        return None
    number = float(value)
    return number if np.isfinite(number) and not -10000.0 < number <= -9999.0 and number != -999.0 else None
