"""The ingest plan: the assignment of files to parts, kept on disk and extended by new files.

A part is always made from the same files in the same order, so that a resumed run gives the same
bytes, and a changed file makes only its own part stale. Duplicates are found from the (release,
spec_id) of all spectra kept so far.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..atlas.files import TEMPORARY_PREFIX, text_digest, whole_file
from ..errors import AtlasError
from ..surveys import get_modality
from .files import FoundFile, real_path, stored_path


class SortedRuns:
    """A growing set of numbers, or of records of numbers: sorted runs that are merged as they grow, 8 bytes a number.
    """

    def __init__(self) -> None:
        self._runs: list[np.ndarray] = []

    def add(self, numbers: np.ndarray) -> None:
        """Add (N,) numbers."""
        if not len(numbers):
            return
        self._runs.append(np.sort(numbers))
        while len(self._runs) > 1 and len(self._runs[-2]) <= 2 * len(self._runs[-1]):
            last, before = self._runs.pop(), self._runs.pop()
            self._runs.append(np.sort(np.concatenate([before, last]), kind="stable"))

    def known(self, numbers: np.ndarray) -> np.ndarray:
        """(N,) bool: whether a number is in the set or occurs earlier in `numbers`."""
        result = np.ones(len(numbers), dtype=bool)
        result[np.unique(numbers, return_index=True)[1]] = False
        for run in self._runs:
            at = np.minimum(np.searchsorted(run, numbers), len(run) - 1)
            result |= run[at] == numbers
        return result


class KeyLedger:
    """Keys of the spectra kept so far, by release: (N,) int64 ids, or the records of `keys_of`."""

    def __init__(self) -> None:
        self._releases: dict[str | None, SortedRuns] = {}

    def add(self, release: np.ndarray, spec_id: np.ndarray) -> None:
        """Add the keys of one part: (N,) objects and (N,) int64."""
        for name, places in _by_release(release):
            self._releases.setdefault(name, SortedRuns()).add(spec_id[places])

    def taken(self, release: np.ndarray, spec_id: np.ndarray) -> np.ndarray:
        """(N,) bool: keys that are in the ledger or occur earlier in these arrays."""
        result = np.zeros(len(spec_id), dtype=bool)
        for name, places in _by_release(release):
            result[places] = self._releases.get(name, SortedRuns()).known(spec_id[places])
        return result


_VISIT = np.dtype([("spec_id", np.int64), ("combined", np.int8), ("epoch", np.int64)])


def key_columns(modality: str) -> list[str]:
    """Columns of `spectra/<modality>` that together name a spectrum."""
    return ["release", "spec_id", *(["epoch"] if get_modality(modality).has_epochs else [])]


def keys_of(table: pa.Table) -> np.ndarray:
    """(N,) spec_id of spectra, or records of spec_id and epoch where the survey has epochs."""
    spec_id = table["spec_id"].to_numpy()
    if "epoch" not in table.column_names:
        return spec_id
    keys = np.zeros(len(spec_id), _VISIT)
    keys["spec_id"], keys["combined"] = spec_id, table["epoch"].is_null().to_numpy()
    keys["epoch"] = table["epoch"].fill_null(0).to_numpy()
    return keys


def _by_release(release: np.ndarray) -> Iterator[tuple[str | None, np.ndarray]]:
    """Each release and its positions in the array; None counts as a release."""
    names = release.tolist()
    for wanted in dict.fromkeys(names):
        yield wanted, np.flatnonzero([name == wanted for name in names])


PLAN_FILE = "plan.parquet"
_PARTS = "specclip_search.parts"
# increase when the same file would give different rows: every part is then rebuilt
REVISION = 1
FILES_AT_ONCE = 8192
_SCHEMA = pa.schema([
    ("path", pa.string()), ("size", pa.int64()), ("mtime_ns", pa.int64()), ("readable", pa.bool_()),
    ("release", pa.string()),
])

Grouping = Callable[[Iterable[FoundFile]], Iterator[list[FoundFile]]]


class Plan:
    """The parts of a stage and their files; part i is row group i of one Parquet file.

    Some 30 bytes a file are held in memory while the plan is extended; paths are read one part at a time.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / PLAN_FILE
        # of each part, where the plan was written with them
        self._digests: list[str] = []
        self._file = self._open()

    def _open(self) -> pq.ParquetFile | None:
        if not self.path.exists():
            return None
        try:
            file = pq.ParquetFile(self.path)
            if file.schema_arrow.names != _SCHEMA.names:
                raise pa.ArrowInvalid("other columns")
            self._digests = _kept_digests(file)
            return file
        except (pa.ArrowException, OSError, ValueError) as error:
            raise AtlasError(f"{self.path} is not a readable ingest plan ({error}).",
                             "Remove it together with the shards next to it and ingest again.") from None

    def __len__(self) -> int:
        return 0 if self._file is None else self._file.num_row_groups

    @property
    def n_files(self) -> int:
        return 0 if self._file is None else self._file.metadata.num_rows

    def part_sizes(self) -> list[int]:
        """Number of files of each part."""
        if self._file is None:
            return []
        return [self._file.metadata.row_group(part).num_rows for part in range(len(self))]

    def files(self, part: int) -> pa.Table:
        """Files of a part: path, size, mtime_ns, readable, release."""
        assert self._file is not None
        try:
            table = self._file.read_row_group(part)
            same = not self._digests or inputs_digest(table, "") == self._digests[part]
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self._damaged(str(error)) from error
        if not same:
            raise self._damaged(f"part {part} has other files than were written")
        return table

    def _damaged(self, why: str) -> AtlasError:
        return AtlasError(f"{self.path} is damaged: {why}.",
                          "Copy it again, or remove it together with the shards next to it and ingest again.")

    def inputs(self, part: int, salt: str) -> str:
        """Digest of all inputs of a part."""
        return inputs_digest(self.files(part), salt)

    def update(self, found: Iterable[FoundFile], group: Grouping, release: str | None) -> None:
        """Update the plan atomically: record changed files, put new files into new parts."""
        known = _Known(self)
        waiting = self.path.with_name(f"{TEMPORARY_PREFIX}new-{PLAN_FILE}")
        try:
            with pq.ParquetWriter(waiting, _SCHEMA, compression="zstd") as writer:
                for files in group(known.sort_out(found, release)):
                    writer.write_table(_table(files, release), row_group_size=len(files))
            new = pq.ParquetFile(waiting)
            if new.num_row_groups or known.touched:
                self._write(known, new)
        finally:
            waiting.unlink(missing_ok=True)

    def _write(self, known: _Known, new: pq.ParquetFile) -> None:
        digests = []
        with whole_file(self.path) as temporary, pq.ParquetWriter(temporary, _SCHEMA, compression="zstd") as writer:
            for part in range(len(self)):
                digests.append(_write_part(writer, known.refreshed(part, self.files(part))))
            for part in range(new.num_row_groups):
                digests.append(_write_part(writer, new.read_row_group(part)))
            writer.add_key_value_metadata({_PARTS: json.dumps(digests)})
        self._file = self._open()


def _write_part(writer: pq.ParquetWriter, files: pa.Table) -> str:
    """Write a part; returns its digest."""
    writer.write_table(files, row_group_size=max(1, files.num_rows))
    return inputs_digest(files, "")


def _kept_digests(file: pq.ParquetFile) -> list[str]:
    """Digests of the parts of a plan; none where an older version wrote it."""
    kept = (file.metadata.metadata or {}).get(_PARTS.encode())
    if kept is None:
        return []
    digests = json.loads(kept)
    if not isinstance(digests, list) or len(digests) != file.num_row_groups:
        raise pa.ArrowInvalid("its parts are not those that were written")
    return digests


def inputs_digest(files: pa.Table, salt: str) -> str:
    """Digest of a part's files as found, and of the revision and settings that convert them to rows."""
    rows = zip(*(files[name].to_pylist() for name in _SCHEMA.names), strict=True)
    return text_digest(f"ingest {REVISION}", salt, *("\t".join(map(str, row)) for row in rows))


def _table(files: list[FoundFile], release: str | None) -> pa.Table:
    return pa.table({
        "path": [stored_path(file.path) for file in files], "size": [file.size for file in files],
        "mtime_ns": [file.mtime_ns for file in files], "readable": [file.readable for file in files],
        "release": pa.array([release] * len(files), pa.string())}, schema=_SCHEMA)


class _Known:
    """Planned files by the hash of their path, to distinguish new, changed and unchanged files."""

    def __init__(self, plan: Plan) -> None:
        self.starts = np.concatenate([[0], np.cumsum(plan.part_sizes(), dtype=np.int64)])
        self.hashes = np.empty(plan.n_files, np.uint64)
        self.marks = np.empty(plan.n_files, np.uint64)
        self.release = np.empty(plan.n_files, np.int16)
        self.names: list[str | None] = [None]
        for part in range(len(plan)):
            table = plan.files(part)
            rows = slice(int(self.starts[part]), int(self.starts[part + 1]))
            self.hashes[rows] = [_hash(real_path(path)) for path in table["path"].to_pylist()]
            columns = (table[name].to_pylist() for name in ("size", "mtime_ns", "readable"))
            self.marks[rows] = [_mark(*row) for row in zip(*columns, strict=True)]
            self.release[rows] = [self._code(name) for name in table["release"].to_pylist()]
        self.order = np.argsort(self.hashes, kind="stable")
        self.sorted = self.hashes[self.order]
        self.changed: dict[int, FoundFile] = {}
        self.renamed: dict[int, str] = {}

    def _code(self, name: str | None) -> int:
        if name not in self.names:
            self.names.append(name)
        return self.names.index(name)

    def sort_out(self, found: Iterable[FoundFile], release: str | None) -> Iterator[FoundFile]:
        """Yield files that are not in the plan; record changed ones. A file found twice counts once."""
        seen, left = SortedRuns(), iter(found)
        while files := list(islice(left, FILES_AT_ONCE)):
            keys = np.array([_hash(file.path) for file in files], dtype=np.uint64)
            places = np.searchsorted(self.sorted, keys)
            planned = np.zeros(len(files), dtype=bool)
            inside = places < len(self.sorted)
            planned[inside] = self.sorted[places[inside]] == keys[inside]
            repeated = seen.known(keys)
            seen.add(keys[~planned & ~repeated])
            for number, file in enumerate(files):
                if planned[number]:
                    self._compare(int(self.order[places[number]]), file, release)
                elif not repeated[number]:
                    yield file

    def _compare(self, row: int, file: FoundFile, release: str | None) -> None:
        if int(self.marks[row]) != _mark(file.size, file.mtime_ns, file.readable):
            self.changed[row] = file
        if release is not None and self.names[self.release[row]] != release:
            self.renamed[row] = release

    @property
    def touched(self) -> bool:
        return bool(self.changed or self.renamed)

    def refreshed(self, part: int, table: pa.Table) -> pa.Table:
        """A part's files, with changed ones updated."""
        first, beyond = int(self.starts[part]), int(self.starts[part + 1])
        rows = [row for row in {*self.changed, *self.renamed} if first <= row < beyond]
        if not rows:
            return table
        content = table.to_pylist()
        for row in rows:
            file = self.changed.get(row)
            if file is not None:
                content[row - first].update(size=file.size, mtime_ns=file.mtime_ns, readable=file.readable)
            if row in self.renamed:
                content[row - first]["release"] = self.renamed[row]
        return pa.Table.from_pylist(content, schema=_SCHEMA)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")


def _mark(size: int, mtime_ns: int, readable: bool) -> int:
    return _hash(f"{size}\t{mtime_ns}\t{readable}")
