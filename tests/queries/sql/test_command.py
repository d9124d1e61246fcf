"""`specclip-search sql` as a user meets it: statements, parameters, formats, limits, the sandbox, the prompt."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from astropy.table import Table

from specclip_search.atlas import Atlas
from specclip_search.cli.main import run
from specclip_search.cli.prompt import Prompt
from specclip_search.cli.statements import Statements, parse_value

from ..small_atlas import star

PROGRAM = [sys.executable, "-c", "from specclip_search.cli.main import run; run()"]


def call(capsys: pytest.CaptureFixture[str], atlas: Atlas, *words: str) -> tuple[int | str | None, str, str]:
    with pytest.raises(SystemExit) as stop:
        run(["sql", *words, "--atlas", str(atlas.path)])
    shown = capsys.readouterr()
    return stop.value.code, shown.out, shown.err


def test_a_statement_prints_its_rows(atlas: Atlas, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, atlas, "SELECT count(*) AS n FROM spectra_lamost_lrs")
    assert (code, out.split(), err) == (0, ["n", "6"], "")


def test_parameters_by_place_and_by_name(atlas: Atlas, capsys: pytest.CaptureFixture[str]) -> None:
    by_place = "SELECT spec_id FROM spectra WHERE source_id = ? AND teff > ? AND modality = ?"
    expected = f"spec_id\n{star(5)}\n"
    assert call(capsys, atlas, by_place, str(star(5)), "5500.5", "gaia_xp", "-f", "csv") == (0, expected, "")
    by_name = "SELECT spec_id FROM spectra WHERE source_id = $id AND release = $release AND $none IS NULL"
    words = ["-p", f"id={star(5)}", "--param", "release=dr3", "-p", "none=null", "-f", "csv"]
    assert call(capsys, atlas, by_name, *words) == (0, expected, "")
    negative = call(
        capsys, atlas, "SELECT min(feh) AS feh FROM stellar WHERE feh < $most", "-p", "most=-1.5", "-f", "csv"
    )
    assert negative == (0, "feh\n-2\n", "")


@pytest.mark.parametrize(
    ("text", "value"),
    [("7", 7), (str(2**63 - 1), 2**63 - 1), ("-2.5", -2.5), ("1e3", 1000.0), ("'7'", "7"), ("TRUE", True),
     ("null", None), ("dr7", "dr7"), ("nan", "nan"), ("1_0", "1_0"), ("", ""), ("'", "'")],
)  # fmt: skip
def test_values_keep_their_kind(text: str, value: object) -> None:
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


def test_a_file_and_standard_input(
    atlas: Atlas, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    statement = (
        "CREATE TEMP TABLE t AS SELECT spec_id FROM spectra_lamost_lrs; -- two of them\nSELECT max(spec_id) FROM t"
    )
    (tmp_path / "ask.sql").write_text(statement)
    assert call(capsys, atlas, "--file", str(tmp_path / "ask.sql"))[1].split() == ["max(spec_id)", "106"]
    (tmp_path / "ask.sql").write_text("SELECT ? + 1 AS n")
    assert call(capsys, atlas, "--file", str(tmp_path / "ask.sql"), "41")[1].split() == ["n", "42"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("SELECT 7 AS n"))
    assert call(capsys, atlas, "-")[1].split() == ["n", "7"]
    (tmp_path / "ask.sql").write_bytes(b"SELECT '\xff'")
    code, _, err = call(capsys, atlas, "--file", str(tmp_path / "ask.sql"))
    assert code == 2
    assert "cannot be read as text" in err


def test_every_format_holds_the_same_ids(atlas: Atlas, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    statement = "SELECT spec_id, source_id, teff FROM spectra WHERE modality = 'lamost_lrs' ORDER BY spec_id"
    ids = [star(0), star(0), None, None, star(3), star(8)]
    made = {}
    for name in ("r.csv", "r.json", "r.parquet", "r.vot", "r.fits"):
        made[name] = tmp_path / name
        assert call(capsys, atlas, statement, "-o", str(made[name])) == (0, "", "")
    assert [row["source_id"] for row in json.loads(made["r.json"].read_text())] == ids
    table = pq.read_table(made["r.parquet"])
    assert table["source_id"].to_pylist() == ids
    assert table.schema.field("teff").metadata[b"unit"] == b"K"
    assert made["r.csv"].read_text().splitlines()[1:3] == [f"101,{star(0)},5000", f"102,{star(0)},5000"]
    for name in ("r.vot", "r.fits"):
        column = Table.read(made[name])["source_id"]
        assert [None if i is None else int(i) for i in column.tolist()] == ids
    assert call(capsys, atlas, statement, "-f", "fits")[0] == 2


def test_limits_of_rows_and_time(atlas: Atlas, capsys: pytest.CaptureFixture[str]) -> None:
    statement = "SELECT spec_id FROM spectra_lamost_lrs ORDER BY spec_id DESC"
    code, out, err = call(capsys, atlas, statement, "--limit", "2", "-f", "csv")
    assert (code, out) == (0, "spec_id\n106\n105\n")
    assert "more rows than the limit of 2" in err
    assert call(capsys, atlas, statement, "--limit", "6", "-f", "csv")[2] == ""
    endless = "SELECT count(*) FROM range(1000000000) a, range(1000000000) b WHERE (a.range * b.range) % 7 = 3"
    code, out, err = call(capsys, atlas, endless, "--timeout", "0.3")
    assert (code, out) == (2, "")
    assert "did not end within 0.3 s" in err


@pytest.mark.parametrize("seconds", [None, 60.0])
def test_ctrl_c_stops_a_statement_and_the_next_one_runs(atlas: Atlas, seconds: float | None) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Statements(atlas, seconds=seconds) as statements:
            threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
            with pytest.raises(KeyboardInterrupt):
                statements.run("SELECT count(*) FROM range(1000000000000) WHERE hash(range) = 0")
            table, _ = statements.run("SELECT 1 AS one")
            assert table is not None
            assert table.to_pylist() == [{"one": 1}]
    finally:
        signal.signal(signal.SIGINT, before)


def test_of_several_statements_the_last_gives_the_rows_and_that_is_said(
    atlas: Atlas, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(capsys, atlas, "CREATE TEMP TABLE t AS SELECT 7 AS n; SELECT n FROM t", "-f", "csv")
    assert (code, out) == (0, "n\n7\n")
    assert "2 statements were run; only the rows of the last one are shown." in err
    assert call(capsys, atlas, "CREATE TEMP VIEW v AS SELECT 1") == (0, "", "")
    assert call(capsys, atlas, "CREATE TEMP VIEW v AS SELECT 1", "--limit", "5") == (0, "", "")


def test_the_sandbox(atlas: Atlas, capsys: pytest.CaptureFixture[str]) -> None:
    asked = "SELECT spec_id FROM spectra_lamost_lrs WHERE spec_id > $id ORDER BY ALL"
    code, out, err = call(capsys, atlas, asked, "-p", "id=101", "--read-only-sandbox", "--limit", "1", "-f", "csv")
    assert (code, out) == (0, "spec_id\n102\n")
    assert "more rows than the limit of 1" in err
    for refused in ("SELECT * FROM read_csv('/etc/passwd')", "COPY spectra TO '/tmp/x.csv'", "SET threads = 8"):
        code, out, err = call(capsys, atlas, refused, "--read-only-sandbox")
        assert (code, out) == (2, "")
        assert "not allowed" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["SELECT 1", "-p", "limit"], "A parameter is NAME=VALUE; found 'limit'"),
        (["SELECT $a", "-p", "a=1", "-p", "a=2"], "'a' is given twice"),
        (["SELECT ?", "1", "-p", "a=2"], "by name (a=2) and by position (1)"),
        (["SELECT $a", "-p", "b=1"], "statement cannot be run"),
        (["SELECT ?"], "statement cannot be run"),
        ([" "], "No SQL statement was given"),
        (["SELECT 1", "-o", "rows.xyz"], "does not determine the file format"),
    ],
)
def test_what_is_wrong_is_said(
    atlas: Atlas, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    code, out, err = call(capsys, atlas, *words)
    assert (code, out) == (2, "")
    assert message in err


def test_without_a_terminal_a_statement_is_needed(atlas: Atlas) -> None:
    done = subprocess.run(
        [*PROGRAM, "sql", "-a", str(atlas.path)], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "No SQL statement was given" in done.stderr


def test_completion(atlas: Atlas) -> None:
    with Statements(atlas) as statements:
        prompt = Prompt(statements)

        def completions(text: str) -> list[str]:
            found: list[str] = []
            while (word := prompt.complete(text, len(found))) is not None:
                found.append(word)
            return found

        assert "spectra_gaia_xp" in completions("spectra_")
        assert completions("stars.tef") == ["stars.teff"]
        assert "lamost_spec_id" in completions("lamost_")
        assert completions("sele") == ["select"]
        assert completions("SELE") == ["SELECT"]
        assert completions("nothing.x") == []


class Terminal:
    """The program on a pseudo-terminal."""

    def __init__(self, atlas: Atlas, state: Path) -> None:
        master, slave = pty.openpty()
        environment = {**os.environ, "TERM": "dumb", "XDG_STATE_HOME": str(state)}
        self.process = subprocess.Popen(
            [*PROGRAM, "sql", "-a", str(atlas.path)], stdin=slave, stdout=slave, stderr=slave, env=environment
        )
        os.close(slave)
        self.master = master
        self.unread = b""

    def until(self, wanted: str, seconds: float = 40) -> str:
        """What is shown up to `wanted`, and with it."""
        end = time.monotonic() + seconds
        while wanted.encode() not in self.unread:
            ready, _, _ = select.select([self.master], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise AssertionError(f"no {wanted!r} after {self.unread!r}")
            self.unread += os.read(self.master, 4096)
        shown, found, self.unread = self.unread.partition(wanted.encode())
        return (shown + found).decode().replace("\r\n", "\n")

    def type(self, text: str, prompt: str = "sql> ") -> None:
        """Type once asked: what is typed earlier, the terminal takes before readline can."""
        self.until(prompt)
        os.write(self.master, text.encode())

    def end(self) -> int:
        try:
            return self.process.wait(timeout=20)
        finally:
            self.process.kill()
            os.close(self.master)


def test_the_prompt_completes_goes_on_after_a_mistake_and_remembers(atlas: Atlas, tmp_path: Path) -> None:
    terminal = Terminal(atlas, tmp_path / "state")
    terminal.type("SELECT count(*) AS n\n")
    terminal.type("FROM spectra_lam\t;\n", "...> ")
    assert "6\n(1 row)" in terminal.until("(1 row)")
    terminal.type("SELECT wrong FROM stars;\n")
    assert "Referenced column" in terminal.until("wrong") + terminal.until("wrong")
    terminal.type(".format csv\n")
    terminal.type("SELECT 40 + 2 AS answer, 1 AS b;\n")
    assert "answer,b\n42,1\n" in terminal.until("(1 row)")
    terminal.type("\x04")
    assert terminal.end() == 0
    again = Terminal(atlas, tmp_path / "state")
    again.type("\x1b[A\n")
    assert "42" in again.until("(1 row)")
    again.type("quit\n")
    assert again.end() == 0
