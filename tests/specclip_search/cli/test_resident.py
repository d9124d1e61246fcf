"""A resident process answers as the command itself does, and never stands in its way."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pytest

from specclip_search.catalogs.ingest import ingest_catalog_table
from specclip_search.cli.resident import Resident, loaded_state
from specclip_search.surveys import GAIA_XP

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a resident process forks")
CALL = [sys.executable, "-c", "from specclip_search.cli.start import run; run()"]
# much more than anything takes: only a process that hangs fails by it
LONG_S = 120.0
SLOW = "SELECT sum(range % 7) FROM range(1000000000000)"


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from ...queries.toy_survey import make_survey

    survey = make_survey(tmp_path_factory.mktemp("resident") / "atlas", stars=200, shards=2)
    survey.embed()
    return survey


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment with a runtime folder of its own; what runs there is ended."""
    # sockets have short names
    folder = Path("/tmp") / f"sr-{os.getpid()}-{abs(hash(tmp_path)) % 10**6}"
    folder.mkdir(mode=0o700)
    made = os.environ | {"XDG_RUNTIME_DIR": str(folder)}
    yield made
    called(["resident", "stop"], made)
    shutil.rmtree(folder, ignore_errors=True)


def called(words: list[str], environment: dict[str, str], **more: Any) -> tuple[int, str, str]:
    done = subprocess.run([*CALL, *words], env=environment, capture_output=True, text=True, timeout=LONG_S, check=False,
                          **more)
    return done.returncode, done.stdout, done.stderr


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + LONG_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def copies(process: int) -> list[int]:
    """Processes that the resident process runs commands in."""
    text = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="utf-8")
    return [int(word) for word in text.split()]


def started(environment: dict[str, str], *more: str) -> int:
    code, _, said = called(["resident", "start", *more], environment)
    assert code == 0, said
    return int(said.split("process ")[1].split()[0])


def test_output_and_exit_codes_are_the_same(searched: Any, environment: dict[str, str]) -> None:
    key = f"{GAIA_XP.prefix}:{searched.source_id[4]}"
    atlas = searched.atlas.path
    more = {"cwd": atlas.parent}
    calls: list[tuple[list[str], str | None]] = [
        (["similar", key, "-k", "3", "--atlas", atlas.name], None),
        (["similar", key, "-k", "3", "--atlas", atlas.name, "--format", "csv"], None),
        (["similar", f"{GAIA_XP.prefix}:17", "--atlas", atlas.name], None),
        (["similar", key, "-k", "0"], None),
        (["sql", "-", "--atlas", str(atlas)], "SELECT source_id, 'ü' AS x FROM stars ORDER BY 1 LIMIT 2"),
        (["sql", "SELECT nothing FROM stars", "--atlas", str(atlas)], None),
        (["anomalies", "--atlas", "none"], None),
    ]
    alone = [called(words, environment, input=text, **more) for words, text in calls]
    assert {code for code, _, _ in alone} == {0, 2}
    process = started(environment)
    for _ in range(2):  # the second time the atlas is open already
        assert [called(words, environment, input=text, **more) for words, text in calls] == alone
    assert called(["resident", "status"], environment) == (0, "", f"The resident process {process} runs.\n")
    assert "runs already" in called(["resident", "start"], environment)[2]
    # an atlas that changes is seen
    words = ["sql", "SELECT count(*) AS n FROM seen", "--atlas", str(atlas)]
    assert called(words, environment)[0] == 2
    ingest_catalog_table(searched.atlas, "seen", pa.table({"source_id": searched.source_id[:3]}))
    assert called(words, environment)[:2] == (0, "n\n3\n")
    assert called(["resident", "stop"], environment)[2] == "The resident process has ended.\n"
    assert called(["resident", "status"], environment)[0] == 1


def test_an_interrupt_reaches_the_command(searched: Any, environment: dict[str, str]) -> None:
    process = started(environment)
    # a shell starts what runs in the background with interrupts ignored: here they count
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    words = [CALL[0], "-c", heed + CALL[2], "sql", SLOW, "--atlas", str(searched.atlas.path)]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        until(lambda: bool(copies(process)))
        time.sleep(0.5)
        running.send_signal(signal.SIGINT)
        try:
            said = running.communicate(timeout=LONG_S)
        finally:
            running.kill()
    # on a busy machine the interrupt may come before the statement: then a message says so
    assert (running.returncode, said[0]) == (130, "")
    until(lambda: not copies(process))
    # a caller that is killed takes its command along
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        until(lambda: bool(copies(process)))
        running.kill()
    until(lambda: not copies(process))


def test_a_killed_one_leaves_nothing_in_the_way(searched: Any, environment: dict[str, str]) -> None:
    words = ["sql", "SELECT 1 AS one", "--atlas", str(searched.atlas.path)]
    process = started(environment)
    os.kill(process, signal.SIGKILL)
    until(lambda: called(["resident", "status"], environment)[0] == 1)
    assert called(words, environment) == (0, "one\n  1\n", "")
    assert started(environment, "--idle", "0.01") != process
    until(lambda: called(["resident", "status"], environment)[0] == 1)
    folder = Path(environment["XDG_RUNTIME_DIR"]) / "specclip-search"
    assert not list(folder.glob("*.sock"))


def test_a_folder_of_others_is_not_used(searched: Any, environment: dict[str, str]) -> None:
    words = ["sql", "SELECT 1 AS one", "--atlas", str(searched.atlas.path)]
    process = started(environment)
    folder = Path(environment["XDG_RUNTIME_DIR"]) / "specclip-search"
    socket, = folder.glob("*.sock")
    assert socket.stat().st_mode & 0o777 == 0o600
    folder.chmod(0o755)
    assert called(words, environment) == (0, "one\n  1\n", "")
    code, _, said = called(["resident", "start"], environment)
    assert (code, "chmod 700" in said) == (2, True)
    folder.chmod(0o700)
    os.kill(process, signal.SIGTERM)


def test_changed_code_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "changed.py"
    file.write_text("")
    module = ModuleType("specclip_search.changed")
    module.__file__ = str(file)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    state = loaded_state()
    assert Resident()._unchanged(state)
    os.utime(file, ns=(1, 1))
    assert not Resident()._unchanged(state)
