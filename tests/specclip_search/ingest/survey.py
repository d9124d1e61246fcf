"""Makes a folder of LAMOST files, real ones under new obsids and every kind of wreck, for the ingest's tests."""

from __future__ import annotations

import gzip
import os
from pathlib import Path


def with_obsid(data: bytes, obsid: int) -> bytes:
    """A LAMOST file's bytes under another obsid."""
    at = data.index(b"OBSID   =")
    card = f"OBSID   = {obsid:>20d} / made for a test".ljust(80).encode()
    return data[:at] + card + data[at + 80 :]


def good_files(originals: list[Path], folder: Path, count: int, first_obsid: int = 5_000_000_000) -> list[Path]:
    """`count` copies of real files in a release's tree: YYYYMMDD/PLANID/spec-..."""
    decoded = [gzip.decompress(path.read_bytes()) for path in originals]
    files = []
    for number in range(count):
        place = folder / f"2016{number // 40 + 1:04d}" / f"PLAN{number // 20:02d}"
        place.mkdir(parents=True, exist_ok=True)
        file = place / f"spec-57400-PLAN{number // 20:02d}_sp{number % 16 + 1:02d}-{number % 250 + 1:03d}.fits.gz"
        data = with_obsid(decoded[number % len(decoded)], first_obsid + number)
        if number % 3:
            file.write_bytes(gzip.compress(data, 1, mtime=0))
        else:
            file = file.with_suffix("")
            file.write_bytes(data)
        files.append(file)
    return files


def wreck(good: Path, folder: Path, number: int) -> tuple[Path, str]:
    """One wrecked file and the reason it must be set aside with."""
    kinds = (_cut_gzip, _empty, _web_page, _text, _folder, _duplicate, _cut_plain, _flipped)
    folder.mkdir(parents=True, exist_ok=True)
    return kinds[number % len(kinds)](good, folder / f"wreck-{number:03d}.fits")


def _data(good: Path) -> bytes:
    raw = good.read_bytes()
    return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw


def _cut_gzip(good: Path, target: Path) -> tuple[Path, str]:
    target = target.with_suffix(".fits.gz")
    target.write_bytes(gzip.compress(_data(good), 1)[:-3000])
    return target, "unreadable"


def _cut_plain(good: Path, target: Path) -> tuple[Path, str]:
    target.write_bytes(_data(good)[:30000])
    return target, "unreadable"


def _empty(good: Path, target: Path) -> tuple[Path, str]:
    target.write_bytes(b"")
    return target, "unreadable"


def _web_page(good: Path, target: Path) -> tuple[Path, str]:
    target.write_text("<!DOCTYPE html><html><head><title>503 Service Unavailable</title></head></html>")
    return target, "unreadable"


def _text(good: Path, target: Path) -> tuple[Path, str]:
    target.write_text("not a spectrum\n")
    return target, "layout_unknown"


def _folder(good: Path, target: Path) -> tuple[Path, str]:
    target.mkdir()
    return target, "unreadable"


def _duplicate(good: Path, target: Path) -> tuple[Path, str]:
    target.write_bytes(_data(good))
    return target, "duplicate_key"


def _flipped(good: Path, target: Path) -> tuple[Path, str]:
    target.write_bytes(os.urandom(6000))
    return target, "layout_unknown"
