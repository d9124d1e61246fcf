"""Ingest of LAMOST low-resolution spectra and Gaia XP mean spectra into the atlas."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SpecclipError, SpectrumError
from ..opening.archives import ZIP_MAGIC, zip_members
from ..opening.regular import shown_path
from ..progress import Progress
from ..readers.containers.archive_member import is_archive, members_to_open
from ..readers.content import Content, look, read_start
from ..readers.gaia_bases import DEFAULT_RELEASE, release_named, release_of
from ..readers.gaia_xp import iter_xp, to_spectra
from ..readers.lamost import observe_lamost
from ..readers.registry import ReadOptions
from ..readers.survey_rows import Waiting
from ..readers.surveys import mmu
from ..spectrum import Spectrum
from ..stages.accounts import IngestReport
from ..surveys import GAIA_XP, LAMOST_LRS
from .files import FITS_SUFFIXES, XP_SUFFIXES, FoundFile, at_least_one, find_files
from .pipeline import Ingest
from .plan import Grouping, Plan
from .worker import Refused

if TYPE_CHECKING:
    from ..atlas import Atlas

SHARD_SIZE = 2048


def ingest_lamost(atlas: Atlas, paths: Sequence[str | os.PathLike[str]], *, release: str | None = None,
                  workers: int | None = None, shard_size: int = SHARD_SIZE, progress: Progress | None = None,
                  observed: bool | None = None) -> IngestReport:
    """Read LAMOST LRS files into `spectra/lamost_lrs`; unusable spectra are rejected with a reason.

    A second run makes only what is missing: new files become new shards, the shard of a changed file is
    rebuilt, all other shards are kept. Of two files with the same release and obsid the first in order is
    kept. A run that is killed and resumed gives the same bytes.

    Parameters
    ----------
    atlas
        Target atlas.
    paths
        Files, folders (searched recursively for FITS files), or ``@LIST``.
    release
        Data release of files whose header does not give it.
    workers
        Number of processes; None: one per core (a few hundred files are read in this process).
    shard_size
        Spectra per shard.
    progress
        Called with (spectra done, spectra in all, note).
    observed
        Whether spectra are kept as observed, too, in `observed/<modality>`: None, with the shards that this run makes;
        True, those of up-to-date shards are added from their files; False, not.

    Returns
    -------
    IngestReport
        Counts of everything ingested so far by this function: read = kept + the sum of rejected.

    Raises
    ------
    SpecclipError
        If a path does not exist, or a folder holds no FITS file.
    """
    def plan(folder: Path) -> Plan:
        made = Plan(folder)
        made.update(at_least_one(find_files(paths, FITS_SUFFIXES)), by_count(shard_size), release)
        return made

    return run_ingest(atlas, LAMOST_LRS.name, plan, read_lamost_file, workers, progress, observed=observed)


def run_ingest(atlas: Atlas, modality: str, make_plan: Callable[[Path], Plan],
               reading: Callable[[str, str | None], Iterator[Spectrum | Refused]], workers: int | None,
               progress: Progress | None, settings: str = "", observed: bool | None = None) -> IngestReport:
    """Plan and run an ingest under the stage's lock; other `settings` make every part again."""
    stage = atlas.spectra(modality)
    with stage.lock():
        plan = make_plan(stage.folder)
        return Ingest(atlas, modality, plan, reading, workers, progress, settings, observed).run()


def by_count(size: int) -> Grouping:
    """Groups of `size` files.

    Raises
    ------
    SpecclipError
        If `size` is smaller than 1.
    """
    if size < 1:
        raise SpecclipError(f"A shard needs at least 1 spectrum; found {size}.", "Omit --shard-size for the default.")

    def group(files: Iterable[FoundFile]) -> Iterator[list[FoundFile]]:
        left = iter(files)
        while chunk := list(islice(left, size)):
            yield chunk

    return group


def read_lamost_file(path: str, release: str | None) -> Iterator[Spectrum | Refused]:
    """The one spectrum of a LAMOST file, in the file's own precision, or the rows of the Multimodal Universe's."""
    if path.endswith(".parquet"):
        yield from mmu.read_mmu(look(path), ReadOptions(release=release, modality=LAMOST_LRS.name))
        return
    spectrum = observe_lamost(Path(path), release)
    spectrum.meta["source"] = shown_path(path)
    yield spectrum


# lower limit of bytes per XP spectrum in any format: bounds the number in a file before it is opened
BYTES_A_ROW = 2048


def ingest_gaia_xp(atlas: Atlas, paths: Sequence[str | os.PathLike[str]], *, release: str | None = None,
                   workers: int | None = None, shard_size: int = SHARD_SIZE, progress: Progress | None = None,
                   observed: bool | None = None) -> IngestReport:
    """Read Gaia XP mean spectra into `spectra/gaia_xp`: sampled ones, or continuous ones, calibrated.

    Each bulk file of the archive becomes one shard; small files are combined up to `shard_size` spectra.
    Otherwise as `ingest_lamost`; rows without BP or RP are rejected. Solutions whose bases are not installed wait
    in the atlas for `specclip_search.ingest.recalibrate`: read = kept + waiting + rejected.

    Parameters
    ----------
    atlas, paths, workers, progress, observed
        As in `ingest_lamost`; folders are searched for CSV, ECSV, FITS, VOTable, Avro and Parquet files.
    release
        Data release; by default the one that the file's name or the solutions' bases give.
    shard_size
        Spectra per shard, for files that hold fewer.

    Raises
    ------
    SpecclipError
        If a path does not exist, or a folder holds no such file.
    """
    def plan(folder: Path) -> Plan:
        made = Plan(folder)
        made.update(at_least_one(find_files(paths, XP_SUFFIXES)), by_size(shard_size), release)
        return made

    return run_ingest(atlas, GAIA_XP.name, plan, read_xp_file, workers, progress, observed=observed)


def by_size(shard_size: int, bytes_a_row: int = BYTES_A_ROW) -> Grouping:
    """Groups of files that together can hold `shard_size` spectra of `bytes_a_row` or more each."""
    if shard_size < 1:
        raise SpecclipError(f"A shard needs at least 1 spectrum; found {shard_size}.",
                            "Omit --shard-size for the default.")

    def group(files: Iterable[FoundFile]) -> Iterator[list[FoundFile]]:
        waiting: list[FoundFile] = []
        rows = 0
        for file in files:
            waiting.append(file)
            rows += max(1, file.size // bytes_a_row)
            if rows >= shard_size:
                yield waiting
                waiting, rows = [], 0
        if waiting:
            yield waiting

    return group


def read_xp_file(path: str, release: str | None) -> Iterator[Spectrum | Refused]:
    """Spectra of one XP file, row by row, and the rows that cannot be used."""
    for name, content in xp_contents(path):
        if isinstance(content, SpectrumError):
            yield Refused(name, None, release, content.reason, content.message)
        elif name == path:
            yield from _rows_of_xp(content, release, path)
        else:
            try:
                yield from _rows_of_xp(content, release, name)
            except SpectrumError as error:  # the other members are read all the same
                yield Refused(name, None, release, error.reason, error.message.replace(str(content.path), name))


def xp_contents(path: str) -> Iterator[tuple[str, Content | SpectrumError]]:
    """The file, or each member of an archive, with its name as it is shown; for a member why it is none of ours.

    Raises
    ------
    SpectrumError
        If the file itself cannot be read.
    """
    if read_start(Path(path), 4) == ZIP_MAGIC:
        for name, file in zip_members(path):
            member = f"{path}!{name}"
            if isinstance(file, SpectrumError):
                yield member, file
                continue
            try:
                yield member, look(file)
            except SpectrumError as error:  # the other members are read all the same
                yield member, SpectrumError(error.reason, error.message.replace(str(file), member), error.hint)
    elif is_archive(path):
        for member, opened in members_to_open(path):
            try:
                yield member, opened()
            except SpectrumError as error:
                yield member, error
    else:
        yield path, look(path)


def _rows_of_xp(content: Content, release: str | None, source: str) -> Iterator[Spectrum | Refused]:
    said = (release_of(release) or release) if release else None
    for batch in iter_xp(content, said):
        yield from to_spectra(batch, said or release_named(source.rpartition("/")[2]), shown_path(source))
        for row, spec_id, reason, message in batch.rejected:
            row_source = f"{source}#{row}"
            if row in batch.waiting:
                kept = batch.waiting[row]
                yield Waiting(row_source, spec_id, said or kept["release"], reason, message, kept)
            else:
                yield Refused(row_source, spec_id, said or DEFAULT_RELEASE, reason, message)
