"""Work of one ingest process: read and prepare the files of one part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from ..atlas.schemas import REJECTED
from ..errors import Reason, SpectrumError
from ..spectrum import Spectrum
from ..surveys import get_modality
from ..surveys.batch import prepare_batch
from .rows import rejected_table, spectra_table

SPECTRA_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class PartTask:
    """Files of one part, in order: (path, release or None)."""

    part: int
    files: list[tuple[str, str | None]]


@dataclass(frozen=True, slots=True)
class Refused:
    """A file or row without a usable spectrum."""

    source: str
    spec_id: int | None
    release: str | None
    reason: Reason
    message: str


Reading = Callable[[str, str | None], Iterator[Spectrum | Refused]]


@dataclass(frozen=True, slots=True)
class PartRows:
    """A part's rows before duplicates are removed: `kept` and `rejected` tables."""

    part: int
    kept: pa.Table
    rejected: pa.Table


def prepare_part(task: PartTask, modality: str, reading: Reading) -> PartRows:
    """Read and prepare a part's files, a few hundred spectra at a time.

    The content of a file never raises an error; unusable spectra are in `rejected` with their reason.
    """
    instrument = get_modality(modality)
    kept = [instrument.schema.empty_table()]
    rejected = [REJECTED.empty_table()]
    waiting: list[Spectrum] = []

    def flush() -> None:
        prepared = prepare_batch(instrument, waiting)
        kept.append(spectra_table(instrument, waiting, prepared))
        rejected.append(rejected_table(waiting, prepared))
        waiting.clear()

    refused: list[Refused] = []
    for path, release in task.files:
        for found in _guarded(reading, path, release):
            if isinstance(found, Refused):
                refused.append(found)
                continue
            waiting.append(found)
            if len(waiting) == SPECTRA_AT_ONCE:
                flush()
    flush()
    rejected.append(refused_table(refused))
    return PartRows(task.part, pa.concat_tables(kept).combine_chunks(), pa.concat_tables(rejected).combine_chunks())


def _guarded(reading: Reading, path: str, release: str | None) -> Iterator[Spectrum | Refused]:
    """Spectra of a file; every error becomes a refusal."""
    try:
        for found in reading(path, release):
            if isinstance(found, Spectrum) and found.spec_id is None:
                found = Refused(str(found.meta.get("source", path)), None, release, Reason.LAYOUT_UNKNOWN,
                                "the file gives no id (OBSID or source_id); a spectrum needs a key")
            yield found
    except SpectrumError as error:
        yield Refused(path, None, release, error.reason, error.message)
    except MemoryError:
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        yield Refused(path, None, release, Reason.UNREADABLE, f"{path} could not be read ({text})")


def refused_table(refused: list[Refused]) -> pa.Table:
    """Refusals as rows of `rejected/<modality>`."""
    return pa.Table.from_pylist(
        [{"source": r.source, "spec_id": r.spec_id, "release": r.release, "reason": str(r.reason), "message": r.message}
         for r in refused], schema=REJECTED)
