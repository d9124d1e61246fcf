"""FITS headers are bounded before a library believes them.

astropy allocates and loops by what a header says: one card, ``NAXIS = 2147483647``, keeps it busy for days. So the
numbers that sizes follow from are compared with the standard's limits (FITS 4.0, sections 4.4.1 and 7.3) and with the
bytes that are there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import BinaryIO

from ..errors import Reason, SpectrumError

BLOCK, CARD = 2880, 80
MAX_AXES = 999
MAX_COLUMNS = 999
MAX_HDUS = 2000
MAX_HEADER_BLOCKS = 3000
_BITPIX = (8, 16, 32, 64, -32, -64)
# numbers that a compressed image may hold when it is unpacked
_MAX_UNPACKED = 1 << 28
_WANTED = re.compile(rb"(NAXIS\d*|BITPIX|PCOUNT|GCOUNT|TFIELDS|TFORM\d+|ZNAXIS\d*|ZTILE\d+|ZBITPIX)\s*$")
_BYTES = {"L": 1, "X": 0, "B": 1, "I": 2, "J": 4, "K": 8, "A": 1, "E": 4, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}


@dataclass(slots=True)
class _Header:
    """The cards of one header that sizes follow from, and whether it is a binary table."""

    binary_table: bool = False
    cards: dict[str, int | str] = field(default_factory=dict)


def check_fits(stream: BinaryIO, where: str) -> int:
    """Walk the headers of a FITS file; the stream must seek.

    Parameters
    ----------
    stream
        The file's bytes, inflated; left at its beginning.
    where
        The file's name, for messages.

    Returns
    -------
    int
        Number of HDUs.

    Raises
    ------
    SpectrumError
        `unreadable`, where a header says what the standard forbids, or more than the file holds.
    """
    size = stream.seek(0, 2)
    at, hdu = 0, 0
    while at < size:
        stream.seek(at)
        header = _read_header(stream, where, hdu)
        if header is None:
            break  # bytes after the last HDU, which FITS allows
        data_at = stream.tell()
        length = _data_bytes(header, where, hdu)
        if data_at + length > size:
            raise _wrong(where, hdu, f"announces {length:,} bytes of data; {max(size - data_at, 0):,} follow",
                         "The file is truncated or damaged; download it again.")
        at, hdu = data_at + -(-length // BLOCK) * BLOCK, hdu + 1
        if hdu > MAX_HDUS:
            raise _wrong(where, hdu, f"is beyond the {MAX_HDUS} that are read", "Split the file.")
    stream.seek(0)
    return hdu


def _wrong(where: str, hdu: int, what: str, hint: str = "Download it again.") -> SpectrumError:
    message = f"{where} is damaged or truncated: the header of its HDU {hdu} {what}."
    return SpectrumError(Reason.UNREADABLE, message, hint)


def _read_header(stream: BinaryIO, where: str, hdu: int) -> _Header | None:
    found = _Header()
    for number in range(MAX_HEADER_BLOCKS):
        block = stream.read(BLOCK)
        if number == 0:
            if not block.startswith(b"SIMPLE" if hdu == 0 else b"XTENSION"):
                if hdu == 0:
                    raise _wrong(where, hdu, f"begins with {block[:8]!r}")
                return None
            found.binary_table = b"BINTABLE" in block[:CARD]
        for start in range(0, len(block) - CARD + 1, CARD):
            card = block[start : start + CARD]
            if card[:8].rstrip() == b"END":
                return found
            if card[8:10] == b"= " and (name := _WANTED.match(card[:8])):
                found.cards.setdefault(name.group(1).decode(), _value(card[10:]))
        if len(block) < BLOCK:
            break
    raise _wrong(where, hdu, "has no END card")


def _value(text: bytes) -> int | str:
    plain = text.partition(b"/")[0].strip().decode("ascii", "replace")
    try:
        return int(plain)
    except ValueError:
        return plain.strip("' ")


def _number(header: _Header, where: str, hdu: int, name: str, low: int, high: int, usual: int | None = None) -> int:
    value = header.cards.get(name, usual)
    if not isinstance(value, int) or not low <= value <= high:
        said = "lacks it" if value is None else f"says {value!r:.40}"
        raise _wrong(where, hdu, f"should give {name} between {low} and {high}, and {said}")
    return value


def _data_bytes(header: _Header, where: str, hdu: int) -> int:
    """Bytes of the HDU's data, unpadded (FITS 4.0, equation 2)."""
    bitpix = _number(header, where, hdu, "BITPIX", -64, 64)
    if bitpix not in _BITPIX:
        raise _wrong(where, hdu, f"says BITPIX = {bitpix}, which is none of {_BITPIX}")
    axes = _number(header, where, hdu, "NAXIS", 0, MAX_AXES)
    lengths = [_number(header, where, hdu, f"NAXIS{axis}", 0, 2**63 - 1) for axis in range(1, axes + 1)]
    heap = _number(header, where, hdu, "PCOUNT", 0, 2**63 - 1, 0)
    groups = _number(header, where, hdu, "GCOUNT", 0, 2**63 - 1, 1)
    if header.binary_table:
        _check_table(header, where, hdu, lengths)
    if axes == 0:
        return 0
    if lengths[0] == 0 and axes > 1 and not header.binary_table:  # random groups
        lengths = lengths[1:]
    elements = heap
    product = 1
    for length in lengths:
        product *= length
    return abs(bitpix) // 8 * groups * (elements + product)


def _check_table(header: _Header, where: str, hdu: int, lengths: list[int]) -> None:
    if len(lengths) != 2:
        raise _wrong(where, hdu, f"should give a table two axes; it has {len(lengths)}")
    fields = _number(header, where, hdu, "TFIELDS", 0, MAX_COLUMNS)
    width = 0
    for number in range(1, fields + 1):
        form = str(header.cards.get(f"TFORM{number}", ""))
        parts = re.match(r"\s*(\d{0,10})([LXBIJKAEDCMPQ])", form)
        if parts is None:
            raise _wrong(where, hdu, f"says TFORM{number} = '{form[:20]}', which is no column's form")
        count = int(parts[1] or 1)
        width += -(-count // 8) if parts[2] == "X" else count * _BYTES[parts[2]]
    if width != lengths[0] or (width == 0 and lengths[1] > 0):
        raise _wrong(where, hdu, f"says NAXIS1 = {lengths[0]}, and its {fields} columns take {width} bytes a row")
    if "ZNAXIS" in header.cards:
        _check_compressed(header, where, hdu)


def _check_compressed(header: _Header, where: str, hdu: int) -> None:
    """A tiled compressed image says itself how much it unpacks to."""
    numbers = 1
    for axis in range(1, _number(header, where, hdu, "ZNAXIS", 0, MAX_AXES) + 1):
        numbers *= _number(header, where, hdu, f"ZNAXIS{axis}", 0, _MAX_UNPACKED)
        _number(header, where, hdu, f"ZTILE{axis}", 1, _MAX_UNPACKED, 1)
    if numbers > _MAX_UNPACKED:
        raise _wrong(where, hdu, f"announces an image of {numbers:,} numbers; {_MAX_UNPACKED:,} are read at most")
