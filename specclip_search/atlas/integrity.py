"""Are a file's bytes those that it was written with: checked when it is first used, and remembered.

Every shard's digest stands in its sidecar, and those of an index's files beside the index. A file is read whole for
its digest the first time that this machine uses it. After that its inode, size and times vouch for it, in memory and in
a small file in the user's cache folder (``XDG_CACHE_HOME``, by default ``~/.cache``), so that a query pays for a
`stat`. Whatever changes a file, copies it or restores it changes one of these, and it is read again.

DuckDB does not look at Parquet's own checksums; this is why a shard is checked before a view may read it.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from ..errors import AtlasError
from .files import file_digest, not_permitted, write_json

Stat = tuple[int, int, int, int, int]
DIGESTS = "files.json"
_READERS = 4
_FORMAT = "1"
_lock = threading.Lock()
# by folder, what vouches for its files: state of a file -> its digest
_known: dict[str, dict[str, str]] = {}
# files that this process has found intact: by path, what `stat` said of each, and its digest
_intact_files: dict[str, tuple[Stat, str]] = {}


def check_shards(files: Sequence[str | Path]) -> None:
    """Make sure that Parquet shards have the bytes that their sidecars say.

    Raises
    ------
    AtlasError
        If one has not; it is named.
    """
    unknown = [path for file in files if not _found_intact(path := os.fspath(file), None)]
    if unknown:
        _check([(path, None) for path in unknown])


def check_files(folder: Path, digests: Mapping[str, str]) -> None:
    """Make sure that files of a folder have the digests that are known for them.

    Raises
    ------
    AtlasError
        If one has not, or is not there; it is named.
    """
    root = os.fspath(folder)
    expected: list[tuple[str, str | None]] = [(os.path.join(root, name), digest) for name, digest in digests.items()]
    unknown = [one for one in expected if not _found_intact(*one)]
    if unknown:
        _check(unknown)


def check_folder(folder: Path, names: Collection[str] | None = None) -> None:
    """Make sure that files of a folder have the digests that its `files.json` says; all of them unless some are named.

    A folder without `files.json` is read as it is.

    Raises
    ------
    AtlasError
        If one has not, or is not there; it is named.
    """
    kept = _folder_digests(folder)
    if kept is not None:
        check_files(folder, {name: digest for name, digest in kept.items() if names is None or name in names})


def note_folder(folder: Path, digests: Mapping[str, str]) -> None:
    """Write the digests of a folder's files into its `files.json`."""
    write_json(folder / DIGESTS, dict(digests))


@contextmanager
def changing_files(folder: Path, names: Collection[str]) -> Iterator[None]:
    """Around the writing of files of a folder that may have a `files.json`: there they stand with new digests after it.

    While they are written they do not stand there, so that a run that is killed leaves nothing that looks damaged.
    """
    kept = _folder_digests(folder)
    if kept is None:
        yield
        return
    others = {name: digest for name, digest in kept.items() if name not in names}
    note_folder(folder, others)
    yield
    note_folder(folder, others | {name: file_digest(folder / name) for name in names if (folder / name).exists()})


def _folder_digests(folder: Path) -> dict[str, str] | None:
    path = folder / DIGESTS
    try:
        kept = json.loads(path.read_bytes())
        if not isinstance(kept, dict) or not all(isinstance(digest, str) for digest in kept.values()):
            raise ValueError("not names and digests")
        if any(os.path.basename(name) != name for name in kept):
            raise ValueError("names that lead out of the folder")
        return kept
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise not_permitted(error) from error
    except (OSError, ValueError) as error:
        todo = "Copy this folder again from where it came from."
        raise AtlasError(f"{path} cannot be read ({error}).", todo) from error


def note_intact(path: Path, digest: str) -> None:
    """Remember the digest of a file that was written just now."""
    with _lock:
        _keep(os.path.dirname(os.path.abspath(path)), {_state(path.name, _stat(path)): digest})


def _found_intact(path: str, digest: str | None) -> bool:
    """Whether a file is as it was when this process found it intact; a `stat` tells."""
    kept = _intact_files.get(path)
    if kept is None or (digest is not None and digest != kept[1]):
        return False
    try:
        return _stat(path) == kept[0]
    except OSError:
        return False


def _stat(path: str | Path) -> Stat:
    """What changes when a file's content may have: its times tell of writing in place, too."""
    stat = os.stat(path)
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _state(name: str, stat: Stat) -> str:
    dev, ino, size, changed, inode_changed = stat
    return f"{name}:{dev}:{ino}:{size}:{changed}:{inode_changed}"


def _check(files: list[tuple[str, str | None]]) -> None:
    unknown: list[tuple[str, str, str]] = []
    with _lock:
        for path, expected in files:
            folder, name = os.path.split(path)
            known = _of_folder(folder)
            try:
                stat = _stat(path)
            except FileNotFoundError as error:
                raise AtlasError(f"Expected a file at {path}; found none.", _TODO) from error
            state = _state(name, stat)
            found = known.get(state)
            if found is None or (expected is not None and found != expected):
                unknown.append((path, state, expected or ""))
            else:
                _intact_files[path] = (stat, found)
    if not unknown:
        return
    if len(unknown) == 1:
        digests = [_intact(unknown[0][0], unknown[0][2])]
    else:
        with ThreadPoolExecutor(min(_READERS, len(unknown))) as readers:
            digests = list(readers.map(lambda one: _intact(one[0], one[2]), unknown))
    new: dict[str, dict[str, str]] = {}
    for (path, state, _), digest in zip(unknown, digests, strict=True):
        folder, name = os.path.split(path)
        stat = _stat(path)
        # a file that changed while it was read vouches for nothing
        if _state(name, stat) == state:
            new.setdefault(folder, {})[state] = digest
            _intact_files[path] = (stat, digest)
    with _lock:
        for folder, states in new.items():
            _keep(folder, states)


_TODO = (
    "Copy it again from where the atlas came from, or remove it with its .json and run the command that makes this "
    "stage; `specclip-search doctor --deep` names all damaged files."
)


def _intact(name: str, expected: str) -> str:
    """The digest of a file; an AtlasError where it is not the one expected."""
    path = Path(name)
    wanted = expected or _from_sidecar(path)
    try:
        found = file_digest(path)
    except PermissionError as error:
        raise not_permitted(error) from error
    if found == wanted:
        return found
    if not expected:
        # it may have been replaced since its sidecar was read
        wanted, found = _from_sidecar(path), file_digest(path)
        if found == wanted:
            return found
    raise AtlasError(f"{path} is damaged: expected {wanted[:19]}..., found {found[:19]}....", _TODO)


def _from_sidecar(path: Path) -> str:
    sidecar = path.with_suffix(".json")
    try:
        return str(json.loads(sidecar.read_bytes())["digest"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AtlasError(f"{sidecar} is not a readable shard sidecar ({error}).", _TODO) from error


def _of_folder(folder: str) -> dict[str, str]:
    """What is known of a folder's files, from this user's earlier processes too."""
    known = _known.get(folder)
    if known is None:
        known = _known[folder] = {}
        try:
            with open(_cache_file(folder), encoding="utf-8", newline="\n") as lines:
                for line in lines:
                    state, _, digest = line.rstrip("\n").rpartition(" ")
                    known[state] = digest
        except (OSError, ValueError):
            known.clear()
    return known


def _keep(folder: str, states: Mapping[str, str]) -> None:
    known = _of_folder(folder)
    lines = "".join(f"{state} {digest}\n" for state, digest in states.items() if known.get(state) != digest)
    known.update(states)
    if not lines or any("\n" in state for state in states):
        return
    path = _cache_file(folder)
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        # one short write at the end: lines of two processes do not mix, and a torn one vouches for nothing
        with open(path, "ab", buffering=0) as handle:
            handle.write(lines.encode("utf-8"))
    except (OSError, UnicodeEncodeError):
        # without a cache folder files are read again by the next process
        return


def _cache_file(folder: str) -> str:
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    here = os.path.abspath(folder)
    name = hashlib.sha256(f"{_FORMAT}:{here}".encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return os.path.join(root, "specclip-search", "verified", name)


def forget(folders: Iterable[str | Path] = ()) -> None:
    """Forget what is known of files, in memory and in the cache folder; of all folders in memory without any named."""
    with _lock:
        _intact_files.clear()
        if not folders:
            _known.clear()
        for folder in map(str, folders):
            _known.pop(folder, None)
            Path(_cache_file(folder)).unlink(missing_ok=True)
