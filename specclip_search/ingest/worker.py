"""Work of one ingest process: read and prepare the files of one part."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import parent_process

import pyarrow as pa

from ..atlas.schemas import REJECTED
from ..errors import Reason, SpectrumError
from ..opening.regular import shown_text
from ..readers.survey_rows import Refused, Waiting
from ..spectrum import Spectrum
from ..surveys import get_modality
from ..surveys.batch import prepare_batch
from .limits import FILE_MEMORY, FILE_SECONDS, Marks, TooLong, limit_memory, time_limit
from .observed import observed_table
from .rows import WAITING, rejected_table, spectra_table, waiting_table

__all__ = ["PartRows", "PartTask", "Refused", "prepare_part", "refused_table"]

SPECTRA_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class PartTask:
    """Files of one part, in order: (path, release or None); those of `fatal` are refused without being opened.

    `observed`: whether spectra are kept as delivered, too.
    """

    part: int
    files: list[tuple[str, str | None]]
    fatal: frozenset[int] = frozenset()
    observed: bool = False


Reading = Callable[[str, str | None], Iterator[Spectrum | Refused]]


@dataclass(frozen=True, slots=True)
class PartRows:
    """A part's rows before duplicates are removed.

    `kept`, `rejected` and `waiting` tables, and the rows of `kept` as `observed` if asked for.
    """

    part: int
    kept: pa.Table
    rejected: pa.Table
    waiting: pa.Table
    observed: pa.Table | None = None


_marks: Marks | None = None


def start_worker(marks: str) -> None:
    """What a worker process does first: bound its memory, and open the file in which it says what it reads."""
    global _marks
    limit_memory()
    _marks = Marks(marks)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker waits for its next task without end, also where the process that would give it was killed."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _mark(part: int, file: int, step: int) -> None:
    if _marks is not None:
        _marks.set(part, file, step)


def prepare_part(task: PartTask, modality: str, reading: Reading) -> PartRows:
    """Read and prepare a part's files, a few hundred spectra at a time.

    The content of a file never raises an error; unusable spectra are in `rejected` with their reason.
    """
    instrument = get_modality(modality)
    kept = [instrument.schema.empty_table()]
    rejected = [REJECTED.empty_table()]
    observed: list[pa.Table] = [observed_table(instrument, [])]
    waiting: list[Spectrum] = []
    refused: list[Refused] = []
    later: list[Waiting] = []
    uncalibrated = [WAITING.empty_table()]

    def prepare(spectra: list[Spectrum]) -> None:
        prepared = prepare_batch(instrument, spectra)
        tables = spectra_table(instrument, spectra, prepared), rejected_table(spectra, prepared)
        if task.observed:
            chosen = [spectrum for spectrum, keep in zip(spectra, prepared.keep, strict=True) if keep]
            observed.append(observed_table(instrument, chosen))
        kept.append(tables[0])
        rejected.append(tables[1])

    def flush() -> None:
        try:
            prepare(waiting)
        except Exception:  # one odd spectrum must not take the others with it
            for spectrum in waiting:
                try:
                    prepare([spectrum])
                except Exception as error:
                    source = str(spectrum.meta.get("source", ""))
                    refused.append(Refused(source, spectrum.spec_id, None, Reason.UNREADABLE,
                                           f"{source} could not be prepared ({_short(error)})"))
        waiting.clear()

    for number, (path, release) in enumerate(task.files):
        if number in task.fatal:
            refused.append(Refused(path, None, release, Reason.UNREADABLE,
                                   f"{path} ended the process that read it, or kept it busy without end"))
            continue
        _mark(task.part, number, 0)
        for step, found in enumerate(_guarded(reading, path, release), 1):
            _mark(task.part, number, step)
            if isinstance(found, Waiting):
                later.append(found)
                if len(later) == SPECTRA_AT_ONCE:  # as arrays of Arrow they take half the memory
                    uncalibrated.append(waiting_table(later))
                    later.clear()
                continue
            if isinstance(found, Refused):
                refused.append(found)
                continue
            waiting.append(found)
            if len(waiting) == SPECTRA_AT_ONCE:
                flush()
    flush()
    rejected.append(refused_table(refused))
    uncalibrated.append(waiting_table(later))
    rows, refusals = (pa.concat_tables(pieces).combine_chunks() for pieces in (kept, rejected))
    # rows that wait are large: they are not copied into one piece
    later_rows = pa.concat_tables(uncalibrated)
    return PartRows(task.part, rows, refusals, later_rows, pa.concat_tables(observed) if task.observed else None)


def _guarded(reading: Reading, path: str, release: str | None) -> Iterator[Spectrum | Refused]:
    """Spectra of a file; whatever is wrong with it, and whatever it raises, becomes a refusal."""
    try:
        spectra = reading(path, release)
        while True:
            with time_limit(FILE_SECONDS):
                found = next(spectra, None)
            if found is None:
                return
            if isinstance(found, Spectrum) and found.spec_id is None:
                found = Refused(str(found.meta.get("source", path)), None, release, Reason.LAYOUT_UNKNOWN,
                                "the file gives no id (OBSID or source_id); a spectrum needs a key")
            yield found
    except SpectrumError as error:
        yield Refused(path, None, release, error.reason, error.message)
    except TooLong:
        yield Refused(path, None, release, Reason.UNREADABLE,
                      f"{path} gave no spectrum in {FILE_SECONDS:g} s; it is damaged, or the disk is too slow")
    except MemoryError:
        yield Refused(path, None, release, Reason.UNREADABLE,
                      f"{path} needs more memory than one file may take ({FILE_MEMORY >> 30} GiB)")
    except Exception as error:
        yield Refused(path, None, release, Reason.UNREADABLE, f"{path} could not be read ({_short(error)})")


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def refused_table(refused: list[Refused]) -> pa.Table:
    """Refusals as rows of `rejected/<modality>`."""
    return pa.Table.from_pylist(
        [{"source": shown_text(r.source), "spec_id": r.spec_id, "release": r.release, "reason": str(r.reason),
          "message": shown_text(r.message)} for r in refused], schema=REJECTED)
