"""Every verdict with its user, note and time: the log behind both queues.

`results/anomaly_verdicts` (see `specclip_search.queries.anomalies.verdicts`) holds one verdict a pair, which the
ranking heeds; this log
holds all that was said. It is written as a new shard before the old one goes, so that a server killed at any
moment loses nothing, and the verdicts that the ranking heeds are made again from it.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from specclip_search.queries.anomalies.verdicts import SCHEMA as STORED_SCHEMA
from specclip_search.queries.anomalies.verdicts import STAGE as STORED
from specclip_search.queries.anomalies.verdicts import VALUES, read_verdicts

from ..atlas.arrays import table_from_columns
from ..atlas.schemas import described
from ..errors import QueryError

if TYPE_CHECKING:
    from ..atlas import Atlas

NAME = "verdict_log"
QUEUES = ("anomalies", "emp")
LONGEST_NOTE = 1000
NOBODY = "command line"
# says in the sidecar of the heeded verdicts that the log was their last writer
IN_STEP = "verdict log"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_writing = threading.Lock()

SCHEMA = pa.schema(
    [
        described("queue", pa.string(), "list that was judged: anomalies or emp"),
        described("lrs_spec_id", pa.int64(), "LAMOST obsid; -1 where the star has none", ucd="meta.id;meta.main"),
        described("xp_spec_id", pa.int64(), "Gaia XP spectrum; -1 where the star has none", ucd="meta.id"),
        described("verdict", pa.string(), "interesting, artifact or normal; empty where a verdict was taken back"),
        described("user", pa.string(), "who said so"),
        described("note", pa.string(), "in the user's own words"),
        described("unix_time", pa.int64(), "when, in seconds since 1970", "s", "time.epoch"),
    ]
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that was said of a star."""

    queue: str
    lrs_spec_id: int
    xp_spec_id: int
    verdict: str
    user: str
    note: str
    unix_time: int

    @property
    def pair(self) -> tuple[int, int]:
        return self.lrs_spec_id, self.xp_spec_id


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands of a star: the verdict most users gave (of a tie the latest), the last note, who judged."""

    verdict: str
    note: str
    users: str


class Log:
    """All entries, the oldest first."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = tuple(entries)

    def standing(self, queue: str) -> dict[tuple[int, int], Standing]:
        """What stands of each star of a queue; stars whose verdicts were all taken back are not in it."""
        latest: dict[tuple[int, int], dict[str, Entry]] = {}
        for entry in self.entries:
            if entry.queue == queue:
                said = latest.setdefault(entry.pair, {})
                said.pop(entry.user, None)
                said[entry.user] = entry
        result = {}
        for pair, by_user in latest.items():
            valid = [entry for entry in by_user.values() if entry.verdict]
            if valid:
                note = next((entry.note for entry in reversed(valid) if entry.note), "")
                users = ", ".join(f"{entry.user}: {entry.verdict}" for entry in valid)
                result[pair] = Standing(_majority([entry.verdict for entry in valid]), note, users)
        return result

    def table(self) -> pa.Table:
        columns = {name: [getattr(entry, name) for entry in self.entries] for name in SCHEMA.names}
        return table_from_columns(columns, SCHEMA) if self.entries else SCHEMA.empty_table()


def _majority(verdicts: Sequence[str]) -> str:
    """The most frequent; of those equally frequent the one given last."""
    counts = {word: verdicts.count(word) for word in verdicts}
    most = max(counts.values())
    return next(word for word in reversed(verdicts) if counts[word] == most)


def read_log(atlas: Atlas) -> Log:
    """The log as it stands: its newest shard."""
    stage = atlas.results(NAME)
    parts = stage.parts()
    if not parts:
        return Log([])
    table = pq.ParquetFile(parts[-1].path).read(columns=SCHEMA.names)
    return Log([Entry(**row) for row in table.to_pylist()])


def record(
    atlas: Atlas,
    queue: str,
    pair: tuple[int, int],
    verdict: str,
    user: str,
    note: str = "",
    now: float | None = None,
) -> Log:
    """Keep a verdict; an empty one takes the user's own back.

    Raises
    ------
    QueryError
        If queue or verdict is not known, the note is too long, or the pair has no score in that queue.
    """
    if queue not in QUEUES:
        raise QueryError(f"There is no queue '{queue[:40]}'.", f"Choose one of {', '.join(QUEUES)}.")
    if verdict and verdict not in VALUES:
        raise QueryError(f"A verdict is one of {', '.join(VALUES)}; found '{verdict[:40]}'.", "Choose one of these.")
    if len(note) > LONGEST_NOTE:
        raise QueryError(f"A note has at most {LONGEST_NOTE:,} characters; found {len(note):,}.", "Shorten it.")
    _require_scored(atlas, queue, pair)
    entry = Entry(
        queue, *pair, verdict, user, _CONTROL.sub(" ", note).strip(), int(time.time() if now is None else now)
    )
    # who holds the lock of a stage sees it as it lies there, also where a killed writer left it without its shard
    with _writing, atlas.results(NAME).lock(), atlas.results(STORED).lock():
        log = read_log(atlas)
        log = Log([*log.entries, *_unlogged(atlas, log, entry.unix_time), entry])
        _write(atlas, log)
        _store_standing(atlas, log)
    return log


def reconcile(atlas: Atlas) -> None:
    """Finish what a killed server began: verdicts that stand in the log and not where the ranking heeds them."""
    if not atlas.results(NAME).exists:
        return
    # who holds the lock of a stage sees it as it lies there, also where a killed writer left it without its shard
    with _writing, atlas.results(NAME).lock(), atlas.results(STORED).lock():
        log = read_log(atlas)
        missed = _unlogged(atlas, log, 0)
        if missed:
            log = Log([*log.entries, *missed])
        if missed or len(atlas.results(NAME).parts()) > 1:
            _write(atlas, log)
        _store_standing(atlas, log)


def _require_scored(atlas: Atlas, queue: str, pair: tuple[int, int]) -> None:
    stage = atlas.results(queue)
    if not stage.exists:
        raise QueryError(f"The atlas holds no scores of {queue}.", f"Run `specclip-search {queue}` first.")
    known = stage.read(["lrs_spec_id", "xp_spec_id"])
    lrs, xp = (known[name].fill_null(-1).to_numpy() for name in ("lrs_spec_id", "xp_spec_id"))
    if pair == (-1, -1) or not ((lrs == pair[0]) & (xp == pair[1])).any():
        raise QueryError(
            f"There is no pair lamost:{pair[0]} and gaia:{pair[1]} among the scores of {queue}.",
            "Take both ids from one row of the list.",
        )


def _unlogged(atlas: Atlas, log: Log, now: int) -> list[Entry]:
    """Verdicts given on the command line since the log was last in step with what the ranking heeds."""
    parts = atlas.results(STORED).parts()
    if not parts or parts[-1].inputs == IN_STEP:
        return []
    standing = log.standing("anomalies")
    own = {entry.pair: entry.verdict for entry in log.entries if entry.queue == "anomalies" and entry.user == NOBODY}
    stored = read_verdicts(atlas)
    found = []
    for lrs, xp, word in zip(stored.lrs_spec_id.tolist(), stored.xp_spec_id.tolist(), stored.verdict, strict=True):
        stands = standing.get((lrs, xp))
        if (stands is None or stands.verdict != word) and own.get((lrs, xp)) != word:
            found.append(Entry("anomalies", lrs, xp, str(word), NOBODY, "", now))
    return found


def _write(atlas: Atlas, log: Log) -> None:
    """A new shard with all, then the old ones go: at every moment one whole shard stands."""
    stage = atlas.results(NAME)
    parts = stage.parts()
    number = parts[-1].number + 1 if parts else 0
    stage.write(number, log.table(), schema=SCHEMA, inputs="users")
    for part in parts:
        stage.remove(part.number)


def _store_standing(atlas: Atlas, log: Log) -> None:
    """Put what stands of the anomalies where the ranking reads it. Hold that stage's lock."""
    standing = {pair: one.verdict for pair, one in log.standing("anomalies").items()}
    stored = read_verdicts(atlas)
    before = dict(
        zip(zip(stored.lrs_spec_id.tolist(), stored.xp_spec_id.tolist(), strict=True), stored.verdict, strict=True)
    )
    parts = stage.parts() if (stage := atlas.results(STORED)).exists else []
    if standing == before and (not parts or parts[-1].inputs == IN_STEP):
        return
    pairs = sorted(standing)
    columns: dict[str, Any] = {
        "lrs_spec_id": np.array([pair[0] for pair in pairs], np.int64),
        "xp_spec_id": np.array([pair[1] for pair in pairs], np.int64),
        "verdict": [standing[pair] for pair in pairs],
    }
    stage.write(0, table_from_columns(columns, STORED_SCHEMA), schema=STORED_SCHEMA, inputs=IN_STEP)
