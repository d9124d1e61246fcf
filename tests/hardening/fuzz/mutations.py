"""Structure-aware mutations: each is a list of splices on a file's bytes, so that a found input can be kept as code."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable, Sequence

Splice = tuple[int, int, bytes]
"""(start, stop, replacement): `data[start:stop] = replacement`, on the original's offsets, in rising order."""

_NUMBERS = (b"0", b"-1", b"1", b"2147483647", b"-2147483648", b"4294967296", b"9223372036854775807",
            b"99999999999999999999", b"1e400", b"-1e308", b"nan", b"NaN", b"inf", b"0.1", b"999999999")
_TOKENS = (*_NUMBERS, b"", b" ", b"text", b"''", b'"', b"T", b"null", b"\x00", b"\xff\xfe", "−3.1".encode(), b"<-4.0",
           b"12 34 56.7", b"[1,2", b"(1, 2)", b"Gaia DR3 5", b"-9999", b"a" * 5000, b"\n", b",,,,", b"\t", b"{", b"&x;")


def apply(data: bytes, splices: Sequence[Splice]) -> bytes:
    """`data` with the splices made."""
    pieces, at = [], 0
    for start, stop, new in splices:
        pieces += [data[at:start], new]
        at = stop
    return b"".join([*pieces, data[at:]])


def mutate(data: bytes, kind: str, rng: random.Random) -> list[Splice]:
    """One to four mutations of `data`, fit to its kind: ``fits``, ``text``, ``xml``, ``settings``,
    ``safetensors`` or ``binary``."""
    made: list[Splice] = []
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        own = _OWN[kind]
        made.append(rng.choice((*own, *own, *_ANY))(data, rng))
    made.sort()
    kept: list[Splice] = []
    for splice in made:  # those that overlap an earlier one are dropped
        if not kept or splice[0] >= kept[-1][1]:
            kept.append(splice)
    return kept


def _place(data: bytes, rng: random.Random) -> int:
    """A place in the file; half of them in its first kilobytes, where the structure is, some at its end."""
    size = max(len(data) - 1, 0)
    return rng.choice((rng.randint(0, size), rng.randint(0, min(size, 9000)), rng.randint(max(0, size - 4000), size)))


# -- for every kind ----------------------------------------------------------------------------


def _flip(data: bytes, rng: random.Random) -> Splice:
    at = _place(data, rng)
    return at, min(at + 1, len(data)), bytes([rng.randrange(256)])


def _cut(data: bytes, rng: random.Random) -> Splice:
    return _place(data, rng), len(data), b""


def _drop(data: bytes, rng: random.Random) -> Splice:
    at = _place(data, rng)
    return at, min(len(data), at + rng.choice((1, 2, 80, 2880, 10_000))), b""


def _repeat(data: bytes, rng: random.Random) -> Splice:
    at = _place(data, rng)
    return at, at, data[at : at + rng.choice((1, 80, 2880))] * rng.choice((1, 2, 50))


def _zeros(data: bytes, rng: random.Random) -> Splice:
    at = _place(data, rng)
    size = rng.choice((1, 4, 8, 80))
    return at, min(len(data), at + size), rng.choice((b"\0", b"\xff")) * size


_ANY: tuple[Callable[[bytes, random.Random], Splice], ...] = (_flip, _cut, _drop, _repeat, _zeros)


# -- FITS ----------------------------------------------------------------------------------------


def _card(data: bytes, rng: random.Random) -> Splice:
    """Another value in a card of some header, most often one that sizes or types follow from."""
    wanted = rng.choice((rb"NAXIS\d* *= ", rb"TFORM\d* *= ", rb"[A-Z][A-Z0-9_-]{0,7} *= ",
                         rb"(BITPIX|PCOUNT|GCOUNT|TFIELDS|TDIM\d*|TSCAL\d*|TZERO\d*|BSCALE|BZERO|THEAP|TNULL\d*) *= "))
    cards = [m.start() for m in re.finditer(wanted, data[:60_000]) if m.start() % 80 == 0]
    if not cards:
        return _flip(data, rng)
    at = rng.choice(cards)
    value = rng.choice((*_NUMBERS, b"'text'", b"T", b"", b"'9999999E'", b"'PE(99999999)'", b"'1QJ'", b"'A'", b"-32"))
    return at, at + 80, (data[at : at + 8] + b"= " + value.rjust(20))[:80].ljust(80)


def _swap_name(data: bytes, rng: random.Random) -> Splice:
    """Another keyword for a card."""
    at = 80 * rng.randrange(max(1, min(len(data), 60_000) // 80))
    names = (b"END     ", b"NAXIS   ", b"CONTINUE", b"XTENSION", b"ZIMAGE  ", b"HIERARCH")
    return at, min(len(data), at + 8), rng.choice(names)


# -- text and XML ---------------------------------------------------------------------------------


def _field(data: bytes, rng: random.Random) -> Splice:
    """Another value in one field of a table of text."""
    fields = list(re.finditer(rb"[^,;|\t\n ]+", data[:20_000])) or list(re.finditer(rb"\S+", data[:20_000]))
    if not fields:
        return _flip(data, rng)
    found = rng.choice(fields)
    return found.start(), found.end(), rng.choice(_TOKENS)


def _delimiter(data: bytes, rng: random.Random) -> Splice:
    """Another delimiter, a quote, a line end, a comment or a byte order mark."""
    marks = list(re.finditer(rb"[,;|\t\n\"'#]", data[:20_000]))
    if not marks or rng.random() < 0.1:
        return 0, 0, rng.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\n\n", b"# comment\n", b"% x\n", b"\\x\n", b"|a|\n"))
    found = rng.choice(marks)
    others = (b",", b";", b"|", b"\t", b" ", b"\r", b"\n", b'"', b"'", b"\n#", b"")
    return found.start(), found.end(), rng.choice(others)


def _line(data: bytes, rng: random.Random) -> Splice:
    """A line left out, doubled, or in the place of dashes or units."""
    ends = [0, *(m.end() for m in re.finditer(rb"\n", data[:200_000]))]
    at = rng.choice(ends)
    stop = next((end for end in ends if end > at), len(data))
    others = (b"---\t---\n", b"deg,deg,K\n", b"(5 rows)\n", b"\\begin{tabular}\n")
    return at, stop, rng.choice((b"", data[at:stop] * 2, *others))


def _tag(data: bytes, rng: random.Random) -> Splice:
    """Another tag, attribute or reference in XML."""
    tags = list(re.finditer(rb"<[^>]{1,300}>", data[:60_000]))
    if not tags:
        return _flip(data, rng)
    found = rng.choice(tags)
    field = b'<FIELD name="y" datatype="%s" arraysize="%s"/>' % (
        rng.choice((b"long", b"char", b"bit", b"double", b"none")), rng.choice((b"*", b"999999999", b"2x*")))
    new = rng.choice((b"", found[0] * 2, field, b'<STREAM href="file:///etc/hostname"/>', b"<TABLE>", b"</TABLE>",
                      b"<TR>", b"&amp;", b"<!-- -->", b"<![CDATA[",
                      b'<INFO name="QUERY_STATUS" value="ERROR">no</INFO>'))
    return found.start(), found.end(), new


def _attribute(data: bytes, rng: random.Random) -> Splice:
    values = list(re.finditer(rb"=\"[^\"]*\"", data[:60_000]))
    if not values:
        return _flip(data, rng)
    found = rng.choice(values)
    return found.start() + 2, found.end() - 1, rng.choice((*_NUMBERS, b"text", b"", b"2x3x*", b"double", b"utf-16"))


# -- JSON and TOML --------------------------------------------------------------------------------


def _value(data: bytes, rng: random.Random) -> Splice:
    """Another value for a name of JSON or TOML; in a safetensors file, of its header."""
    value = rb'(?<=[=:\[,])\s*("[^"\n]*"|[-+.\w]+|\[[^\[\]]{0,200}\]|\{[^{}]{0,200}\})'
    found = list(re.finditer(value, data[:60_000]))
    if not found:
        return _flip(data, rng)
    chosen = rng.choice(found)
    own = chosen[1]
    others = (*_NUMBERS, b'"text"', b"[]", b"{}", b"true", b"null", b"[[1]]", b"[" * 3000, own + own, own[1:-1], b'""',
              b"3", b"16", b"65536", b"1000000", b'"lamost_lrs"', b'"split"', b"-0.0", b"[0, 9223372036854775807]")
    new = rng.choice(others)
    # the length of a safetensors header stands before it: most changes keep it
    if len(new) < len(own) and rng.random() < 0.8:
        new = new.ljust(len(own))
    return chosen.start(1), chosen.end(1), new


def _name(data: bytes, rng: random.Random) -> Splice:
    """Another name in JSON or TOML."""
    found = list(re.finditer(rb'\w+(?="?\s*[=:])', data[:60_000]))
    if not found:
        return _flip(data, rng)
    chosen = rng.choice(found)
    return chosen.start(), chosen.end(), rng.choice((b"x", b"__class__", chosen[0] + b"s", chosen[0][::-1]))


# -- other binary forms ------------------------------------------------------------------------------


def _integer(data: bytes, rng: random.Random) -> Splice:
    """A small, large or negative integer where a length may stand."""
    at = _place(data, rng)
    value = rng.choice((0, 1, 0x7FFFFFFF, -1, 1 << 20))
    packed = struct.pack(rng.choice(("<i", ">i", "<q")), value)
    return at, min(len(data), at + len(packed)), packed


_OWN: dict[str, tuple[Callable[[bytes, random.Random], Splice], ...]] = {
    "fits": (_card, _card, _swap_name), "text": (_field, _delimiter, _line), "xml": (_tag, _attribute, _field),
    "binary": (_integer, _flip), "settings": (_value, _value, _name), "safetensors": (_value, _value, _name, _integer),
}
