"""Ingest pipeline: plan the shards, prepare them in parallel, commit them in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import Reason, SpecclipError
from ..progress import Progress
from ..stages.accounts import IngestReport
from ..stages.run import Shard, commit
from ..surveys import get_modality
from .files import real_path
from .observed import batches, observed_inputs
from .plan import KeyLedger, Plan, key_columns, keys_of
from .pool import prepare_in_order, usable_cores
from .rows import WAITING, made_spectra
from .worker import PartRows, PartTask, Reading, Refused, refused_table

if TYPE_CHECKING:
    from ..atlas import Atlas, Part

OWN = "ingest_part"
FEW_FILES = 1000
_KEYS = ["release", "spec_id", "source"]


@dataclass
class Ingest:
    """One ingest run for one modality of an atlas. Use while holding the stage's lock."""

    atlas: Atlas
    modality: str
    plan: Plan
    reading: Reading
    workers: int | None = None
    progress: Progress | None = None
    settings: str = ""
    observed: bool | None = None

    def run(self) -> IngestReport:
        """Make every missing or stale part; up-to-date parts are kept.

        Observed spectra come with each part that is made, unless `observed` is False; where it is True, those of
        up-to-date parts are made, too, if they are not there.
        """
        self.as_observed = self.atlas.observed(self.modality)
        self.stage, self.rejected = self.atlas.spectra(self.modality), self.atlas.rejected(self.modality)
        parts = self.stage.parts()
        self.standing: dict[int, Part] = {part.extra[OWN]: part for part in parts if OWN in part.extra}
        self.shards = _ShardNumbers(parts, len(self.plan))
        self.last_standing = max(self.standing, default=-1)
        self.report, self.ledger = IngestReport(), KeyLedger()
        self.salt = self.modality + self.settings
        self.keys = key_columns(self.modality)
        self.sizes, self.files_done = self.plan.part_sizes(), 0
        self.to_do = [part for part in range(len(self.plan)) if not self._is_current(part)]
        missing = set(self.to_do)
        self.without_observed = {
            part for part in range(len(self.plan)) if self.observed and part not in missing and not self._observed(part)
        }
        self.to_do = sorted({*missing, *self.without_observed})
        if missing:
            for part in parts:
                if OWN not in part.extra:  # shards of other origin: their spectra are already in the atlas
                    self._remember(part)
        self._make(missing)
        self.report.observed = sum(self._observed(part) for part in self.standing)
        return self.report

    def _observed(self, part: int) -> int:
        """Number of observed spectra of an up-to-date part."""
        stands = self.standing[part]
        shard = self.as_observed.part(stands.number)
        return shard.rows if shard is not None and shard.inputs == observed_inputs(stands.inputs) else 0

    def _is_current(self, part: int) -> bool:
        stands = self.standing.get(part)
        return stands is not None and stands.inputs == self.plan.inputs(part, self.salt)

    def _make(self, missing: set[int]) -> None:
        """Process the parts in order: duplicates are detected against all earlier parts."""
        made = prepare_in_order(self._next_task, self.modality, self.reading, self._enough_workers())
        waiting: dict[int, PartRows] = {}
        for part in range(len(self.plan)):
            scheduled = missing | self.without_observed
            while part in scheduled and part not in waiting:
                rows = next(made)
                waiting[rows.part] = rows
            if part not in missing:
                if part in scheduled:
                    self._commit_observed(waiting.pop(part))
                self._count_current(part, remember=bool(missing))
                continue
            affected = self._commit(waiting.pop(part))
            missing.update(affected)
            self.to_do = sorted([*self.to_do, *(set(affected) - scheduled)])

    def _next_task(self) -> PartTask | None:
        if not self.to_do:
            return None
        part = self.to_do.pop(0)
        files = self.plan.files(part)
        paths = map(real_path, files["path"].to_pylist())
        return PartTask(
            part, list(zip(paths, files["release"].to_pylist(), strict=True)), observed=self.observed is not False
        )

    def _enough_workers(self) -> int:
        """Number of worker processes; starting one takes about a second, too long for a few files."""
        wanted = usable_cores() if self.workers is None else self.workers
        if wanted < 1:
            raise SpecclipError(f"The number of workers must be at least 1; found {wanted}.",
                                "Omit --workers to use all cores.")
        files = sum(self.sizes[part] for part in self.to_do)
        if self.workers is None and files < FEW_FILES and get_modality(self.modality).small_files:
            return 1
        return min(wanted, max(1, len(self.to_do)))

    def _count_current(self, part: int, remember: bool) -> None:
        stands = self.standing[part]
        self.report.add(stands.extra["accounts"])
        self.report.shards_current += 1
        self._tell(part)
        if remember:
            self._remember(stands)

    def _remember(self, part: Part) -> None:
        keys = pq.read_table(part.path, columns=self.keys)
        self.ledger.add(keys["release"].to_numpy(zero_copy_only=False), keys_of(keys))

    def _commit(self, rows: PartRows) -> list[int]:
        """Remove duplicates and write the part; return later parts that must be made again."""
        release = rows.kept["release"].to_numpy(zero_copy_only=False)
        keys = keys_of(rows.kept)
        taken = self.ledger.taken(release, keys)
        kept, rejected, observed = rows.kept, rows.rejected, rows.observed
        if taken.any():
            observed = None if observed is None else observed.filter(pa.array(~taken))
            kept = rows.kept.filter(pa.array(~taken)).combine_chunks()
            rejected = pa.concat_tables([rejected, duplicates(rows.kept.filter(pa.array(taken)))]).combine_chunks()
        affected = self._invalidate_later(rows.part, kept)
        shard = Shard(self.shards.take(rows.part), self.plan.inputs(rows.part, self.salt), kept.num_rows)
        # before the shard of spectra, whose sidecar says that the part is done
        self._write_observed(shard.number, shard.inputs, observed)
        part = commit_spectra(self.atlas, self.modality, shard, kept, rejected, rows.waiting, {OWN: rows.part})
        self.standing[rows.part] = part
        self.ledger.add(release[~taken], keys[~taken])
        self.report.add(part.extra["accounts"])
        self.report.shards_written += 1
        self._tell(rows.part)
        return affected

    def _commit_observed(self, rows: PartRows) -> None:
        """Write the observed spectra of an up-to-date part: of each of its rows that its files still hold."""
        assert rows.observed is not None
        stands = self.standing[rows.part]
        names = [*self.keys, "source"]
        found = {key: place for place, key in enumerate(_keys_in_order(rows.observed, names))}
        wanted = _keys_in_order(pq.read_table(stands.path, columns=names), names)
        places = pa.array([found[key] for key in wanted if key in found], pa.int64())
        self._write_observed(stands.number, stands.inputs, rows.observed.take(places))

    def _write_observed(self, number: int, inputs: str, table: pa.Table | None) -> None:
        """Write a shard of observed spectra; None removes the one that stands, which is of other spectra."""
        if table is None and self.as_observed.part(number) is None:
            return
        with self.as_observed.lock():
            if table is None:
                self.as_observed.remove(number)
            else:
                self.as_observed.write(number, batches(table), schema=table.schema, inputs=observed_inputs(inputs))

    def _invalidate_later(self, part: int, kept: pa.Table) -> list[int]:
        """Remove later parts whose duplicates have changed; only a part that is made again has any.

        They are removed before this part is replaced, so that a run killed in between makes them again.
        """
        if part >= self.last_standing:
            return []
        before, after = self._keys_of(self.standing.get(part)), _key_set(kept, self.keys)
        gone = {key[:2] for key in before - after}  # rejected rows have no epoch
        affected = []
        for number in sorted(number for number in self.standing if number > part and self._is_current(number)):
            stands = self.standing[number]
            if self._keys_of(stands) & (after - before) or self._duplicates_of(stands) & gone:
                affected.append(number)
                self.stage.remove(stands.number)
                del self.standing[number]
        return affected

    def _keys_of(self, part: Part | None) -> set[tuple[Any, ...]]:
        return set() if part is None else _key_set(pq.read_table(part.path, columns=self.keys), self.keys)

    def _duplicates_of(self, part: Part) -> set[tuple[Any, ...]]:
        rejected = self.rejected.part(part.number)
        if rejected is None:
            return set()
        table = pq.read_table(rejected.path)
        return _key_set(table.filter(pc.equal(table["reason"], str(Reason.DUPLICATE_KEY))), ["release", "spec_id"])

    def _tell(self, part: int) -> None:
        self.files_done += self.sizes[part]
        if self.progress is not None:
            expected = round(self.report.read * self.plan.n_files / max(self.files_done, 1))
            self.progress(self.report.read, expected, f"file {self.files_done:,} of {self.plan.n_files:,}")


def commit_spectra(
    atlas: Atlas,
    modality: str,
    shard: Shard,
    kept: pa.Table,
    rejected: pa.Table,
    waiting: pa.Table,
    extra: dict[str, Any],
) -> Part:
    """Write a shard of spectra with what was rejected; rows that wait are committed before and removed after it."""
    made = made_spectra(kept, rejected, extra, waiting=waiting.num_rows)
    aside = atlas.waiting(modality)
    if waiting.num_rows:
        with aside.lock():
            aside.write(shard.number, waiting, schema=WAITING, inputs=shard.inputs)
    part = commit(atlas.spectra(modality), atlas.rejected(modality), shard, made)
    if not waiting.num_rows and aside.folder.is_dir() and aside.part(shard.number) is not None:
        with aside.lock():
            aside.remove(shard.number)
    return part


class _ShardNumbers:
    """The shard number of each part: its position in the plan, unless a shard of other origin has it."""

    def __init__(self, parts: list[Part], planned: int) -> None:
        self._numbers = {part.extra[OWN]: part.number for part in parts if OWN in part.extra}
        self._used = {part.number for part in parts}
        self._planned = planned

    def take(self, part: int) -> int:
        if part not in self._numbers:
            free = part not in self._used
            self._numbers[part] = part if free else max(*self._used, self._planned - 1) + 1
            self._used.add(self._numbers[part])
        return self._numbers[part]


def _key_set(table: pa.Table, names: list[str]) -> set[tuple[Any, ...]]:
    return set(_keys_in_order(table, names))


def _keys_in_order(table: pa.Table, names: list[str]) -> list[tuple[Any, ...]]:
    return list(zip(*(table[name].to_pylist() for name in names), strict=True))


def duplicates(table: pa.Table) -> pa.Table:
    """Rows that are refused because the atlas has their keys, as rows of `rejected/<modality>`."""
    rows: list[dict[str, Any]] = table.select(_KEYS).to_pylist()
    return refused_table([
        Refused(row["source"], row["spec_id"], row["release"], Reason.DUPLICATE_KEY,
                f"spectrum {row['spec_id']} of release {row['release']} is already in the atlas")
        for row in rows])
