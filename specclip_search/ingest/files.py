"""Input files from the paths a user gives: folders are searched recursively, lists are read, in a fixed order."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..errors import SpecclipError
from ..opening.regular import open_regular
from ..opening.text_tables import text_encoding

MAX_LIST_BYTES = 4 << 30

FITS_SUFFIXES = (".fits", ".fit", ".fits.gz", ".fit.gz", ".fits.fz")
XP_SUFFIXES = (
    ".csv", ".csv.gz", ".ecsv", ".ecsv.gz", ".fits", ".fits.gz", ".xml", ".xml.gz", ".vot", ".vot.gz", ".votable",
    ".avro", ".parquet", ".zip", ".tar", ".tar.gz", ".tgz",
)
# a HATS catalogue keeps metadata files next to its data, in formats that spectra use too
_HATS_MARKS = {"hats.properties", "properties", "catalog_info.json"}
_HATS_BOOKS = {"partition_info.csv", "catalog_info.csv", "point_map.fits", "skymap.fits", "data_thumbnail.parquet"}


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file and the properties by which a change is detected.

    Attributes
    ----------
    path
        Absolute path.
    size, mtime_ns
        Bytes, and time of last change in nanoseconds; -1 if the system does not report them.
    readable
        Whether the file can be read; a file that becomes readable counts as changed.
    """

    path: str
    size: int
    mtime_ns: int
    readable: bool


def find_files(paths: Sequence[str | os.PathLike[str]], suffixes: tuple[str, ...]) -> Iterator[FoundFile]:
    """Files in the order of `paths`, those of each folder in the order of their names.

    Parameters
    ----------
    paths
        Files with any name; folders, searched recursively for `suffixes`; ``@LIST``, a text file
        with one path per line, relative to the list's folder.

    Raises
    ------
    SpecclipError
        If a path does not exist, or a folder holds no such file.
    """
    for path in expand_lists(paths):
        text = os.path.abspath(path)
        if os.path.isdir(text):
            count = 0
            for found in _walk(text, suffixes, set()):
                count += 1
                yield found
            if not count:
                raise SpecclipError(
                    f"No spectrum files below {path}: looked for names ending in {', '.join(suffixes)}.",
                    "Name the folder that holds them, or the files themselves.")
        elif not os.path.lexists(text):
            raise SpecclipError(f"{path} does not exist; expected a file or a folder of spectra.",
                                "Check the path; a list of files is given as @LIST.")
        else:
            yield _stamp(text)


def expand_lists(paths: Sequence[str | os.PathLike[str]]) -> Iterator[str]:
    """`paths` with each ``@LIST`` replaced by the paths it holds; empty lines and ``#`` lines are skipped."""
    for path in paths:
        text = os.fspath(path)
        if not text.startswith("@") or os.path.lexists(text):
            yield text
            continue
        lines = _lines(text[1:])
        folder = os.path.dirname(os.path.abspath(text[1:]))
        entries = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        if not entries:
            raise SpecclipError(f"The list {text[1:]} contains no path.", "Write one path per line into it.")
        yield from (os.path.join(folder, entry) for entry in entries)


def _lines(path: str) -> list[str]:
    """Lines of a list of paths, which are bytes: a name that is not UTF-8 stands in it as in its folder."""
    try:
        with open_regular(path) as handle:
            content = handle.read(MAX_LIST_BYTES + 1)
    except SpecclipError as error:
        raise SpecclipError(f"The list {path} cannot be read: {error.message}",
                            "Give a text file with one path a line.") from None
    if len(content) > MAX_LIST_BYTES or b"\0" in content.removeprefix(b"\xff\xfe")[:200:2]:
        raise SpecclipError(f"The list {path} cannot be read: it is no text, or larger than 4 GiB.",
                            "Give a text file with one path a line.")
    if text_encoding(content[:4]) == "utf-16":
        return content.decode("utf-16", "replace").splitlines()
    return os.fsdecode(content.removeprefix(b"\xef\xbb\xbf")).splitlines()


def _walk(folder: str, suffixes: tuple[str, ...], visited: set[tuple[int, int]]) -> Iterator[FoundFile]:
    """Files of a folder and its sub-folders by name; a folder named like a spectrum is listed too."""
    try:
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in visited:
            return  # a symbolic link to a parent folder
        visited.add((status.st_dev, status.st_ino))
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        yield FoundFile(folder, -1, -1, False)
        return
    if _HATS_MARKS & {entry.name for entry in entries}:
        entries = [entry for entry in entries if entry.name not in _HATS_BOOKS]
    for entry in entries:
        named = entry.name.lower().endswith(suffixes) and not entry.name.startswith(".")
        if entry.is_dir():
            if named:
                yield FoundFile(entry.path, -1, -1, True)
            yield from _walk(entry.path, suffixes, visited)
        elif named:
            yield _stamp(entry.path)


def _stamp(path: str) -> FoundFile:
    try:
        status = os.stat(path)
    except OSError:
        return FoundFile(path, -1, -1, False)
    return FoundFile(path, status.st_size, status.st_mtime_ns, os.access(path, os.R_OK))


_BYTES = "bytes:"


def stored_path(path: str) -> str:
    """A path as UTF-8 text, to be kept in a file; `real_path` gives the path again."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return _BYTES + os.fsencode(path).hex()
    return path


def real_path(text: str) -> str:
    """The path that `stored_path` made `text` of; paths are absolute, so none begins like its mark."""
    return os.fsdecode(bytes.fromhex(text.removeprefix(_BYTES))) if text.startswith(_BYTES) else text


def at_least_one(found: Iterable[FoundFile]) -> Iterator[FoundFile]:
    """The same files; raises an error if there are none."""
    empty = True
    for file in found:
        empty = False
        yield file
    if empty:
        raise SpecclipError("No file was given.", "Give files, folders, or @LIST.")
