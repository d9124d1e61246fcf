"""Verdicts with their users: kept, taken back, agreed on, and never lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from specclip_search.atlas import Atlas
from specclip_search.errors import QueryError
from specclip_search.queries.anomalies.verdicts import Entry, Log, read_log, read_verdicts, record, record_verdict

from .conftest import as_table


def pair_of(shown: Any, number: int) -> tuple[int, int]:
    return int(shown.obsid[number]), int(shown.source_id[number])


def body(pair: tuple[int, int], verdict: str, queue: str = "anomalies", note: str = "") -> dict[str, str]:
    return {"queue": queue, "lrs_spec_id": str(pair[0]), "xp_spec_id": str(pair[1]), "verdict": verdict, "note": note}


def heeded(atlas: Atlas) -> dict[tuple[int, int], str]:
    stored = read_verdicts(atlas)
    ids = zip(stored.lrs_spec_id.tolist(), stored.xp_spec_id.tolist(), strict=True)
    return dict(zip(ids, stored.verdict.tolist(), strict=True))


def test_a_verdict_is_kept_and_taken_back(shown: Any, own_atlas: Atlas, opened: Callable[..., TestClient]) -> None:
    explorer = opened(own_atlas)
    pair = pair_of(shown, 3)
    said = explorer.post("/verdict", json=body(pair, "interesting", note="twin of\x00 <b>HD 1</b>")).json()
    assert said["verdict"] == "interesting"
    assert heeded(own_atlas) == {pair: "interesting"}
    row = explorer.get(f"/star/gaia:{pair[1]}.json").json()
    assert row["anomaly"]["verdict"] == "interesting"
    table = as_table(explorer.get("/anomalies.json?top=600&verdict=interesting").json())
    assert table["xp_spec_id"].to_pylist() == [str(pair[1])]
    assert table["note"].to_pylist() == ["twin of  <b>HD 1</b>"]
    explorer.post("/verdict", json=body(pair, "artifact"))
    assert heeded(own_atlas) == {pair: "artifact"}
    assert explorer.post("/verdict", json=body(pair, "")).json()["verdict"] is None
    assert heeded(own_atlas) == {}
    history = as_table(explorer.get("/verdicts.json").json())
    assert history["verdict"].to_pylist() == ["", "artifact", "interesting"]
    assert set(history["user"].to_pylist()) == {"owner"}


def test_metal_poor_candidates_are_judged_apart(
    shown: Any, own_atlas: Atlas, opened: Callable[..., TestClient]
) -> None:
    explorer = opened(own_atlas)
    pair = pair_of(shown, 8)
    assert explorer.post("/verdict", json=body(pair, "normal", "emp")).status_code == 200
    assert heeded(own_atlas) == {}
    table = as_table(explorer.get("/emp.json?top=600&verdict=normal").json())
    assert table["xp_spec_id"].to_pylist() == [str(pair[1])]
    assert explorer.get("/emp.json").json()["judged"] == 1
    assert explorer.get("/anomalies.json").json()["judged"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verdict": "boring"}, "A verdict is one of interesting, artifact, normal; found 'boring'."),
        ({"queue": "moons"}, "There is no queue 'moons'."),
        ({"xp_spec_id": "17"}, "There is no pair"),
        ({"lrs_spec_id": None, "xp_spec_id": None}, "There is no pair"),
        ({"lrs_spec_id": 1.5}, "lrs_spec_id must be a 64-bit integer"),
        ({"lrs_spec_id": "9" * 30}, "lrs_spec_id must lie between"),
        ({"lrs_spec_id": [1]}, "lrs_spec_id must be a 64-bit integer"),
        ({"note": "x" * 1001}, "A note has at most 1,000 characters"),
        ({"note": 5}, "queue, verdict and note must be texts"),
    ],
)
def test_what_is_no_verdict_is_refused(client: TestClient, shown: Any, change: dict[str, Any], message: str) -> None:
    answer = client.post("/verdict", json=body(pair_of(shown, 1), "normal") | change)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(message)
    for raw in (b"", b"[]", b"{", b'"x"', b"[" * 50_000, b"\xff\xfe"):
        answer = client.post("/verdict", content=raw, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400


def test_several_users_agree_by_majority() -> None:
    def entry(user: str, verdict: str, note: str = "") -> Entry:
        return Entry("anomalies", 1, 2, verdict, user, note, 0)

    def stands(*entries: Entry) -> str | None:
        found = Log(entries).standing("anomalies").get((1, 2))
        return None if found is None else found.verdict

    assert stands(entry("a", "normal"), entry("b", "interesting"), entry("c", "interesting")) == "interesting"
    # of a tie the latest; who changes their mind counts once
    assert stands(entry("a", "normal"), entry("b", "interesting")) == "interesting"
    assert stands(entry("b", "interesting"), entry("a", "artifact"), entry("b", "normal")) == "normal"
    assert stands(entry("a", "normal"), entry("a", "")) is None
    assert stands(entry("a", "normal"), entry("b", "artifact"), entry("b", "")) == "normal"


def test_the_command_line_and_the_explorer_write_one_log(shown: Any, own_atlas: Atlas) -> None:
    first, second = pair_of(shown, 1), pair_of(shown, 2)
    record_verdict(own_atlas, f"lamost:{first[0]}", "artifact")
    record(own_atlas, "anomalies", second, "interesting", "anna")
    assert heeded(own_atlas) == {first: "artifact", second: "interesting"}
    record_verdict(own_atlas, f"gaia:{second[1]}", "normal")
    record(own_atlas, "anomalies", first, "normal", "bert")
    # said again, as after a kill that came behind the writing, it is not said twice
    record(own_atlas, "anomalies", first, "normal", "bert")
    users = [(entry.user, entry.pair, entry.verdict) for entry in read_log(own_atlas).entries]
    assert users == [
        ("command line", first, "artifact"),
        ("anna", second, "interesting"),
        ("command line", second, "normal"),
        ("bert", first, "normal"),
    ]
    assert heeded(own_atlas) == {first: "normal", second: "normal"}


def test_verdicts_of_an_older_version_are_taken_over(shown: Any, own_atlas: Atlas) -> None:
    pairs = [pair_of(shown, number) for number in (1, 2)]
    older = own_atlas.results("anomaly_verdicts")
    columns = {"lrs_spec_id": [pair[0] for pair in pairs], "xp_spec_id": [pair[1] for pair in pairs]}
    table = pa.table({**columns, "verdict": ["artifact", "normal"]})
    with older.lock():
        older.write(0, table, schema=table.schema, inputs="user")
    assert heeded(own_atlas) == dict(zip(pairs, ["artifact", "normal"], strict=True))
    record(own_atlas, "anomalies", pairs[0], "interesting", "anna")
    assert not older.folder.exists()
    assert heeded(own_atlas) == dict(zip(pairs, ["interesting", "normal"], strict=True))
    assert [entry.user for entry in read_log(own_atlas).entries] == ["command line", "command line", "anna"]


_GIVER = """
import sys
from specclip_search.atlas import Atlas
from specclip_search.queries.anomalies.verdicts import record
atlas, lrs, xp = Atlas(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
for number in range(10_000):
    record(atlas, "anomalies", (lrs + number % 400, xp + 128 * (number % 400)), "normal", "anna")
    print(number, flush=True)
"""


@pytest.mark.parametrize("after", [1, 4])
def test_killed_in_the_middle_of_a_verdict_nothing_is_lost(shown: Any, own_atlas: Atlas, after: int) -> None:
    root = Path(__file__).resolve().parents[3]
    arguments = [str(own_atlas.path), str(shown.obsid[0]), str(shown.source_id[0])]
    giver = subprocess.Popen(
        [sys.executable, "-c", _GIVER, *arguments], stdout=subprocess.PIPE, cwd=root,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(root), *sys.path])},
    )  # fmt: skip
    assert giver.stdout is not None
    told = [int(giver.stdout.readline()) for _ in range(after)]
    # somewhere inside the next ones
    time.sleep(0.011 * after)
    giver.send_signal(signal.SIGKILL)
    told += [int(line) for line in giver.stdout.read().split()]
    giver.wait()
    entries = read_log(own_atlas).entries
    assert len(entries) in (len(told), len(told) + 1)
    assert len(heeded(own_atlas)) == min(len(entries), 400)
    record(own_atlas, "anomalies", pair_of(shown, 399), "artifact", "bert")
    assert heeded(own_atlas)[pair_of(shown, 399)] == "artifact"


def test_a_pair_without_a_score_is_refused_before_anything_is_written(own_atlas: Atlas) -> None:
    with pytest.raises(QueryError, match="no pair"):
        record(own_atlas, "anomalies", (1, 2), "normal", "anna")
    assert not own_atlas.results("verdict_log").exists
