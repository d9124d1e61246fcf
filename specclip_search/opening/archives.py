"""Zip archives of small files, such as Gaia's DataLink sends: members that are plain files, bounded, one at a time."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ..errors import Reason, SpectrumError
from .guard import reading
from .regular import MIB, PathLike, inflated_limit, open_regular, shown_path

ZIP_MAGIC = b"PK\x03\x04"
MAX_MEMBERS = 100_000


def zip_members(path: PathLike) -> Iterator[tuple[str, Path | SpectrumError]]:
    """Members of a zip archive, one after another, each in a temporary file that keeps its name.

    Folders are passed over. The temporary file is removed before the next member.

    Yields
    ------
    tuple
        Name inside the archive, and where its content lies now; or why this member cannot be opened, as where it is
        damaged, encrypted or a link.

    Raises
    ------
    SpectrumError
        `unreadable`, if the archive is damaged, or its members are too large together.
    """
    where = shown_path(path)
    with reading(path, "a zip archive"), open_regular(path) as handle, zipfile.ZipFile(handle) as archive:
        limit = inflated_limit(os.fstat(handle.fileno()).st_size)
        infos = [info for info in archive.infolist() if not info.is_dir()]
        if len(infos) > MAX_MEMBERS:
            raise SpectrumError(Reason.UNREADABLE, f"{where} has {len(infos):,} members; {MAX_MEMBERS:,} are read.",
                                f"Unpack it first: unzip '{where}'.")
        read = 0
        for info in infos:
            with tempfile.TemporaryDirectory(prefix="specclip-zip-") as folder:
                # the base name alone: a member called ../../x must not leave the folder
                target = Path(folder) / (Path(info.filename.replace("\\", "/")).name or "member")
                result: Path | SpectrumError = target
                try:
                    check_member(info, where)
                    with (reading(f"{where}!{info.filename}", "a file in an archive"), archive.open(info) as source,
                          open(target, "wb") as sink):
                        try:
                            shutil.copyfileobj(_Counted(source, limit - read, where), sink, MIB)
                        finally:
                            read += sink.tell()
                except TooMuch:
                    raise
                except SpectrumError as error:
                    result = error
                yield info.filename, result


class TooMuch(SpectrumError):
    """An archive holds more than one of its size can."""


class _Counted:
    """A stream that ends in an error beyond its limit, whatever the archive says of the member's size."""

    def __init__(self, source: IO[bytes], left: int, where: str) -> None:
        self._source, self._left, self._where = source, left, where

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise TooMuch(Reason.UNREADABLE, f"{self._where} inflates to more than its size can honestly hold.",
                                f"If the content is meant, unpack it first: unzip '{self._where}'.")
        return data


def check_member(info: zipfile.ZipInfo, where: str) -> None:
    """Refuse a member that is a link, a device or encrypted.

    Raises
    ------
    SpectrumError
        `unreadable`; `where` is the archive's name in the message.
    """
    mode = info.external_attr >> 16
    if mode and stat.S_IFMT(mode) and not stat.S_ISREG(mode):
        raise SpectrumError(Reason.UNREADABLE, f"{where}: its member '{info.filename}' is a link or a device, no file.",
                            "Get an archive of plain files.")
    if info.flag_bits & 1:
        raise SpectrumError(Reason.UNREADABLE, f"{where}: its member '{info.filename}' is encrypted.",
                            f"Unpack it first: unzip '{where}'.")
