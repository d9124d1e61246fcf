"""What a stage should hold: how many shards and rows, which numbers, and a digest of the shards' digests.

A stage is otherwise what lies in its folder, so a copy that stopped half-way would be a smaller atlas. The manifest is
a small file of constant size that every write and removal of a shard replaces, after the shard: it names ranges of
numbers instead of shards, and its digest is a sum that one shard can be added to or taken from. Writing shard 10,000
costs what writing the first one does.

While a run writes, or where one was killed, the manifest is not `settled`: its numbers hold, its sums may be behind by
the shards of that moment. The next writer counts again.

A stage whose whole folder is missing could not be missed by what lies in the atlas. So `atlas.toml` names every stage
that got a shard; readers name one that is named there and is not there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import AtlasError
from .files import is_refusal, not_permitted, text_digest, write_text

if TYPE_CHECKING:
    from .stage import Part

MARKER = "atlas.toml"
MANIFEST = "manifest.json"
FORMAT = 1
_CHECK, _STAGES = "check", "stages"
_LOCK, _MARKER_LOCK = ".manifest.lock", ".atlas.lock"
_LOCK_S = 60.0
# between the removal of an old sidecar and the new one a reader finds neither; writing one takes milliseconds
PATIENCE_S = 5.0
_LOOK_S = 0.01
_SHARD = re.compile(r"part-(\d{6,9})\.(json|parquet)", re.ASCII)
_MODULUS = 1 << 256
_MOST_NAMED = 8


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a stage should hold.

    Attributes
    ----------
    numbers
        Ranges of shard numbers, first and last, ascending, apart from each other.
    rows
        Rows of all shards.
    digest
        Sum over all shards of the SHA-256 of ``number:rows:digest of the sidecar``, modulo 2**256.
    settled
        False while a writer is at work or was killed: `rows` and `digest` may then be behind.
    exact
        False where a shard was missing when the shards were counted: `rows` and `digest` leave it out.
    """

    numbers: tuple[tuple[int, int], ...] = ()
    rows: int = 0
    digest: int = 0
    settled: bool = True
    exact: bool = True

    @property
    def shards(self) -> int:
        return sum(last - first + 1 for first, last in self.numbers)

    def __contains__(self, number: int) -> bool:
        return any(first <= number <= last for first, last in self.numbers)

    def missing(self, present: Iterable[int]) -> list[int]:
        """Numbers that should be there and are not among `present`."""
        there = set(present)
        return [number for first, last in self.numbers for number in range(first, last + 1) if number not in there]

    def with_shard(self, new: Part, old: Part | None) -> Manifest:
        """After shard `new` was written in the place of `old`."""
        known = new.number in self
        # the sums hold a shard that is gone and cannot be taken out of them any more
        exact = self.exact and (old is not None or not known)
        rows, digest = _sums([new], [old] if old is not None and known else [])
        numbers = self.numbers if known else _joined([*self.numbers, (new.number, new.number)])
        return Manifest(numbers, self.rows + rows, (self.digest + digest) % _MODULUS, False, exact)

    def without(self, number: int, old: Part | None) -> Manifest:
        """Before shard `number` is removed, which its sidecar described as `old`."""
        if number not in self:
            return replace(self, settled=False)
        rows, digest = _sums([], [old] if old is not None else [])
        pieces = [
            (first, last)
            for low, high in self.numbers
            for first, last in ([(low, number - 1), (number + 1, high)] if low <= number <= high else [(low, high)])
            if first <= last
        ]
        exact = self.exact and old is not None
        return Manifest(tuple(pieces), self.rows + rows, (self.digest + digest) % _MODULUS, False, exact)

    def agrees(self, parts: Iterable[Part]) -> bool:
        """Whether these are the shards that were counted; a manifest that is not settled or exact cannot tell."""
        if not (self.settled and self.exact):
            return True
        rows, digest = _sums(parts, [])
        return rows == self.rows and digest % _MODULUS == self.digest


def _sums(plus: Iterable[Part], minus: Iterable[Part]) -> tuple[int, int]:
    rows, digest = 0, 0
    sha256, number_of = hashlib.sha256, int.from_bytes
    for part in plus:
        rows += part.rows
        digest += number_of(sha256(f"{part.number}:{part.rows}:{part.sidecar or part.digest}".encode()).digest(), "big")
    if gone := list(minus):
        fewer, less = _sums(gone, [])
        return rows - fewer, digest - less
    return rows, digest


def _joined(pieces: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The same numbers in as few ranges as there can be."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(pieces):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return tuple(found)


def committed_numbers(folder: Path) -> list[int]:
    """Numbers of a stage's committed shards, ascending.

    Only file names are read: reading every sidecar of a 10M-row stage would take more than a second.
    """
    sidecars, tables = shard_numbers(folder)
    return sorted(sidecars & tables)


def shard_numbers(folder: Path) -> tuple[set[int], set[int]]:
    """Numbers of which there is a sidecar, and of which there is a Parquet file."""
    try:
        with os.scandir(folder) as entries:
            names = {entry.name for entry in entries if entry.name.startswith("part-")}
    except (FileNotFoundError, NotADirectoryError):
        return set(), set()
    found = [match for name in names if (match := _SHARD.fullmatch(name))]
    sidecars, tables = ({int(match[1]) for match in found if match[2] == kind} for kind in ("json", "parquet"))
    return sidecars, tables


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a stage; None where an older version, which kept none, made the stage.

    Raises
    ------
    AtlasError
        If the file is damaged.
    """
    try:
        return _parsed((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise not_permitted(error) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise AtlasError(
            f"Expected the list of a stage's shards in {folder / MANIFEST}; it cannot be read ({error}).",
            "Copy this file again from where the atlas came from; if there is no other copy, remove it and run "
            "`specclip-search doctor --deep`.",
        ) from error


@lru_cache(maxsize=256)
def _parsed(raw: bytes) -> Manifest:
    """What a manifest's bytes say; readers ask for the same again and again."""
    content = json.loads(raw)
    if content["format"] != FORMAT:
        raise ValueError(f"format {FORMAT} is expected, found {content['format']!r}")
    numbers = tuple((int(first), int(last)) for first, last in content["numbers"])
    manifest = Manifest(
        numbers, int(content["rows"]), int(content["digest"], 16), content["settled"] is True,
        content["exact"] is True,
    )
    if content["shards"] != manifest.shards or numbers != tuple(sorted(numbers)):
        raise ValueError(f"{content['shards']} shards are expected, its numbers are {manifest.shards}")
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the manifest of a stage."""
    content = {
        "format": FORMAT,
        "shards": manifest.shards,
        "numbers": [list(pair) for pair in manifest.numbers],
        "rows": manifest.rows,
        "digest": f"{manifest.digest:064x}",
        "settled": manifest.settled,
        "exact": manifest.exact,
    }
    write_text(folder / MANIFEST, json.dumps(content) + "\n")


@contextmanager
def _changing(folder: Path) -> Iterator[None]:
    """One change of a manifest at a time: a cluster's workers write shards of one stage at once."""
    from filelock import FileLock

    with FileLock(str(folder / _LOCK), timeout=_LOCK_S):
        yield


def change(folder: Path, step: Callable[[Manifest], Manifest], parts: Callable[[], list[Part]]) -> None:
    """Apply one change to a stage's manifest.

    Parameters
    ----------
    step
        From the manifest as it stands to the new one.
    parts
        The shards that lie there, counted where there is no manifest yet.
    """
    with _changing(folder):
        before = read_manifest(folder)
        write_manifest(folder, step(before if before is not None else counted(parts())))


def counted(parts: Iterable[Part], before: Manifest | None = None) -> Manifest:
    """The manifest of these shards; numbers that `before` has and that are not there stay missing."""
    there = list(parts)
    gone = [] if before is None else before.missing(part.number for part in there)
    rows, digest = _sums(there, [])
    numbers = [*(part.number for part in there), *gone]
    return Manifest(_joined((n, n) for n in numbers), rows, digest % _MODULUS, True, not gone)


def settle(folder: Path, parts: Callable[[], list[Part]], *, recount: bool) -> None:
    """Make a stage's manifest settled, before and after a writer's work.

    A stage of an older version gets its manifest here.

    Parameters
    ----------
    parts
        The shards that lie there.
    recount
        Whether an unsettled manifest may be behind, as one of a killed writer may.
    """
    with _changing(folder):
        before = read_manifest(folder)
        if before is None:
            if there := parts():
                write_manifest(folder, counted(there))
        elif not before.settled:
            again = recount or not before.exact
            write_manifest(folder, counted(parts(), before) if again else replace(before, settled=True))


def unsettle(folder: Path) -> None:
    """Tell readers, before a shard is replaced, that one which they do not find is being written."""
    before = read_manifest(folder)
    if before is not None and before.settled:
        with _changing(folder):
            write_manifest(folder, replace(before, settled=False))


def forget_missing(folder: Path, parts: Callable[[], list[Part]]) -> list[int]:
    """Take what lies in a folder for the whole stage; returns the numbers that were given up."""
    with _changing(folder):
        before = read_manifest(folder)
        gone = [] if before is None else before.missing(committed_numbers(folder))
        if gone:
            write_manifest(folder, counted(parts()))
    return gone


def listed(folder: Path) -> tuple[list[int], list[int], Manifest | None]:
    """Numbers of the shards in a folder, numbers that are missing, and the manifest, all of one moment.

    A shard that is being replaced is waited for.
    """
    until = time.monotonic() + PATIENCE_S
    before: Manifest | None = None
    while True:
        sidecars, tables = shard_numbers(folder)
        manifest = read_manifest(folder)
        there = sidecars & tables
        # a sidecar without its shard is missed even where an older version kept no manifest
        gone = sorted({*([] if manifest is None else manifest.missing(there)), *(sidecars - tables)})
        if manifest is None or (not gone and len(there) == manifest.shards) or time.monotonic() > until:
            return sorted(there), gone, manifest
        # one that has just come or gone stands in the one and not in the other: that is seen at a second look
        if manifest == before and (not gone or manifest.settled):
            return sorted(there), gone, manifest
        before = manifest
        if gone:
            time.sleep(_LOOK_S)


def named_shards(numbers: list[int]) -> str:
    """`part-000003, part-000007 and 12 more`."""
    names = [f"part-{number:06d}" for number in numbers[:_MOST_NAMED]]
    more = len(numbers) - len(names)
    return ", ".join(names) + (f" and {more:,} more" if more else "")


def missing_shards(label: str, folder: Path, gone: list[int], shards: int) -> AtlasError:
    """The error to raise where shards that should be there are not."""
    return AtlasError(
        f"Expected {shards:,} shards of {label}; found {shards - len(gone):,}: "
        f"{named_shards(gone)} missing in {folder}.",
        "Copy the atlas again, or run the command that makes this stage: it makes missing shards again. "
        "`specclip-search --allow-partial ...` answers from what is there; "
        "`specclip-search doctor --forget-missing` gives them up.",
    )


def missing_stage(label: str, folder: Path) -> AtlasError:
    """The error to raise where a whole stage that should be there is not."""
    return AtlasError(
        f"Expected {label} in {folder}, which atlas.toml names; found nothing there.",
        "Copy the atlas again, or run the command that makes this stage. "
        "`specclip-search --allow-partial ...` answers from what is there; "
        "`specclip-search doctor --forget-missing` gives it up.",
    )


def as_text(partial: Mapping[str, list[int]]) -> dict[str, Any]:
    """What an answer says of the shards that were missing for it."""
    return {label: named_shards(numbers) or "all shards" for label, numbers in sorted(partial.items())}


def read_marker(root: Path) -> dict[str, Any]:
    """What an atlas's `atlas.toml` says, without its own digest.

    Raises
    ------
    AtlasError
        If it is not valid TOML, or not what was written.
    """
    path = root / MARKER
    try:
        return dict(_parsed_marker(path, path.read_bytes()))
    except PermissionError as error:
        raise not_permitted(error) from error


@lru_cache(maxsize=16)
def _parsed_marker(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        content = tomllib.loads(raw.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AtlasError(
            f"{path} is not valid TOML ({error}).", "Restore it from a backup, or rebuild the atlas."
        ) from error
    check = content.pop(_CHECK, None)
    if check is not None and check != _digest_of(content):
        raise AtlasError(
            f"{path} is damaged: it does not say what was written.",
            "Restore it from a backup. If you changed it yourself, remove its line `check`.",
        )
    return content


def change_marker(root: Path, step: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Replace `atlas.toml` by what `step` makes of its content; nothing is written where that is the same."""
    import tomli_w
    from filelock import FileLock

    with FileLock(str(root / _MARKER_LOCK), timeout=_LOCK_S):
        before = read_marker(root) if (root / MARKER).exists() else {}
        after = step(before)
        if after != before:
            write_text(root / MARKER, tomli_w.dumps({_CHECK: _digest_of(after), **after}))


def _digest_of(content: dict[str, Any]) -> str:
    return text_digest(json.dumps(content, sort_keys=True, default=str))


def recorded_stages(root: Path) -> frozenset[str]:
    """Folders of the stages that an atlas has, relative to it; those of an older version may lack here."""
    stages = read_marker(root).get(_STAGES, [])
    return frozenset(name for name in stages if isinstance(name, str)) if isinstance(stages, list) else frozenset()


def record_stage(root: Path, folder: Path) -> None:
    """Record that an atlas has a stage in `folder`."""
    name = folder.relative_to(root).as_posix()
    if name in recorded_stages(root):
        return
    try:
        change_marker(root, lambda content: content | {_STAGES: sorted({*content.get(_STAGES, []), name})})
    except OSError as error:
        # the right to write a stage does not include that to write the atlas's own file
        if not is_refusal(error):
            raise


def forget_stages(root: Path, names: set[str]) -> None:
    """Give up stages: they are no longer missed."""
    change_marker(root, lambda content: content | {_STAGES: sorted(set(content.get(_STAGES, [])) - names)})
