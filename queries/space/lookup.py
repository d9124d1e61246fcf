"""Look up rows of a stage by id through sorted ids stored with the indexes, without reading the stage."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from specclip_search.atlas.files import file_digest, text_digest, whole_file, write_json
from specclip_search.atlas.integrity import check_files, check_shards, note_intact
from specclip_search.errors import AtlasError

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas

_OPEN_FILES = 512
_FORMAT = 1
# number of row groups from which a second thread pays off; each takes half a millisecond
_WORTH_THREADS, _READERS = 8, 2
# for fewer ids, sorting is faster than writing and reading a file
_WORTH_KEEPING = 200_000


class Lookup:
    """Rows of a stage by one of its id columns.

    Parameters
    ----------
    ids
        (N,) int64, sorted; rows without an id are not included.
    rows
        (N,) int64 row of each in the stage: files in order, rows within.
    files
        The stage's Parquet files.
    first_row
        (files + 1,) int64 first row of each file.
    """

    def __init__(self, ids: np.ndarray, rows: np.ndarray, files: Sequence[str], first_row: np.ndarray) -> None:
        self.ids = ids
        self.rows = rows
        self.files = tuple(files)
        self.first_row = first_row

    def find(self, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All rows of each wanted id.

        Returns
        -------
        query, row : (M,) int64
            Position in `wanted` and row in the stage, by query and then in the stage's order.
        """
        start = np.searchsorted(self.ids, wanted, "left")
        count = np.searchsorted(self.ids, wanted, "right") - start
        query = np.repeat(np.arange(len(wanted)), count)
        offset = np.arange(len(query)) - np.repeat(np.cumsum(count) - count, count)
        return query, np.asarray(self.rows[np.repeat(start, count) + offset], dtype=np.int64)

    def take(self, rows: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Columns of some rows of the stage, in the order of `rows`; only their row groups are read."""
        number = np.searchsorted(self.first_row, rows, "right") - 1
        wanted = []
        for file in np.unique(number):
            here = np.flatnonzero(number == file)
            wanted += _groups_of(self.files[file], rows[here] - self.first_row[file], here)
        if not wanted:
            check_shards(self.files[:1])
            schema = pq.read_schema(self.files[0])
            return pa.schema([schema.field(name) for name in columns]).empty_table()
        pieces = _read(wanted, list(columns))
        back = np.argsort(np.concatenate([one.place for one in wanted]), kind="stable")
        return pa.concat_tables(pieces).take(pa.array(back))


@dataclass(frozen=True, slots=True)
class _Group:
    """Requested rows of one row group: `rows` within it, and their positions in the result."""

    path: str
    changed: int
    number: int
    rows: np.ndarray
    place: np.ndarray


def _groups_of(path: str, rows: np.ndarray, place: np.ndarray) -> list[_Group]:
    changed = os.stat(path).st_mtime_ns
    first = _opened(path, changed, 0)[1]
    group = np.searchsorted(first, rows, "right") - 1
    found = []
    for number in np.unique(group):
        here = np.flatnonzero(group == number)
        found.append(_Group(path, changed, int(number), rows[here] - first[number], place[here]))
    return found


def _read(wanted: list[_Group], columns: list[str]) -> list[pa.Table]:
    """The rows of every group, in order; for many groups a second thread with its own readers reads half of them."""

    def share(turn: int, step: int) -> list[pa.Table]:
        return [_rows_of(one, columns, turn) for one in wanted[turn::step]]

    if len(wanted) < _WORTH_THREADS:
        return share(0, 1)
    halves = list(_threads().map(share, range(_READERS), [_READERS] * _READERS))
    return [halves[i % _READERS][i // _READERS] for i in range(len(wanted))]


def _rows_of(one: _Group, columns: list[str], reader: int) -> pa.Table:
    file, _, lock = _opened(one.path, one.changed, reader)
    with lock:
        table = file.read_row_group(one.number, columns=columns, use_threads=False)
    return table.take(pa.array(one.rows))


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_READERS, thread_name_prefix="lookup")


@lru_cache(maxsize=_OPEN_FILES)
def _opened(path: str, changed: int, reader: int) -> tuple[pq.ParquetFile, np.ndarray, threading.Lock]:
    """An open file with its footer, the first row of each row group, and a lock, as readers are not thread-safe.

    `reader` distinguishes the handles of threads that read the same file concurrently.
    """
    check_shards([path])
    file = pq.ParquetFile(path, memory_map=True, pre_buffer=False)
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    return file, np.concatenate([[0], np.cumsum(sizes)])[: len(sizes)].astype(np.int64), threading.Lock()


def open_lookup(atlas: Atlas, name: str, files: Sequence[str], key: str) -> Lookup:
    """The lookup of a stage's column, rebuilt if it is missing or the stage has changed.

    Parameters
    ----------
    name
        Name of the view, used for the file name of the lookup.
    files
        The stage's Parquet files, all with column `key`.
    """
    return _kept(str(atlas.path), name, tuple(files), key, fingerprint(files))


def fingerprint(files: Sequence[str]) -> str:
    """Fingerprint of the shards; they are replaced by renaming, so size and modification time suffice."""
    stats = [(file, stat.st_size, stat.st_mtime_ns) for file in files for stat in (os.stat(file),)]
    return hashlib.sha256(repr((_FORMAT, stats)).encode("utf-8", "surrogateescape")).hexdigest()


@lru_cache(maxsize=32)
def _kept(atlas: str, name: str, files: tuple[str, ...], key: str, fingerprint: str) -> Lookup:
    base = Path(atlas) / "indexes" / ".lookup" / f"{name}.{key}"
    stored = _load(base, files, fingerprint)
    if stored is not None:
        return stored
    made = _make(files, key)
    if len(made.ids) < _WORTH_KEEPING:
        return made
    try:
        _store(base, made, fingerprint)
    except OSError:
        # a read-only atlas can still be searched
        return made
    return _load(base, files, fingerprint) or made


def _make(files: Sequence[str], key: str) -> Lookup:
    ids, rows, sizes = [], [], [0]
    check_shards(files)
    for file in files:
        column = pq.ParquetFile(file).read(columns=[key], use_threads=False)[key]
        valid = np.flatnonzero(np.asarray(column.is_valid()))
        ids.append(column.drop_null().to_numpy())
        rows.append(valid + sizes[-1])
        sizes.append(sizes[-1] + len(column))
    all_ids = np.concatenate(ids) if ids else np.empty(0, np.int64)
    order = np.argsort(all_ids, kind="stable")
    return Lookup(
        all_ids[order], np.concatenate(rows)[order] if rows else order, files, np.array(sizes, dtype=np.int64)
    )


def _paths(base: Path) -> tuple[Path, Path, Path]:
    return (
        base.with_name(base.name + ".ids.npy"),
        base.with_name(base.name + ".rows.npy"),
        base.with_name(base.name + ".json"),
    )


def _store(base: Path, lookup: Lookup, fingerprint: str) -> None:
    ids, rows, head = _paths(base)
    head.unlink(missing_ok=True)
    for path, values in ((ids, lookup.ids), (rows, lookup.rows)):
        with whole_file(path) as temporary, open(temporary, "wb") as handle:
            np.save(handle, values, allow_pickle=False)
    content = {
        "fingerprint": fingerprint,
        "first_row": lookup.first_row.tolist(),
        "files": {path.name: file_digest(path) for path in (ids, rows)},
    }
    for name, digest in content["files"].items():
        note_intact(head.parent / name, digest)
    write_json(head, content | {"check": _digest_of(content)})


def _digest_of(content: dict[str, Any]) -> str:
    return text_digest(json.dumps({name: value for name, value in content.items() if name != "check"}, sort_keys=True))


def _load(base: Path, files: Sequence[str], fingerprint: str) -> Lookup | None:
    ids, rows, head = _paths(base)
    try:
        content = json.loads(head.read_text(encoding="utf-8"))
        if content["fingerprint"] != fingerprint:
            return None
        if content["check"] != _digest_of(content):
            return None
        check_files(head.parent, {path.name: content["files"][path.name] for path in (ids, rows)})
        first = np.load(ids, mmap_mode="r", allow_pickle=False)
        second = np.load(rows, mmap_mode="r", allow_pickle=False)
        return Lookup(first, second, files, np.array(content["first_row"], dtype=np.int64))
    except (AtlasError, OSError, ValueError, KeyError, TypeError):
        # a damaged lookup is made again
        return None
