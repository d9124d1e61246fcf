"""Solutions that waited for their calibration become spectra; the files that they came from are not read again."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import SpecclipError
from ..progress import Progress
from ..readers import gaia_tables, gaia_xp
from ..readers.survey_rows import Waiting
from ..spectrum import Spectrum
from ..stages.accounts import IngestReport
from ..stages.run import Shard
from ..surveys import XP
from .observed import batches, observed_inputs
from .pipeline import commit_spectra, duplicates
from .plan import KeyLedger, key_columns, keys_of
from .pool import prepare_in_order, usable_cores
from .rows import WAITING
from .worker import PartRows, PartTask, Refused

if TYPE_CHECKING:
    from ..atlas import Atlas, Part


def recalibrate(atlas: Atlas, *, workers: int | None = None, progress: Progress | None = None) -> IngestReport:
    """Make spectra of the Gaia XP solutions that wait in an atlas, where their bases are installed now.

    They are added to the shards that the rest of their files' spectra are in. What was vectors or an index of these
    shards is out of date afterwards: `embed` and `index build` make it again. A killed run continues where it stopped.

    Parameters
    ----------
    workers
        Number of processes; None: one per core.
    progress
        Called with (solutions done, solutions in all, note).

    Returns
    -------
    IngestReport
        Counts of everything ingested so far from files: read = kept + waiting + the sum of rejected.

    Raises
    ------
    SpecclipError
        If nothing waits in the atlas.
    """
    stage, aside = atlas.spectra(XP), atlas.waiting(XP)
    if not aside.exists:
        raise SpecclipError(
            f"No solution waits for its calibration in {atlas.path}.",
            "Give the files to `specclip-search ingest gaia-xp`: it calibrates what it can at once.",
        )
    with stage.lock():
        standing = {part.number: part for part in stage.parts()}
        # a shard that was made again from its changed file has its own waiting rows, or none
        todo = [part for part in aside.parts() if _belongs(part, standing)]
        with aside.lock():
            for part in aside.parts():
                if part not in todo:
                    aside.remove(part.number)
        ledger = KeyLedger()
        for part in standing.values():
            keys = pq.read_table(part.path, columns=key_columns(XP))
            ledger.add(keys["release"].to_numpy(zero_copy_only=False), keys_of(keys))
        total, done = sum(part.rows for part in todo), 0
        tasks = iter(
            [
                PartTask(part.number, [(str(part.path), None)], observed=_observed(atlas, part) is not None)
                for part in todo
            ]
        )
        count = min(usable_cores() if workers is None else workers, max(1, len(todo)))
        for rows in prepare_in_order(lambda: next(tasks, None), XP, read_waiting, count):
            _add(atlas, standing[rows.part], rows, ledger)
            done += next(part.rows for part in todo if part.number == rows.part)
            if progress is not None:
                progress(done, total, "")
        report = IngestReport(shards_written=len(todo), shards_current=len(standing) - len(todo))
        for part in stage.parts():
            if "accounts" in part.extra:
                report.add(part.extra["accounts"])
    return report


def _belongs(part: Part, standing: dict[int, Part]) -> bool:
    made = standing.get(part.number)
    return made is not None and made.inputs == part.inputs and made.extra["accounts"].get("waiting", 0) > 0


def read_waiting(path: str, release: str | None) -> Iterator[Spectrum | Refused]:
    """The solutions of a shard of `waiting/`, calibrated where they can be."""
    for batch in pq.ParquetFile(path).iter_batches(gaia_tables.BATCH_ROWS):
        for name, rows in groupby(gaia_tables.arrow_rows(batch), key=lambda row: row["release"]):
            yield from _calibrated(list(rows), name)


def _calibrated(rows: gaia_tables.Rows, release: str) -> Iterator[Spectrum | Refused]:
    """Rows of one release."""
    found = gaia_xp.continuous([row | {"source_id": row["spec_id"]} for row in rows], 0, release)
    for row, spectrum in zip(found.row.tolist(), gaia_xp.to_spectra(found, release, ""), strict=True):
        spectrum.meta["source"] = rows[row]["source"]
        yield spectrum
    for row, spec_id, reason, message in found.rejected:
        source = rows[row]["source"]
        if row in found.waiting:
            yield Waiting(source, spec_id, release, reason, message, found.waiting[row])
        else:
            yield Refused(source, spec_id, release, reason, message)


def _add(atlas: Atlas, part: Part, rows: PartRows, ledger: KeyLedger) -> None:
    """Add a shard's new spectra behind those that it has."""
    old = atlas.rejected(XP).part(part.number)
    kept, rejected = pq.read_table(part.path), [] if old is None else [pq.read_table(old.path)]
    # a run that was killed after it had written this shard left its rows waiting
    known = pa.concat_tables([kept.select(["source"]), *(table.select(["source"]) for table in rejected)])["source"]
    new, refused, waiting = (_unknown(table, known) for table in (rows.kept, rows.rejected, rows.waiting))
    release, keys = new["release"].to_numpy(zero_copy_only=False), keys_of(new)
    if not new.num_rows + refused.num_rows:
        return
    taken = ledger.taken(release, keys)
    if rows.observed is not None:
        _add_observed(atlas, part, _unknown(rows.observed, known).filter(pa.array(~taken)))
    ledger.add(release[~taken], keys[~taken])
    rejected += [refused, duplicates(new.filter(pa.array(taken)))]
    kept = pa.concat_tables([kept, new.filter(pa.array(~taken))]).combine_chunks()
    extra: dict[str, Any] = {name: value for name, value in part.extra.items() if name != "accounts"}
    shard = Shard(part.number, part.inputs, kept.num_rows)
    commit_spectra(atlas, XP, shard, kept, pa.concat_tables(rejected).combine_chunks(), waiting.cast(WAITING), extra)


def _observed(atlas: Atlas, part: Part) -> Part | None:
    """The shard of observed spectra beside one of spectra, or of rows that wait; None where they are not kept."""
    found = atlas.observed(XP).part(part.number)
    return found if found is not None and found.inputs == observed_inputs(part.inputs) else None


def _add_observed(atlas: Atlas, part: Part, new: pa.Table) -> None:
    """Add the observed spectra of new rows, before the spectra themselves, as `Ingest` does."""
    stands, stage = _observed(atlas, part), atlas.observed(XP)
    assert stands is not None
    with stage.lock():
        whole = pa.concat_tables([_unknown(pq.read_table(stands.path), new["source"]), new])
        stage.write(part.number, batches(whole), schema=whole.schema, inputs=stands.inputs)


def _unknown(table: pa.Table, sources: pa.ChunkedArray) -> pa.Table:
    return table.filter(pc.invert(pc.is_in(table["source"], value_set=sources.combine_chunks())))
