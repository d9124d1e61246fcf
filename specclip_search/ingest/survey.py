"""Files of any survey into spectra as an encoder takes them: read, refused with a reason, or seen as its instrument."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ..errors import QueryError, Reason, SpectrumError
from ..readers.containers.archive_member import is_archive, iter_members
from ..readers.content import Content, look
from ..readers.registry import ReadOptions, reader_for
from ..readers.survey_rows import Refused
from ..spectrum import Spectrum
from ..surveys.seen_as import seen_as

if TYPE_CHECKING:
    from .worker import Reading

#: surveys whose spectra an encoder of another instrument takes, and which
ENCODERS = {"sdss": "lamost_lrs", "desi": "lamost_lrs", "lamost_mrs": "lamost_lrs"}


def survey_reading(survey: str, *, epochs: bool = False) -> Reading:
    """What `run_ingest` calls with each file of a survey; it can be sent to another process.

    Raises
    ------
    QueryError
        If no encoder takes the survey's spectra.
    """
    if survey not in ENCODERS:
        raise QueryError(f"No encoder takes spectra of '{survey}'.", f"Choose one of: {', '.join(ENCODERS)}.")
    return partial(read_survey_file, survey=survey, epochs=epochs)


def read_survey_file(path: str, release: str | None, *, survey: str, epochs: bool = False,
                     ) -> Iterator[Spectrum | Refused]:
    """Every row of a file: a spectrum of `survey` on its encoder's pixels, or why there is none.

    Spectra of another survey in the same file (a ``mwmStar`` has both BOSS's and APOGEE's) are refused by name, so
    that rows read are rows kept and rejected.
    """
    options = ReadOptions(release=release, epochs=epochs)
    for content in iter_members(path) if is_archive(path) else [look(path)]:
        try:
            yield from _rows(content, options, survey)
        except SpectrumError as error:
            yield Refused(str(content.path), None, release, error.reason, error.message)


def _rows(content: Content, options: ReadOptions, survey: str) -> Iterator[Spectrum | Refused]:
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
            seen = seen_as(found, ENCODERS[survey])
        except SpectrumError as error:
            yield Refused(source, found.spec_id, release, error.reason, error.message)
            continue
        yield replace(seen.spectrum, modality=survey)
