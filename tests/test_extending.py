"""The recipes of docs/extending.md, done as they say; the survey is `test_third_instrument.py`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import typer

from specclip_search import emp_candidates
from specclip_search.atlas import Atlas
from specclip_search.cli import main
from specclip_search.cli.main import run
from specclip_search.errors import QueryError
from specclip_search.queries.space.space import open_space
from specclip_search.queries.sql import ask, sandbox_rules
from specclip_search.queries.sql.sandbox import run_untrusted
from specclip_search.queries.translation.translate import translate
from specclip_search.surveys import XP
from specclip_search.tables import write, write_rows
from specclip_search.tables.provenance import stamp
from specclip_search.tables.write import FORMATS, Format, register_format

from .queries.toy_survey import Survey, make_survey

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    made = make_survey(tmp_path_factory.mktemp("extending") / "atlas", stars=200, emission=3, shards=2)
    made.embed()
    translate(made.atlas, made.model)
    return made


def ran(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        run(list(arguments))
    return int(stop.value.code or 0)


def write_lines(table: pa.Table, stream: TextIO) -> None:
    for row in table.to_pylist():
        stream.write(" | ".join(str(value) for value in row.values()) + "\n")


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Format:
    monkeypatch.setattr(write, "FORMATS", FORMATS.copy())
    return register_format(Format("lines", (".lines",), write_lines))


def test_a_format(lines: Format, survey: Survey, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.lines"
    write_rows(pa.table({"source_id": [2**53 + 1], "name": ["a"]}), output=file)
    assert file.read_text() == f"{2**53 + 1} | a\n"
    assert ran("sql", "SELECT 1 AS a, 2 AS b", "-a", str(survey.atlas.path), "--format", lines.name) == 0
    assert capsys.readouterr().out == "1 | 2\n"
    with pytest.raises(QueryError, match=r"'lines' is registered already"):
        register_format(lines)
    with pytest.raises(QueryError, match=r"suffix is: \.csv"):
        register_format(Format("other", (".csv",), write_lines))


def add_twice(connection: Any, atlas: Atlas, files: bool) -> None:
    connection.duckdb.execute("CREATE OR REPLACE MACRO twice(x) AS 2 * x")


def test_a_function_of_sql(survey: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(QueryError, match="twice"):
        survey.atlas.sql("SELECT twice(21)")
    monkeypatch.setattr(ask, "SQL_FUNCTIONS", (*ask.SQL_FUNCTIONS, add_twice))
    assert survey.atlas.sql("SELECT twice(21)").fetchall() == [(42,)]
    # untrusted SQL may call it only when its name is in the list
    assert "twice" not in sandbox_rules.OWN_FUNCTIONS
    with pytest.raises(QueryError, match="twice"):
        run_untrusted(survey.atlas, "SELECT twice(21)")


def brightest(atlas: Atlas, top: int = 3) -> pd.DataFrame:
    """The spectra of largest S/N, as a query of somebody else."""
    space = open_space(atlas)
    frame = atlas.sql(f"SELECT spec_id, snr FROM spectra_{XP} ORDER BY snr DESC LIMIT {top}").df()
    return stamp(frame, "brightest", {"top": top}, **space.origin())


def test_a_query_with_its_command(survey: Survey, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from specclip_search.cli.reports import deliver

    command = ModuleType("specclip_search.cli.commands.brightest")
    command.app = typer.Typer(add_completion=False)  # type: ignore[attr-defined]

    @command.app.command()  # type: ignore[attr-defined]
    def show(atlas: Path = typer.Option(..., "--atlas"), output: Path = typer.Option(..., "--output")) -> None:  # noqa: B008
        write_rows(brightest(Atlas(atlas)), output=output)

    assert callable(deliver)
    monkeypatch.setitem(sys.modules, command.__name__, command)
    monkeypatch.setitem(main.COMMANDS, "brightest", "List the spectra of largest S/N.")
    file = tmp_path / "bright.csv"
    assert ran("brightest", "--atlas", str(survey.atlas.path), "--output", str(file)) == 0
    found = pd.read_csv(file)
    assert len(found) == 3
    assert found.snr.is_monotonic_decreasing
    about = json.loads(Path(f"{file}.about.json").read_text())
    assert "sha256:toy" in json.dumps(about)


SCORE = '''
import sys
from specclip_search import Atlas, anomalies
from specclip_search.queries.anomalies import global_quantities
assert global_quantities.__file__.startswith(sys.argv[2]), global_quantities.__file__
found = anomalies(Atlas(sys.argv[1]), top=200, by="loudness")
assert found.z_loudness.is_monotonic_decreasing and found.z_loudness.std() > 0.1
print(found.lrs_spec_id.iloc[0])
'''


def changed_package(folder: Path, changes: tuple[tuple[str, str, str], ...]) -> Path:
    """A copy of the package in which some text of files of `queries/` is replaced."""
    package = folder / "package" / "specclip_search"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "specclip_search", package, ignore=ignore)
    for name in ("queries", "indexing", "training"):
        shutil.copytree(ROOT / name, package / name, ignore=ignore)
    for module, old, new in changes:
        file = package / "queries" / module
        text = file.read_text()
        assert text.count(old) == 1, (module, old)
        file.write_text(text.replace(old, new))
    return package


def asked(package: Path, code: str, *arguments: Any) -> str:
    command = [sys.executable, "-P", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False,
                          env=os.environ | {"PYTHONPATH": str(package.parent)})
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_a_score_of_anomalies(survey: Survey, tmp_path: Path) -> None:
    """By the recipe: its name, its description and its values, added in a copy of the package."""
    last = "    yield from _from_vectors(space, pairs, learn)\n"
    changes = (
        ("anomalies/global_quantities.py", '"labels", "identity",\n', '"labels", "identity", "loudness",\n'),
        ("anomalies/global_quantities.py", last,
         '    yield "loudness", np.abs(pairs.values["lrs_free_peak"])\n' + last),
        ("anomalies/listing.py", "DESCRIPTIONS = {\n",
         'DESCRIPTIONS = {\n    "loudness": "largest filter of the LRS residual",\n'),
    )
    package = changed_package(tmp_path, changes)
    atlas = shutil.copytree(survey.atlas.path, tmp_path / "atlas")
    first = int(asked(package, SCORE, atlas, package))
    assert first in set(survey.obsid[survey.planted["emission"]].tolist())


EVIDENCE = """
import sys
from specclip_search import Atlas, emp_candidates
from specclip_search.queries.emp import scores
assert scores.__file__.startswith(sys.argv[2]), scores.__file__
found = emp_candidates(Atlas(sys.argv[1]), below=-2.0, top=200, builtin_seeds=False)
found = found.set_index("source_id").loc[int(sys.argv[3])]
assert found.p_rumour > 0.999 and abs(found.rumour_feh + 3) < 1e-6, found
print(found["rank"], found.probability)
"""


def test_evidence_of_low_metallicity(survey: Survey, tmp_path: Path) -> None:
    """By the recipe: a source that says of one star of solar metallicity that it is metal-poor."""
    star = survey.source_id[np.argmax(survey.hidden[:, 1])]
    changes = (
        ("emp/combination.py", '"xp_network", "neighbours")', '"xp_network", "neighbours", "rumour")'),
        ("emp/schema.py", '    "p_neighbours":', '    "p_rumour": "probability by rumour alone",\n    "p_neighbours":'),
        ("emp/schema.py", '    "near_feh":',
         '    "rumour_feh": ("[Fe/H] by rumour", "dex", FEH_UCD),\n'
         '    "rumour_feh_err": ("1 sigma error of rumour_feh", "dex", FEH_UCD),\n    "near_feh":'),
        ("emp/scores.py", "np.full((1, *estimated.shape[1:]), np.nan)", "np.full((2, *estimated.shape[1:]), np.nan)"),
        ("emp/scores.py", '    names = ("lrs_est", "xp_est", "xp_net", "near")\n',
         f"    said = stars.source_id == {star}\n    odds[4] = np.where(said, 9.0, np.nan)\n"
         '    parts |= {"rumour_feh": np.where(said, -3.0, np.nan), "rumour_feh_err": np.where(said, 0.3, np.nan)}\n'
         '    names = ("lrs_est", "xp_est", "xp_net", "near", "rumour")\n'),
    )
    package = changed_package(tmp_path, changes)
    atlas = shutil.copytree(survey.atlas.path, tmp_path / "atlas")
    without = emp_candidates(survey.atlas, below=-2.0, top=200, builtin_seeds=False).set_index("source_id").loc[star]
    rank, probability = asked(package, EVIDENCE, atlas, package, star).split()
    # a source without learned weight is averaged with the others
    assert int(rank) < without["rank"] / 2
    assert float(probability) > 10 * without.probability
