"""Commands that print a table load neither pandas nor pydantic, and read their options as typer does."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated, Any

import pandas as pd
import pyarrow as pa
import pytest
import typer
from typer.testing import CliRunner

from specclip_search.cli.quick_start import read_plainly
from specclip_search.surveys import GAIA_XP

_LOADED = """
import sys
from specclip_search.cli.main import run
try:
    run(sys.argv[1:])
except SystemExit as stop:
    assert not stop.code, stop.code
print("loaded:", sorted({"pandas", "pydantic", "torch", "astropy"} & set(sys.modules)), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from specclip_search import anomalies
    from specclip_search.queries.emp.candidates import emp_candidates
    from specclip_search.queries.translation.translate import translate

    from ...queries.toy_survey import make_survey

    survey = make_survey(tmp_path_factory.mktemp("quick") / "atlas", stars=300, wrong=2, emission=2, shards=2)
    survey.embed()
    translate(survey.atlas, survey.model)
    anomalies(survey.atlas, top=5)
    emp_candidates(survey.atlas, top=5, builtin_seeds=False)
    return survey


@pytest.mark.parametrize("command", ["similar", "anomalies", "sql", "doctor"])
def test_a_table_is_printed_without_heavy_modules(searched: Any, command: str) -> None:
    key = f"{GAIA_XP.prefix}:{searched.source_id[0]}"
    more = {"similar": [key, "-k", "5"], "anomalies": ["--top", "5"],
            "sql": ["SELECT count(*) FROM stars"], "doctor": []}[command]
    done = subprocess.run(
        [sys.executable, "-c", _LOADED, command, *more, "--atlas", str(searched.atlas.path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.splitlines()) > 1
    assert done.stderr.splitlines()[-1] == "loaded: []"


def test_stored_candidates_are_listed_without_heavy_modules(searched: Any) -> None:
    """As a function, because the toy's model can embed no built-in seeds."""
    script = """
import sys
from specclip_search.cli.quick_start import keep_pandas_out
keep_pandas_out()
from specclip_search import Atlas
from specclip_search.queries.emp.candidates import emp_table
assert emp_table(Atlas(sys.argv[1]), top=5, builtin_seeds=False).num_rows == 5
print(sorted({"pandas", "pydantic", "torch", "astropy", "scipy", "faiss"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script, str(searched.atlas.path)], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "[]\n"


def test_pandas_is_found_by_pyarrow_when_it_is_needed() -> None:
    script = """
from specclip_search.cli.quick_start import keep_pandas_out
keep_pandas_out()
import sys, pyarrow as pa
table = pa.table({"id": [2**62 + 1, None], "x": [1.5, None], "name": ["a", None]})
assert "pandas" not in sys.modules
from specclip_search.tables.provenance import to_frame
frame = to_frame(table)
assert frame["id"].tolist()[0] == 2**62 + 1, frame
again = pa.Table.from_pandas(frame, preserve_index=False)
assert again["x"].null_count == 1 and pa.array(frame["x"]).null_count == 1
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_tables_and_frames_hold_the_same(searched: Any) -> None:
    from specclip_search import similar
    from specclip_search.queries.similar.similar import similar_table
    from specclip_search.tables.write import as_arrow

    key = f"{GAIA_XP.prefix}:{searched.source_id[3]}"
    frame, table = similar(searched.atlas, key, k=7), similar_table(searched.atlas, key, k=7)
    assert isinstance(frame, pd.DataFrame)
    assert isinstance(table, pa.Table)
    by_frame, by_table = (as_arrow(rows) for rows in (frame, table))
    assert by_frame.to_pylist() == by_table.to_pylist()
    assert by_frame.schema.metadata == by_table.schema.metadata
    assert [field.metadata for field in by_frame.schema] == [field.metadata for field in by_table.schema]


def options(
    names: Annotated[list[str], typer.Argument()],
    k: Annotated[int, typer.Option("-k", min=1, max=100)] = 20,
    share: Annotated[float | None, typer.Option("--share", min=0.5)] = None,
    text: Annotated[str | None, typer.Option("--text")] = None,
    there: Annotated[str | None, typer.Option("--there", envvar="QUICK_START_THERE")] = None,
    each: Annotated[list[str] | None, typer.Option("--each")] = None,
    deep: Annotated[bool, typer.Option("--deep")] = False,
) -> None:
    typer.echo(repr((names, k, share, text, there, each, deep)))


@pytest.mark.parametrize(
    "words",
    [
        ["a", "b"], ["a", "-k", "007"], ["a", "-k", "+5"], ["a", "-k", "0"], ["a", "-k", "101"], ["a", "-k", "x"],
        ["a", "-k", "1e1"], ["a", "-k", "1_0"], ["a", "-k", " 5 "], ["a", "-k", "٥"], ["a", "-k", "5.0"],
        ["a", "--share", "0.75"], ["a", "--share", "1"], ["a", "--share", ".5"], ["a", "--share", "0.4"],
        ["a", "--share", "nan"], ["a", "--share", "1e400"], ["a", "--text", ""], ["a", "--text", "-1"],
        ["a", "--each", "x", "--each", "y"], ["a", "--deep"], ["-h"], [], ["a", "--nothing"],
    ],
)  # fmt: skip
def test_options_are_read_as_typer_reads_them(words: list[str]) -> None:
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
                      context_settings={"help_option_names": ["-h", "--help"]})
    app.command()(options)
    said = []
    for prepare in (lambda command: command, read_plainly):
        command = prepare(typer.main.get_command(app))
        done = CliRunner().invoke(app, words) if command is None else _invoked(command, words)
        said.append(done)
    assert said[0] == said[1]


def _invoked(command: Any, words: list[str]) -> tuple[int, str]:
    import contextlib
    import io
    import os

    out = io.StringIO()
    os.environ["QUICK_START_THERE"] = "here"
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), pytest.raises(SystemExit) as stop:
        command(words, prog_name="quick")
    return int(stop.value.code or 0), out.getvalue()
