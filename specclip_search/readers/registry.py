"""Registry of readers, and reading spectra from a file of any supported format."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ..errors import Reason, SpectrumError
from ..spectrum import Spectrum
from .containers.archive_member import look_inside
from .content import Content, decoding
from .survey_rows import Refused


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Information that a user may give about a file that lacks it.

    Attributes
    ----------
    release
        Data release.
    modality
        Name of the modality to assume for a spectrum without instrument.
    medium
        ``vacuum`` or ``air`` wavelengths.
    unit
        Wavelength unit, for example ``Angstrom``, ``nm``, ``um``.
    epochs
        Whether single visits and exposures are wanted after the combined spectrum.
    """

    release: str | None = None
    modality: str | None = None
    medium: str | None = None
    unit: str | None = None
    epochs: bool = False


@dataclass(frozen=True, slots=True)
class Reader:
    """One format: its name, a test whether a file has it, and a function that reads the spectra."""

    name: str
    title: str
    recognises: Callable[[Content], bool]
    read: Callable[[Content, ReadOptions], Iterator[Spectrum | Refused]]


READERS: list[Reader] = []


def register(reader: Reader, *, first: bool = False) -> None:
    """Register a format; a file is read by the first registered reader that recognises it.

    Raises
    ------
    ValueError
        If the name is already registered.
    """
    if any(known.name == reader.name for known in READERS):
        raise ValueError(f"a reader named '{reader.name}' is registered already")
    READERS.insert(0 if first else len(READERS), reader)


def reader_for(content: Content) -> Reader:
    """The reader of a file.

    Raises
    ------
    SpectrumError
        `layout_unknown`, if none recognises it; the message lists the known formats.
    """
    for reader in READERS:
        if reader.recognises(content):
            return reader
    raise SpectrumError(
        Reason.LAYOUT_UNKNOWN, f"{content.path} ({content.kind.upper()}) is in no supported layout.",
        f"Supported: {'; '.join(reader.title for reader in READERS)}.")


def iter_spectra(path: str | os.PathLike[str], options: ReadOptions | None = None) -> Iterator[Spectrum]:
    """All spectra of a file, in file order.

    Raises
    ------
    SpectrumError
        If the file or one of its rows cannot be used.
    """
    for found in iter_rows(path, options):
        yield _usable(found)


def iter_rows(path: str | os.PathLike[str], options: ReadOptions | None = None) -> Iterator[Spectrum | Refused]:
    """All rows of a file, in its order: spectra, and what is refused with its reason."""
    content = look_inside(path)
    with decoding(content):
        yield from reader_for(content).read(content, options or ReadOptions())


def _usable(found: Spectrum | Refused) -> Spectrum:
    if isinstance(found, Refused):
        raise SpectrumError(found.reason, f"{found.source}: {found.message}.", "Name another row, or another file.")
    return found


def read_spectrum(path: str | os.PathLike[str], *, release: str | None = None, modality: str | None = None,
                  medium: str | None = None, unit: str | None = None) -> Spectrum:
    """Read one spectrum from a file of any supported format; the format is identified from the content.

    Parameters
    ----------
    path
        A spectrum file. In a file with several spectra ``file#3`` is row 3 (from 0); without it the first
        is returned, with a warning.
    release
        Data release to record if the file does not give it.
    modality, medium, unit
        Information that the file lacks: ``lamost_lrs`` or ``gaia_xp``; ``air`` or ``vacuum``; the wavelength unit.

    Returns
    -------
    Spectrum
        The observed spectrum, neither normalised nor resampled; vacuum wavelengths in the modality's unit.

    Raises
    ------
    SpectrumError
        With the reason why it cannot be read.
    """
    file, row = split_row(path)
    rows = iter_rows(file, ReadOptions(release, modality, medium, unit))
    if row is not None:
        found = next(islice(rows, row, None), None)
        if found is None:
            raise SpectrumError(Reason.UNREADABLE, f"{file} has no spectrum in row {row}.", "Rows count from 0.")
        return _usable(found)
    refused: list[Refused] = []
    for number, one in enumerate(rows):
        if isinstance(one, Refused):
            refused.append(one)
            continue
        if next(rows, None) is not None:
            which = "the first" if number == 0 else f"row {number}"
            warnings.warn(f"{file} holds more than one spectrum; {which} is used. Select another with "
                          f"'{file}#{number + 1}'.", UserWarning, stacklevel=2)
        return one
    if refused:
        return _usable(refused[0])
    raise SpectrumError(Reason.UNREADABLE, f"{file} has no spectrum in row 0.", "Rows count from 0.")


def split_row(path: str | os.PathLike[str]) -> tuple[Path, int | None]:
    """``file#3`` as file and row; a file whose own name is such stays whole."""
    text = os.fspath(path)
    file, mark, digits = text.rpartition("#")
    if mark and digits.isdigit() and not Path(text).exists():
        return Path(file), int(digits)
    return Path(text), None
