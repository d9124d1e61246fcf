"""Inputs that were faults once, as the change that makes each from a sound file of `targets.seeds`."""

from __future__ import annotations

from collections.abc import Callable

from .mutations import Splice

Change = Callable[[bytes], list[Splice]]


def card(keyword: str, value: str, after: bytes = b"SIMPLE") -> Change:
    """Another value in the first card of a keyword behind `after`."""
    def change(data: bytes) -> list[Splice]:
        at = data.index(keyword.ljust(8).encode() + b"= ", data.index(after))
        return [(at, at + 80, f"{keyword:<8}= {value:>20}".ljust(80).encode())]

    return change


def swap(old: bytes, new: bytes) -> Change:
    """Another text in place of the first `old`."""
    def change(data: bytes) -> list[Splice]:
        at = data.index(old)
        return [(at, at + len(old), new)]

    return change


_TABLE = b"XTENSION"
FOUND: list[tuple[str, Change]] = [
    # numbers beyond 64 bits: TypeError of numpy, OverflowError
    *((seed, card(name, "9" * 20)) for seed in ("matrix one", "table one") for name in ("SNRU", "RA", "Z")),
    ("matrix one", card("COEFF1", "9" * 20)),
    # no pixel at all: IndexError
    ("matrix ingest", card("NAXIS1", "0")),
    # a header that keeps astropy busy for days
    *((seed, card("NAXIS", "4294967296", after)) for seed, after in (
        ("matrix ingest", b"SIMPLE"), ("boss", b"SIMPLE"), ("catalogue fits", _TABLE),
        ("XP_SAMPLED_RAW_dr3int6.fits", _TABLE))),
    ("catalogue fits", card("TFIELDS", "2147483647", _TABLE)),
    ("catalogue fits", card("NAXIS2", "99999999999", _TABLE)),
    ("catalogue fits", card("TFORM1", "'900000000E'", _TABLE)),
    # foreign exceptions without the file's name
    ("catalogue vot", swap(b"<TABLE", b'<TABLE><INFO name="QUERY_STATUS" value="ERROR">no</INFO></TABLE><TABLE')),
    ("catalogue vot", swap(b"<TABLE", b'<STREAM href="file:///etc/hostname"/><TABLE')),
    ("catalogue ecsv", swap(b"datatype", b"dataty\xffpe")),
    ("catalogue csv", swap(b"4000.0", b"<4000")),
    ("catalogue parquet", swap(b"PAR1", b"PARE")),
    ("checkpoint file", swap(b"PK\x03\x04", b"PK\x03\x05")),
    # a card of a model that asks for what its weights are not: a billion layers, none, an instrument of another name
    ("model.toml", swap(b"lrs_layers = 1", b"lrs_layers = 999999999")),
    ("model.toml", swap(b"lrs_width = 8", b"lrs_width = 0")),
    ("model.toml", swap(b'"lamost_lrs"', b'"lamooost_lrs"')),
    ("model.toml", swap(b"lrs_layers = 1", b"lrs_layers = " + b"[" * 3000)),
    ("metrics.json", swap(b"{", b"\xff")),
    ("metrics.json", swap(b"{", b"[" * 100_000)),
    ("checkpoint pickle", swap(b"state_dict", b"state_dicu")),
]
