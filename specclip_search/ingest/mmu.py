"""Ingest of the Multimodal Universe's Parquet files: each goes to the instrument that its columns name."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import QueryError, Reason, SpectrumError
from ..opening.regular import shown_path
from ..progress import Progress
from ..readers import gaia_tables
from ..readers.content import look
from ..readers.gaia_xp import is_gaia_xp
from ..readers.surveys.mmu import is_mmu, survey_of
from ..stages.accounts import IngestReport
from ..surveys import LRS, MODALITIES, XP
from .files import FoundFile, find_files, real_path
from .plan import Plan
from .spectra import BYTES_A_ROW, SHARD_SIZE, by_size, read_lamost_file, read_xp_file, run_ingest
from .survey import SURVEY_BYTES_A_ROW, survey_reading

if TYPE_CHECKING:
    from ..atlas import Atlas
    from .worker import Reading

MMU_SUFFIXES = (".parquet",)


def ingest_mmu(
    atlas: Atlas,
    paths: Sequence[str | os.PathLike[str]],
    *,
    survey: str | None = None,
    release: str | None = None,
    workers: int | None = None,
    shard_size: int = SHARD_SIZE,
    progress: Progress | None = None,
) -> dict[str, IngestReport]:
    """Read the Multimodal Universe's files of LAMOST, Gaia XP, DESI and SDSS into the spectra of these instruments.

    A file's instrument is known by its columns, else by the folders that it lies in. Further as `ingest_lamost`,
    `ingest_gaia_xp` and `ingest_survey`, whose spectra of an instrument stay beside these.

    Parameters
    ----------
    paths
        Files, folders (searched recursively for Parquet files, as ``healpix=N/``), or ``@LIST``.
    survey
        Instrument of files that do not say it.

    Returns
    -------
    dict
        By instrument, counts of everything ingested so far from its files.

    Raises
    ------
    QueryError
        If no file is of an instrument that an encoder takes.
    SpecclipError
        If a path does not exist, or a folder holds no Parquet file.
    """
    found: dict[str, list[FoundFile]] = {}
    others: list[str] = []
    for file in find_files(paths, MMU_SUFFIXES):
        try:
            name = instrument_of(real_path(file.path), survey)
        except SpectrumError as error:
            others.append(error.message)
            continue
        if name in (LRS, XP) or (name in MODALITIES and MODALITIES[name].seen_as is not None):
            found.setdefault(name, []).append(file)
        else:
            others.append(f"{shown_path(file.path)} has spectra of {name}, which no encoder takes")
    if not found:
        raise QueryError(
            f"None of {len(others):,} files can be ingested: {others[0].rstrip('.')}.",
            f"Give files of {LRS}, {XP}, desi or sdss, or name the survey with --as.",
        )
    if others:
        warnings.warn(f"{len(others):,} files were left out; the first: {others[0]}", UserWarning, stacklevel=2)
    return {
        name: _run(atlas, name, files, survey, release, workers, shard_size, progress)
        for name, files in sorted(found.items())
    }


def instrument_of(path: str, assumed: str | None) -> str:
    """The instrument of a file.

    Raises
    ------
    SpectrumError
        If it is none of the Multimodal Universe's, or does not say its survey.
    """
    content = look(path)
    if is_mmu(content):
        return survey_of(content, assumed)
    names = gaia_tables.column_names(content)
    if gaia_tables.NESTED in names or is_gaia_xp(names, content):
        return XP
    raise SpectrumError(
        Reason.LAYOUT_UNKNOWN,
        f"{shown_path(path)} has neither a column 'spectrum' nor XP coefficients (found {', '.join(names[:6])})",
        "Give the Parquet files of the Multimodal Universe.",
    )


def _run(
    atlas: Atlas, name: str, files: list[FoundFile], assumed: str | None, release: str | None, workers: int | None,
    shard_size: int, progress: Progress | None,
) -> IngestReport:
    bytes_a_row = BYTES_A_ROW if name == XP else SURVEY_BYTES_A_ROW

    def plan(folder: Path) -> Plan:
        made = Plan(folder)
        made.update(files, by_size(shard_size, bytes_a_row), release)
        return made

    reading: Reading = read_xp_file if name == XP else read_lamost_file
    if name not in (XP, LRS):
        reading = survey_reading(name, assumed=assumed is not None)
    return run_ingest(atlas, name, plan, reading, workers, progress)
