"""User verdicts on stars: one log in the atlas of who said what and when, which both queues and the ranking read.

The log is written as a whole beside the one that stands and takes its place, so that a process killed at any moment
loses nothing that was said before. `specclip_search.queries.statistics.learned_shift` learns from it.
"""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from specclip_search.atlas.arrays import table_from_columns
from specclip_search.atlas.schemas import described
from specclip_search.errors import QueryError
from specclip_search.keys import parse_key
from specclip_search.surveys import LRS

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas

STAGE = "verdict_log"
# one verdict a pair, as older versions stored those of the command line
_OLDER = "anomaly_verdicts"
VALUES = {"interesting": 1.0, "artifact": -1.0, "normal": -1.0}
QUEUES = ("anomalies", "emp")
LONGEST_NOTE = 1000
NOBODY = "command line"
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

    def ends_with(self, entry: Entry) -> bool:
        """Whether this is what was said last of its star in its queue, by the same user in the same words."""
        own = [one for one in self.entries if (one.queue, one.pair) == (entry.queue, entry.pair)]
        return bool(own) and replace(own[-1], unix_time=entry.unix_time) == entry

    def table(self) -> pa.Table:
        """One row an entry."""
        columns = {name: [getattr(entry, name) for entry in self.entries] for name in SCHEMA.names}
        return table_from_columns(columns, SCHEMA) if self.entries else SCHEMA.empty_table()


def _majority(verdicts: Sequence[str]) -> str:
    """The most frequent; of those equally frequent the one given last."""
    counts = {word: verdicts.count(word) for word in verdicts}
    most = max(counts.values())
    return next(word for word in reversed(verdicts) if counts[word] == most)


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Pairs with a verdict, each with the one that stands, in order of their ids."""

    lrs_spec_id: np.ndarray
    xp_spec_id: np.ndarray
    verdict: np.ndarray

    def __len__(self) -> int:
        return len(self.verdict)

    @property
    def value(self) -> np.ndarray:
        """(n,) 1 for interesting, -1 for artifact and normal."""
        return np.array([VALUES[str(name)] for name in self.verdict], dtype=np.float64)


def read_log(atlas: Atlas) -> Log:
    """The log as it stands."""
    stage = atlas.results(STAGE)
    parts = stage.parts() if stage.folder.exists() else []
    rows = pq.ParquetFile(parts[-1].path).read(columns=SCHEMA.names).to_pylist() if parts else []
    log = Log([Entry(**row) for row in rows])
    return Log([*log.entries, *_older(atlas, log)])


def _older(atlas: Atlas, log: Log) -> list[Entry]:
    """What an older version stored apart from the log and is not in it."""
    stage = atlas.results(_OLDER)
    if not stage.folder.exists():
        return []
    logged = {(entry.pair, entry.verdict) for entry in log.entries if entry.queue == QUEUES[0]}
    rows = stage.read(["lrs_spec_id", "xp_spec_id", "verdict"]).to_pylist()
    found = [
        Entry(QUEUES[0], row["lrs_spec_id"], row["xp_spec_id"], row["verdict"], NOBODY, "", 0) for row in rows
    ]
    return [entry for entry in found if (entry.pair, entry.verdict) not in logged]


def read_verdicts(atlas: Atlas) -> Verdicts:
    """The verdicts on anomalies that stand."""
    standing = {pair: one.verdict for pair, one in read_log(atlas).standing(QUEUES[0]).items()}
    pairs = np.array(sorted(standing), np.int64).reshape(-1, 2)
    return Verdicts(pairs[:, 0], pairs[:, 1], np.array([standing[pair] for pair in sorted(standing)], object))


def record(
    atlas: Atlas,
    queue: str,
    pair: tuple[int, int],
    verdict: str,
    user: str = NOBODY,
    note: str = "",
    now: float | None = None,
) -> Log:
    """Keep a verdict; an empty one takes the user's own back, one that was said last already is not said again.

    Raises
    ------
    QueryError
        If queue or verdict is not known, the note is too long, or the pair has no score in that queue.
    """
    if queue not in QUEUES:
        raise QueryError(f"There is no queue '{queue[:40]}'.", f"Choose one of {', '.join(QUEUES)}.")
    if verdict:
        _check(verdict)
    if len(note) > LONGEST_NOTE:
        raise QueryError(f"A note has at most {LONGEST_NOTE:,} characters; found {len(note):,}.", "Shorten it.")
    _require_scored(atlas, queue, pair)
    when = int(time.time() if now is None else now)
    return _append(atlas, [Entry(queue, *pair, verdict, user, _CONTROL.sub(" ", note).strip(), when)])


def record_verdict(atlas: Atlas, key: str, verdict: str) -> int:
    """Keep a verdict on every scored pair of a spectrum given by its key; return the number of pairs.

    Raises
    ------
    QueryError
        If the key or verdict is invalid, or no pair of that spectrum has a score.
    """
    spectrum = parse_key(key)
    _check(verdict)
    column = "lrs_spec_id" if spectrum.modality == LRS else "xp_spec_id"
    scores = atlas.results(QUEUES[0])
    if not scores.exists:
        raise QueryError("The atlas holds no anomaly scores to judge.", "Run `specclip-search anomalies` first.")
    rows = scores.read(["lrs_spec_id", "xp_spec_id"]).to_pylist()
    pairs = [(row["lrs_spec_id"], row["xp_spec_id"]) for row in rows if row[column] == spectrum.spec_id]
    if not pairs:
        raise QueryError(f"{key} is in no pair that has an anomaly score.", "`anomalies` lists those that have.")
    now = int(time.time())
    _append(atlas, [Entry(QUEUES[0], lrs, xp, verdict, NOBODY, "", now) for lrs, xp in pairs])
    return len(pairs)


def _check(verdict: str) -> None:
    if verdict not in VALUES:
        raise QueryError(f"A verdict is one of {', '.join(VALUES)}; found '{verdict[:40]}'.", "Choose one of these.")


def _append(atlas: Atlas, entries: Sequence[Entry]) -> Log:
    stage, older = atlas.results(STAGE), atlas.results(_OLDER)
    with _writing, stage.lock():
        log = read_log(atlas)
        new = [entry for entry in entries if not log.ends_with(entry)]
        if new:
            log = Log([*log.entries, *new])
            with stage.replaced() as beside:
                beside.write(0, log.table(), schema=SCHEMA, inputs="users")
        shutil.rmtree(older.folder, ignore_errors=True)
    stage.tidy()
    return log


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
