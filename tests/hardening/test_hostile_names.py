"""An atlas made by someone else: none of its names or texts is executed, and none acts on a terminal."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from specclip_search.atlas import Atlas
from specclip_search.catalogs.ingest import ingest_catalog_table
from specclip_search.cli.main import run
from specclip_search.errors import SpecclipError
from specclip_search.queries.sql.ask import connect
from specclip_search.queries.sql.sandbox import run_untrusted
from specclip_search.queries.views.parquet import identifier, quoted
from specclip_search.tables import write_rows

from ..queries.small_atlas import fill, star

ANSI = "\x1b]0;owned\x07\x1b[31m"


def payloads(target: Path) -> list[str]:
    """Names that end each kind of literal or identifier and begin a statement that writes `target`."""
    copy = f"COPY (SELECT 1) TO '{target}'"
    return [
        f"teff\" IS 'a'; {copy}; COMMENT ON COLUMN survey.\"teff",
        f"x'; {copy}; --",
        f'x"; {copy}; --',
        f"x\"); {copy}; CREATE OR REPLACE VIEW y AS SELECT (1 AS \"x",
        f'x" INTEGER)[]); {copy}; --',
        f"x*/; {copy}; /*",
        f"x$$; {copy}; $$",
        f"x\\'; {copy}; --",
        f"${{x}}; {copy}",
        f"{ANSI}{copy}",
    ]


def hostile_table(target: Path) -> pa.Table:
    """Every payload as a column's name, as a unit and as a description; some as nested fields and values."""
    bad = payloads(target)
    fields = [pa.field("source_id", pa.int64()), pa.field("teff", pa.float64(), metadata={"unit": bad[1]})]
    columns: list[Any] = [[star(0), star(1)], [5000.0, 6000.0]]
    for text in bad:
        fields.append(pa.field(text, pa.float64(), metadata={"unit": text, "description": text, text: text}))
        columns.append([1.0, 2.0])
    inner = pa.struct([pa.field(text, pa.int32()) for text in bad])
    fields.append(pa.field("nested", inner, metadata={b"\xff\xfe": b"\xff", "description": b"\xff" + bad[0].encode()}))
    columns.append([None, dict.fromkeys(bad, 1)])
    fields.append(pa.field("words", pa.list_(pa.string())))
    columns.append([bad[:2], [ANSI]])
    fields.append(pa.field("vector", pa.list_(pa.float32(), 2)))
    columns.append([[1.0, 2.0], [3.0, 4.0]])
    fields.append(pa.field(f"{bad[0]} array", pa.list_(pa.float32(), 2)))
    columns.append([[1.0, 2.0], [3.0, 4.0]])
    arrays = [pa.array(values, field.type) for values, field in zip(columns, fields, strict=True)]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    # a plain name without blanks, so that nothing but quoting keeps the file from being written
    return tmp_path / "written-by-an-atlas"


@pytest.fixture
def hostile(tmp_path: Path, target: Path) -> Atlas:
    """A small atlas whose catalogue, results, folders and releases all have names that are SQL."""
    atlas = Atlas.create(tmp_path / "atlas")
    fill(atlas)
    plain = pa.table({"source_id": [star(0), star(1)], "teff": [5000.0, 6000.0]})
    ingest_catalog_table(atlas, "survey", plain)
    stage = atlas.catalog("survey")
    table = hostile_table(target)
    with stage.lock():
        part = stage.write(0, table, schema=table.schema, inputs="hostile")
    manifest = json.loads((stage.folder / "catalog.json").read_text(encoding="utf-8"))
    manifest["parts"] = [part.digest]
    # an attacker can leave out what guards against accidents alone
    del manifest["check"]
    (stage.folder / "catalog.json").write_text(json.dumps(manifest), encoding="utf-8")
    results = atlas.results("anomalies")
    scores = table.append_column("score", pa.array([1.0, 2.0]))
    with results.lock():
        results.write(0, scores, schema=scores.schema, inputs="hostile")
    bad = payloads(target)
    spectra = atlas.spectra("gaia_xp")
    whole = spectra.read()
    releases = pa.array([bad[i % len(bad)] for i in range(whole.num_rows)])
    whole = whole.set_column(whole.column_names.index("release"), whole.schema.field("release"), releases)
    with spectra.lock():
        spectra.write(0, whole, schema=whole.schema, inputs="hostile")
    for kind in ("spectra", "rejected", "results", "catalogs", "models", "vectors"):
        for text in bad:
            folder = atlas.path / kind / text.replace("/", "\N{DIVISION SLASH}")[:200]
            folder.mkdir(parents=True)
            for file in stage.folder.glob("*.*"):
                (folder / file.name).write_bytes(file.read_bytes())
    return Atlas(atlas.path)


STATEMENTS = (
    "SHOW TABLES",
    "DESCRIBE survey",
    "DESCRIBE anomalies",
    "SELECT * FROM survey",
    "SELECT * FROM anomalies",
    "SELECT * FROM stars",
    "SELECT * FROM spectra",
    "SELECT * FROM spectra_gaia_xp",
    f"SELECT * FROM survey_of({star(1)})",
    "SELECT count(*) AS n FROM cone(0, 0, 180)",
)


@pytest.mark.parametrize("read_only", [False, True])
def test_no_name_of_an_atlas_is_executed(hostile: Atlas, target: Path, read_only: bool) -> None:
    with connect(hostile, read_only=read_only) as connection:
        for statement in STATEMENTS:
            connection.run(statement).arrow()
        columns = connection.run("SELECT * FROM survey").arrow().column_names
        assert set(payloads(target)) <= set(columns), "every column is there under its own name"
        connection.prepare("SHOW TABLES")
        known = dict(connection.duckdb.execute("SELECT column_name, comment FROM duckdb_columns()").fetchall())
        assert known[payloads(target)[0]] == f"{payloads(target)[0]} [{payloads(target)[0]}]"
        named = connection.run(f"SELECT {identifier(payloads(target)[0])} AS v FROM survey ORDER BY 1").arrow()
        assert named["v"].to_pylist() == [1.0, 2.0]
    assert not target.exists()
    assert sorted(path.name for path in target.parent.iterdir()) == ["atlas"]


def test_no_name_of_an_atlas_is_executed_for_a_stranger(hostile: Atlas, target: Path) -> None:
    for statement in STATEMENTS:
        if "survey_of" in statement:
            continue
        assert run_untrusted(hostile, statement).table.num_rows > 0
    assert not target.exists()
    assert sorted(path.name for path in target.parent.iterdir()) == ["atlas"]


def test_quoting_gives_back_what_it_was_given(target: Path) -> None:
    with duckdb.connect() as connection:
        for text in [*payloads(target), "", "'", '"', "''", "\\", "\n", "é", "\N{PILE OF POO}"]:
            assert connection.execute(f"SELECT {quoted(text)}").fetchall() == [(text,)]
            if text:
                assert connection.sql(f"SELECT 1 AS {identifier(text)}").columns == [text]
    for name in ("", "a\0b"):
        with pytest.raises(SpecclipError, match="SQL cannot name"):
            identifier(name)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


OWN = re.compile(r"\x1b\[[01]m")


@pytest.mark.parametrize("format", ["table", "csv", "json"])
def test_a_terminal_gets_no_control_characters(target: Path, format: str) -> None:
    screen = Terminal()
    write_rows(hostile_table(target), format, stream=screen)
    text = OWN.sub("", screen.getvalue()) if format == "table" else screen.getvalue()
    assert not [c for c in text if not c.isprintable() and c != "\n"]
    if format == "csv":
        pipe = io.StringIO()
        write_rows(hostile_table(target), format, stream=pipe)
        assert ANSI in pipe.getvalue(), "a pipe gets every character"


def test_commands_and_messages_are_printable(
    hostile: Atlas, target: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(target.parent)
    where = ["--atlas", str(hostile.path)]
    for words in (
        ["sql", "SELECT * FROM survey", *where],
        ["sql", f"SELECT {identifier(ANSI)} FROM survey", *where],
        ["sql", "SELECT * FROM survey", "--sandbox", *where],
        ["doctor", *where],
        ["model", "list", *where],
        ["similar", f"gaia:{star(0)}@{ANSI}", *where],
        ["ingest", "catalog", f"{ANSI}.csv", *where],
        ["export", "survey", "--output", "out.csv", *where],
    ):
        with pytest.raises(SystemExit):
            run(words)
        told = capsys.readouterr()
        assert not [c for c in told.out + told.err if not c.isprintable() and c not in "\n\t"], words
    assert not target.exists()
