"""One engine for every stage that writes shards: it keeps up-to-date shards and makes the others, here or on a cluster.

A stage that is computed from another one lists its shards and gives a function that makes one of them; order, bytes,
resuming, removal of surplus shards, accounts and progress are the engine's:

>>> def make(task):                                                  # doctest: +SKIP
...     table = pa.table({"n": [task]})
...     return Made(table, table.schema, account=1)
>>> with stage.lock():                                               # doctest: +SKIP
...     run_stage(stage, [Shard(0, "inputs", rows=1, task=7)], make)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ..atlas.schemas import REJECTED
from ..atlas.stage import Part, Stage
from ..progress import Progress
from .cluster import cluster_map

if TYPE_CHECKING:
    from dask.distributed import Client

    from .accounts import IngestReport


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard of a stage, before it is made.

    Attributes
    ----------
    number
        Of the shard.
    inputs
        Digest of everything that its rows are made from: a standing shard with this digest is up to date.
    rows
        What it counts for in progress.
    task
        What the making function is given; small, because it travels to the workers of a cluster.
    """

    number: int
    inputs: str
    rows: int
    task: Any = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return f"shard {self.number}"


@dataclass(slots=True)
class Made:
    """What a making function returns.

    Attributes
    ----------
    tables
        The shard's rows: a table, or an iterable of tables or record batches.
    schema
        Their columns.
    extra
        Values to keep in the sidecar. It may be filled while `tables` is consumed.
    account
        What the caller wants to know of a shard written now; likewise.
    rejected
        Rows for the stage of rejected spectra; committed before the shard itself.
    """

    tables: pa.Table | Iterable[pa.Table | pa.RecordBatch]
    schema: pa.Schema
    extra: dict[str, Any] = field(default_factory=dict)
    account: Any = None
    rejected: pa.Table | None = None


@dataclass(slots=True)
class StageRun:
    """Account of a run.

    Attributes
    ----------
    written, current, removed
        Shards written by this run, found up to date, and removed because nothing stands for them any more.
    parts
        The shard that stands for each entry of `shards`, in order.
    accounts
        `Made.account` of the shards written, in order.
    """

    written: int = 0
    current: int = 0
    removed: int = 0
    parts: list[Part] = field(default_factory=list)
    accounts: list[Any] = field(default_factory=list)

    def report(self, to: IngestReport) -> IngestReport:
        """Add the shards' `accounts` (read, kept, rejected), written now or before, to a report."""
        for part in self.parts:
            to.add(part.extra["accounts"])
        to.shards_written += self.written
        to.shards_current += self.current
        return to


def run_stage(
    stage: Stage,
    shards: Sequence[Shard],
    make: Callable[[Any], Made],
    *,
    client: Client | None = None,
    rejected: Stage | None = None,
    owns: Callable[[Part], bool] | None = None,
    progress: Progress | None = None,
    note: str = "",
    done: int = 0,
    total: int | None = None,
) -> StageRun:
    """Bring a stage up to date. Hold `stage.lock()` around it.

    A killed run continues where it stopped, and ends with the same bytes.

    Parameters
    ----------
    shards
        All that the stage is to hold, in order.
    make
        Makes one shard from its task. On a cluster it is pickled and runs on a worker.
    client
        A Dask cluster, from `specclip_search.stages.cluster.dask_client`; the bytes are the same.
    rejected
        Where `Made.rejected` goes.
    owns
        Which standing shards this run may remove; by default all.
    progress
        Called with (`done` so far, `total`, `note`); by default the total is that of these shards.
    """
    run = StageRun()
    standing = {part.number: part for part in stage.parts()}
    wanted = {shard.number for shard in shards}
    for number, part in standing.items():
        if number not in wanted and (owns is None or owns(part)):
            _remove(stage, rejected, number)
            run.removed += 1
    total = done + sum(shard.rows for shard in shards) if total is None else total
    todo = []
    for shard in shards:
        if shard.number in standing and standing[shard.number].inputs == shard.inputs:
            run.current += 1
            done += shard.rows
        else:
            todo.append(shard)
    if progress is not None and run.current and not todo:
        progress(done, total, note)
    accounts: dict[int, Any] = {}
    for shard, part, account in _made(stage, rejected, todo, make, client, progress, note, done, total):
        standing[shard.number], accounts[shard.number] = part, account
        done += shard.rows
        run.written += 1
        if progress is not None:
            progress(done, total, note)
    run.parts = [standing[shard.number] for shard in shards]
    run.accounts = [accounts[shard.number] for shard in todo]
    return run


def tagged_numbers(stage: Stage, name: str, tags: Sequence[Any]) -> dict[Any, int]:
    """Numbers for shards that are known by a tag in their sidecar's `extra[name]`: those they have, or free ones."""
    standing = {part.extra[name]: part.number for part in stage.parts() if name in part.extra}
    free = stage.free_numbers()
    return {tag: standing[tag] if tag in standing else next(free) for tag in tags}


def _made(
    stage: Stage,
    rejected: Stage | None,
    todo: Sequence[Shard],
    make: Callable[[Any], Made],
    client: Client | None,
    progress: Progress | None,
    note: str,
    done: int,
    total: int,
) -> Iterator[tuple[Shard, Part, Any]]:
    """Make shards here one after another, or on the cluster as they end."""
    if client is not None and todo:
        where = (str(stage.folder.resolve()), stage.label, None if rejected is None else str(rejected.folder.resolve()))
        for shard, (part, account) in cluster_map(client, _on_worker, todo, where, make):
            yield shard, part, account
        return
    for shard in todo:
        made = make(shard.task)
        if progress is not None and isinstance(made.tables, Iterator):  # computed while it is written
            made.tables = _reported(made.tables, progress, done, total, note)
        yield shard, commit(stage, rejected, shard, made), made.account
        done += shard.rows


def _reported(
    tables: Iterable[pa.Table | pa.RecordBatch], progress: Progress, done: int, total: int, note: str
) -> Iterator[pa.Table | pa.RecordBatch]:
    for table in tables:
        done += table.num_rows
        progress(min(done, total), total, note)
        yield table


def _on_worker(
    shard: Shard, where: tuple[str, str, str | None], make: Callable[[Any], Made]
) -> tuple[Part, Any]:
    """One shard, on a worker of a cluster, which commits it itself."""
    folder, label, rejected = where
    made = make(shard.task)
    aside = None if rejected is None else Stage(Path(rejected), f"rejected {label}")
    return commit(Stage(Path(folder), label), aside, shard, made), made.account


def commit(stage: Stage, rejected: Stage | None, shard: Shard, made: Made) -> Part:
    """Write one shard: first what was rejected, then what was kept, whose sidecar commits both."""
    if made.rejected is not None and rejected is not None:
        write_rejected(rejected, shard.number, made.rejected, shard.inputs)
    return stage.write(shard.number, made.tables, schema=made.schema, inputs=shard.inputs, extra=made.extra)


def write_rejected(stage: Stage, number: int, rows: pa.Table, inputs: str) -> None:
    """Write a shard of rejected spectra; an empty one only where one stands already."""
    if rows.num_rows or stage.part(number) is not None:
        with stage.lock():
            stage.write(number, rows, schema=REJECTED, inputs=inputs)


def _remove(stage: Stage, rejected: Stage | None, number: int) -> None:
    stage.remove(number)
    if rejected is not None and rejected.part(number) is not None:
        with rejected.lock():
            rejected.remove(number)
