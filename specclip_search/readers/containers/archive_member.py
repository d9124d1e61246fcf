"""A file inside a zip or tar archive as `Content`: named ``archive.zip!member``, opened without unpacking."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ...errors import Reason, SpectrumError
from ...opening.archives import check_member
from ...opening.guard import reading
from ...opening.regular import MIB, HeldBytes, inflated_limit, inflates_too_far, shown_path
from ..content import HEAD_BYTES, Content, kind_of, look, read_start

#: a member larger than this when unpacked is refused; untrusted archives may unpack to anything
MAX_MEMBER_BYTES = 4 << 30
MAX_MEMBERS = 1_000_000
_TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_SKIPPED = ("__MACOSX/", ".")


@dataclass(frozen=True, slots=True)
class Member(Content):
    """A member of an archive; `path` is ``archive!member``."""

    data: bytes = b""

    @property
    def file(self) -> HeldBytes:
        """The member's decompressed bytes, which the readers open as they open a file."""
        return HeldBytes(str(self.path), self.data)


def is_archive(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a zip or tar archive, by its first bytes, or its name for a tar."""
    file = Path(path)
    if not file.is_file():
        return False
    return read_start(file, 4)[:4] in (b"PK\x03\x04", b"PK\x05\x06") or file.name.lower().endswith(_TAR_ENDINGS)


def split_member(path: str | os.PathLike[str]) -> tuple[Path, str | None]:
    """``archive.zip!member`` as its two parts; the member is None for a plain path or a path that exists as it is."""
    text = os.fspath(path)
    archive, mark, member = text.partition("!")
    if not mark or os.path.lexists(text):
        return Path(text), None
    return Path(archive), member


def names_a_file(text: str | os.PathLike[str]) -> bool:
    """Whether a text names a file that exists: plain, with ``#row`` after it, or ``archive!member``."""
    path = os.fspath(text)
    if not os.path.lexists(path):
        bare, mark, digits = path.rpartition("#")
        path = bare if mark and digits.isdigit() else path
    file, _ = split_member(path)
    return os.path.exists(file)


def member_names(archive: str | os.PathLike[str]) -> list[str]:
    """Names of an archive's files in its order.

    Raises
    ------
    SpectrumError
        `unreadable`, if it is damaged or holds more than a million members.
    """
    with reading(archive, "an archive"):
        if _is_zip(Path(archive)):
            with zipfile.ZipFile(archive) as opened:
                names = [info.filename for info in opened.infolist() if not info.is_dir()]
        else:
            with tarfile.open(archive) as opened_tar:
                names = [info.name for info in _tar_infos(opened_tar, Path(archive))]
    if len(names) > MAX_MEMBERS:
        raise SpectrumError(
            Reason.UNREADABLE,
            f"{archive} holds {len(names):,} files; at most {MAX_MEMBERS:,} are read.",
            "Unpack it and ingest the folder.",
        )
    return [name for name in names if not name.rpartition("/")[2].startswith(".") and not name.startswith(_SKIPPED)]


def iter_members(archive: str | os.PathLike[str]) -> Iterator[Content]:
    """Every file of an archive as `Content`, in its order; the first that cannot be opened is an error."""
    return (opened() for _, opened in members_to_open(archive))


def members_to_open(archive: str | os.PathLike[str]) -> Iterator[tuple[str, Callable[[], Content]]]:
    """Every file of an archive, in its order: ``archive!member``, and a function that opens it.

    A member that cannot be opened is an error of that function alone; the others can be opened all the same.
    """
    file = Path(archive)
    names = member_names(file)
    with _opened(file) as read:
        for name in names:
            named = f"{file}!{name}"
            yield named, partial(_opened_member, named, read, name)


def _opened_member(named: str, read: Callable[[str], bytes], name: str) -> Content:
    with reading(named, "a file in an archive"):
        return _content(Path(named), read(name))


def look_inside(path: str | os.PathLike[str]) -> Content:
    """`look` for a plain path, ``archive!member``, or an archive of one file.

    Raises
    ------
    SpectrumError
        As `look`; also where the archive has no such member, or the member is too large, or an archive of
        several files is named without one of them.
    """
    file, member = split_member(path)
    if member is None:
        if not file.name.lower().endswith((".zip", *_TAR_ENDINGS)) or not is_archive(file):
            return look(path)
        names = member_names(file)
        if len(names) != 1:
            shown = f"{file}!{names[0]}" if names else "another file"
            raise SpectrumError(
                Reason.LAYOUT_UNKNOWN,
                f"{file} is an archive of {len(names)} files; one spectrum file was expected.",
                f"Name one of them: '{shown}'.",
            )
        member = names[0]
    with _opened(file) as read:
        return _content(Path(f"{file}!{member}"), read(member))


def _content(named: Path, data: bytes) -> Content:
    if not data:
        raise SpectrumError(Reason.UNREADABLE, f"{named} is empty (0 bytes).", "Download it again.")
    if data[:2] == b"\x1f\x8b":
        data = _gunzip(named, data)
    return Member(named, kind_of(named, data[:HEAD_BYTES]), data[:HEAD_BYTES], False, data)


@contextmanager
def _opened(archive: Path) -> Iterator[Callable[[str], bytes]]:
    """A function from a member's name to its bytes, while the archive is open."""
    if not archive.is_file():
        raise SpectrumError(Reason.UNREADABLE, f"{archive} does not exist.", "Check the path before the '!'.")
    with reading(archive, "an archive"):
        if _is_zip(archive):
            with zipfile.ZipFile(archive) as opened:
                yield lambda name: _from_zip(opened, archive, name)
        else:
            with tarfile.open(archive) as opened_tar:
                yield lambda name: _from_tar(opened_tar, archive, name)


def _from_zip(opened: zipfile.ZipFile, archive: Path, member: str) -> bytes:
    try:
        info = opened.getinfo(member)
    except KeyError:
        raise _no_member(archive, member) from None
    check_member(info, shown_path(archive))
    limit = _limit(archive)
    _check_size(archive, member, info.file_size, limit)
    with opened.open(info) as stream:  # the size in the directory may lie: read no more than the limit
        data = stream.read(limit + 1)
    _check_size(archive, member, len(data), limit)
    return data


def _from_tar(opened: tarfile.TarFile, archive: Path, member: str) -> bytes:
    header = next((info for info in _tar_infos(opened, archive) if info.name == member), None)
    if header is None:
        raise _no_member(archive, member)
    stream = opened.extractfile(header)
    return stream.read() if stream is not None else b""


def _tar_infos(opened: tarfile.TarFile, archive: Path) -> Iterator[tarfile.TarInfo]:
    """Plain files of a tar archive; the walk ends before more is inflated than the archive can honestly hold."""
    limit, size = _limit(archive), 0
    for info in opened:
        size += info.size
        _check_size(archive, info.name, size, limit)
        if info.isfile():
            yield info


def _limit(archive: Path) -> int:
    return min(inflated_limit(archive.stat().st_size), MAX_MEMBER_BYTES)


def _gunzip(named: Path, data: bytes) -> bytes:
    import gzip
    import zlib

    limit = inflated_limit(len(data))
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
            unpacked = stream.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise SpectrumError(
            Reason.UNREADABLE, f"{named} is gzip-compressed but damaged or cut short ({error}).", "Download it again."
        ) from None
    if len(unpacked) > limit:
        raise inflates_too_far(named, limit)
    return unpacked


def _is_zip(archive: Path) -> bool:
    return read_start(archive, 2) == b"PK"


def _check_size(archive: Path, member: str, size: int, limit: int) -> None:
    if size > limit:
        raise SpectrumError(
            Reason.UNREADABLE,
            f"{archive}!{member} unpacks to more than {limit / MIB:,.0f} MiB; no archive of its size honestly does.",
            "Unpack it yourself and give the file.",
        )


def _no_member(archive: Path, member: str) -> SpectrumError:
    import difflib

    names = member_names(archive)
    near = difflib.get_close_matches(member, names, n=1, cutoff=0.0)
    return SpectrumError(
        Reason.UNREADABLE,
        f"{archive} has no file '{member}' ({len(names)} others).",
        f"Name one that it has: '{archive}!{near[0]}'." if near else "It is empty.",
    )
