"""Gaia XP mean spectra into the atlas."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SpecclipError
from ..readers.content import look
from ..readers.gaia_xp import DEFAULT_RELEASE, iter_xp, to_spectra
from ..spectrum import Spectrum
from ..stages.accounts import IngestReport
from ..surveys.modality import GAIA_XP
from .files import XP_SUFFIXES, FoundFile, at_least_one, find_files
from .pipeline import Progress
from .plan import Grouping, Plan
from .spectra import SHARD_SIZE, run_ingest
from .worker import Refused

if TYPE_CHECKING:
    from ..atlas import Atlas

# no form of an XP spectrum takes less: a bound on how many a file can hold before it is opened
BYTES_A_ROW = 2048


def ingest_gaia_xp(atlas: Atlas, paths: Sequence[str | os.PathLike[str]], *, release: str | None = None,
                   workers: int | None = None, shard_size: int = SHARD_SIZE, progress: Progress | None = None,
                   ) -> IngestReport:
    """Read Gaia XP mean spectra into `spectra/gaia_xp`: sampled ones, or continuous ones, calibrated.

    A bulk file of the archive makes a shard of its own; small files are put together up to `shard_size`.
    Otherwise as `ingest_lamost`; a row without BP or RP is set aside.

    Parameters
    ----------
    atlas, paths, workers, progress
        As in `ingest_lamost`; folders are searched for CSV, ECSV, FITS, VOTable, Avro and Parquet files.
    release
        Data release; ``dr3`` where it is not given.
    shard_size
        Spectra a shard, for files that hold fewer.

    Raises
    ------
    SpecclipError
        If a path does not exist, or a folder holds no such file.
    """
    def plan(folder: Path) -> Plan:
        made = Plan(folder)
        made.update(at_least_one(find_files(paths, XP_SUFFIXES)), by_size(shard_size), release)
        return made

    return run_ingest(atlas, GAIA_XP.name, plan, read_xp_file, workers, progress)


def by_size(shard_size: int) -> Grouping:
    """Groups of files that together can hold `shard_size` spectra, judged by their bytes."""
    if shard_size < 1:
        raise SpecclipError(f"A shard needs at least 1 spectrum; found {shard_size}.",
                            "Leave --shard-size at its default.")

    def group(files: Iterable[FoundFile]) -> Iterator[list[FoundFile]]:
        waiting: list[FoundFile] = []
        rows = 0
        for file in files:
            waiting.append(file)
            rows += max(1, file.size // BYTES_A_ROW)
            if rows >= shard_size:
                yield waiting
                waiting, rows = [], 0
        if waiting:
            yield waiting

    return group


def read_xp_file(path: str, release: str | None) -> Iterator[Spectrum | Refused]:
    """Spectra of one XP file, row by row, and the rows that cannot be used."""
    for batch in iter_xp(look(path)):
        yield from to_spectra(batch, release, path)
        for row, spec_id, reason, message in batch.rejected:
            yield Refused(f"{path}#{row}", spec_id, release or DEFAULT_RELEASE, reason, message)
