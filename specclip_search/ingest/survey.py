"""Ingest of surveys whose spectra are seen as another instrument's: each row is kept, or rejected with a reason."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import QueryError, Reason, SpectrumError
from ..preparation.quality import MIN_GOOD_FRACTION
from ..progress import Progress
from ..readers.containers.archive_member import is_archive, members_to_open
from ..readers.content import Content, look
from ..readers.registry import ReadOptions, reader_for
from ..readers.survey_rows import Refused
from ..spectrum import Spectrum
from ..stages.accounts import IngestReport
from ..surveys import MODALITIES, get_modality
from ..surveys.seen_as import seen_as
from .files import FITS_SUFFIXES, at_least_one, find_files
from .plan import Plan
from .spectra import SHARD_SIZE, by_size, run_ingest

if TYPE_CHECKING:
    from ..atlas import Atlas
    from .worker import Reading

SURVEY_SUFFIXES = (*FITS_SUFFIXES, ".parquet", ".zip", ".tar", ".tar.gz", ".tgz")
# lower limit of bytes per spectrum: those of DESI and of the Multimodal Universe are the smallest
SURVEY_BYTES_A_ROW = 16_384


def ingest_survey(atlas: Atlas, survey: str, paths: Sequence[str | os.PathLike[str]], *, release: str | None = None,
                  epochs: bool = False, workers: int | None = None, shard_size: int = SHARD_SIZE,
                  progress: Progress | None = None, observed: bool | None = None) -> IngestReport:
    """Read spectra of a survey into `spectra/<survey>`, degraded to the instrument that they are seen as.

    Otherwise as `specclip_search.ingest.ingest_lamost`. Of two spectra with the same release, id and epoch the first
    in order is kept.

    Parameters
    ----------
    atlas, workers, shard_size, progress, observed
        As in `ingest_lamost`.
    survey
        ``sdss``, ``desi`` or ``lamost_mrs``.
    paths
        Files, folders (searched recursively for FITS and Parquet files and archives of them), or ``@LIST``.
    release
        Data release of files that do not give it.
    epochs
        Whether single visits and exposures are kept as well. A run with another value than before makes every
        shard again.

    Returns
    -------
    IngestReport
        Counts of everything ingested so far by this function: read = kept + the sum of rejected.

    Raises
    ------
    QueryError
        If there is no such survey.
    SpecclipError
        If a path does not exist, or a folder holds no such file.
    """
    reading = survey_reading(survey, epochs=epochs)

    def plan(folder: Path) -> Plan:
        made = Plan(folder)
        grouping = by_size(shard_size, SURVEY_BYTES_A_ROW)
        made.update(at_least_one(find_files(paths, SURVEY_SUFFIXES)), grouping, release)
        return made

    settings = " with epochs" if epochs else ""
    return run_ingest(atlas, survey, plan, reading, workers, progress, settings, observed)


def survey_reading(survey: str, *, epochs: bool = False, assumed: bool = False) -> Reading:
    """The function that `run_ingest` calls with each file of a survey; it can be sent to another process.

    Parameters
    ----------
    epochs
        Whether single visits and exposures are wanted.
    assumed
        Whether files that do not say their survey are of it.

    Raises
    ------
    QueryError
        If the survey's spectra are not seen as another instrument's.
    """
    if survey not in MODALITIES or MODALITIES[survey].seen_as is None:
        known = ", ".join(name for name, modality in MODALITIES.items() if modality.seen_as is not None)
        raise QueryError(f"No encoder takes spectra of '{survey}'.", f"Choose one of: {known}.")
    return partial(read_survey_file, survey=survey, epochs=epochs, assumed=assumed)


def read_survey_file(path: str, release: str | None, *, survey: str, epochs: bool = False, assumed: bool = False,
                     ) -> Iterator[Spectrum | Refused]:
    """Every row of a file: a spectrum of `survey` on its encoder's pixels, or why there is none.

    Spectra of another survey in the same file (a ``mwmStar`` has those of BOSS and APOGEE) are refused by name, so
    that rows read are rows kept and rejected.
    """
    options = ReadOptions(release=release, epochs=epochs, modality=survey if assumed else None)
    for source, opened in members_to_open(path) if is_archive(path) else [(path, partial(look, path))]:
        try:
            yield from _rows(opened(), options, survey)
        except SpectrumError as error:
            yield Refused(source, None, release, error.reason, error.message)


def _rows(content: Content, options: ReadOptions, survey: str) -> Iterator[Spectrum | Refused]:
    encoder = get_modality(survey).encoder
    for found in reader_for(content).read(content, options):
        if isinstance(found, Refused):
            yield found
            continue
        source, release = str(found.meta.get("source", content.path)), found.meta.get("release")
        if found.modality != survey:
            yield Refused(source, found.spec_id, release, Reason.LAYOUT_UNKNOWN,
                          f"a {survey} spectrum was expected; this one is of {found.modality}")
            continue
        try:
            seen = seen_as(found, encoder, least_share=MIN_GOOD_FRACTION)
        except SpectrumError as error:
            yield Refused(source, found.spec_id, release, error.reason, error.message)
            continue
        meta = {**seen.spectrum.meta, "epoch": found.epoch, "frame": found.frame}
        yield replace(seen.spectrum, modality=survey, meta=meta, observed=found)
