"""What was asked for, what came and what did not: kept in the folder of a download, so that it can continue."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..atlas.files import write_json, write_text, writer_lock
from ..errors import FetchError, QueryError

# none of these names is one that `ingest` looks for in a folder
REQUEST, LEDGER, ASKED, MISSING = "request.json", "ledger.jsonl", "asked.txt", "missing.txt"


@dataclass(frozen=True, slots=True)
class FetchReport:
    """Accounts of a download: asked = got + the number of missing.

    Attributes
    ----------
    folder
        Where its files are; `ingest` takes it.
    asked, got
        Number of different ids.
    missing
        Reason of each id that did not come; also in ``missing.txt``.
    repeated
        Ids that were given more than once.
    files
        Number of files.
    requests
        Requests of this run that were answered with a file; 0 where all was there.
    """

    folder: Path
    asked: int
    got: int
    missing: dict[int, str]
    repeated: int = 0
    files: int = 0
    requests: int = 0


@dataclass
class Ledger:
    """The record of one download. Use inside `open_ledger`.

    Attributes
    ----------
    done
        Entries by name: a chunk's number, or an id.
    """

    folder: Path
    done: dict[str, dict[str, Any]] = field(default_factory=dict)

    def asked(self) -> list[int] | None:
        """The ids of this download, where an earlier run has found them."""
        path = self.folder / ASKED
        return [int(line) for line in path.read_text("utf-8").split()] if path.exists() else None

    def set_asked(self, ids: Sequence[int]) -> None:
        write_text(self.folder / ASKED, "".join(f"{one}\n" for one in ids))

    def add(self, name: str, **entry: Any) -> None:
        """Record that a chunk or file is complete; it is on disk when this returns."""
        line = json.dumps({"name": name, **entry}, sort_keys=True)
        with open(self.folder / LEDGER, "a", encoding="utf-8") as stream:
            stream.write(f"{line}\n")
            stream.flush()
            os.fsync(stream.fileno())
        self.done[name] = entry

    def report(
        self, ids: Sequence[int], got: int, missing: dict[int, str], repeated: int, requests: int
    ) -> FetchReport:
        """Write ``missing.txt`` and give the accounts."""
        write_text(self.folder / MISSING, "".join(f"{one}\t{why}\n" for one, why in missing.items()))
        if len(ids) != got + len(missing):
            raise FetchError(
                f"{len(ids):,} ids were asked for; {got:,} came and {len(missing):,} are missing.",
                f"{self.folder / LEDGER} was changed: fetch into a new folder.",
            )
        files = sum(len(entry["files"]) for entry in self.done.values())
        return FetchReport(self.folder, len(ids), got, missing, repeated, files, requests)


@contextmanager
def open_ledger(folder: str | os.PathLike[str], request: dict[str, Any]) -> Iterator[Ledger]:
    """The ledger of a folder, for this process alone; a new folder is made.

    Entries whose files are gone, or have another size, are left out: they are fetched again.

    Raises
    ------
    QueryError
        If the folder holds another download, or other files.
    """
    place = Path(folder)
    if place.exists() and not place.is_dir():
        raise QueryError(f"{place} is a file; a download needs a folder.", "Give another --output.")
    known = place / REQUEST
    if not known.exists() and place.is_dir() and any(not path.name.startswith(".") for path in place.iterdir()):
        raise QueryError(f"{place} holds files of something else.", "Give a new folder with --output.")
    with writer_lock(place):
        if known.exists():
            before = json.loads(known.read_text("utf-8"))
            differing = sorted(name for name in {*before, *request} if before.get(name) != request.get(name))
            if differing:
                raise QueryError(
                    f"{place} holds another download: it differs in {', '.join(differing)}.",
                    "Give the same options to continue it, or a new folder with --output.",
                )
        else:
            write_json(known, request)
        yield Ledger(place, _entries(place))


def _entries(folder: Path) -> dict[str, dict[str, Any]]:
    path, found = folder / LEDGER, {}
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:  # the process was killed while it wrote this line
            continue
        sizes = entry.get("files", {})
        if all((folder / name).is_file() and (folder / name).stat().st_size == size for name, size in sizes.items()):
            found[entry.pop("name")] = entry
    if path.exists() and not path.read_bytes().endswith(b"\n"):
        with open(path, "a", encoding="utf-8") as stream:
            stream.write("\n")
    return found


def different(ids: Sequence[int]) -> tuple[list[int], int]:
    """The ids in their order, each once, and how many were repeated."""
    once = list(dict.fromkeys(ids))
    return once, len(ids) - len(once)


def read_ids(path: str | os.PathLike[str], key: str) -> list[int]:
    """Ids of a file: one a line, or the column of that meaning in any catalogue.

    Parameters
    ----------
    key
        ``source_id`` or ``obsid``.

    Raises
    ------
    QueryError
        If there are none.
    SpecclipError
        If the file cannot be read, or its ids are no exact 64-bit numbers.
    """
    from ..catalogs.formats import open_catalog
    from ..catalogs.ids import ids_to_int64
    from ..labels import standard_name
    from ..opening.regular import open_regular

    with open_regular(Path(path)) as stream:
        start = stream.read(4096).split(b"\n")
    if start[0].strip().isdigit():
        with open_regular(Path(path)) as stream:
            words = stream.read().split()
        wrong = next((word for word in words if not word.isdigit() or int(word) >= 2**63), None)
        if wrong is not None:
            raise QueryError(f"{path}: expected one id a line; found '{wrong[:40].decode(errors='replace')}'.",
                             "Give whole numbers below 2**63, one a line, or a table.")
        return [int(word) for word in words]
    opened = open_catalog(Path(path))
    column = next((name for name in opened.schema.names if standard_name(name) == key), None)
    found: list[int] = []
    if column is not None:
        for chunk in opened.chunks([column]):
            found += ids_to_int64(chunk[column], column)[0].drop_null().to_pylist()
    if not found:
        raise QueryError(f"{path} has no column of {key}s (found {', '.join(opened.schema.names[:6])}).",
                         f"Give a file with one {key} a line, or a table with a column '{key}'.")
    return found


def chunks(ids: Sequence[int], size: int, most: int) -> Iterator[tuple[str, list[int]]]:
    """Name and ids of each chunk.

    Raises
    ------
    QueryError
        If `size` is not between 1 and the archive's limit.
    """
    if not 1 <= size <= most:
        raise QueryError(f"A chunk has 1 to {most:,} ids; found {size:,}.", "Omit --chunk for the default.")
    for first in range(0, len(ids), size):
        yield f"{first // size + 1:06d}", list(ids[first : first + size])


def ids_digest(ids: Sequence[int]) -> str:
    """Digest of a list of ids, by which a download is known again."""
    return "sha256:" + hashlib.sha256(np.array(ids, np.int64).tobytes()).hexdigest()
