"""An atlas that was copied half-way: every query names what is missing, and answers from the rest only when told to."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from specclip_search.atlas import Atlas
from specclip_search.atlas import stage as stage_module
from specclip_search.atlas.manifest import MANIFEST, read_manifest
from specclip_search.catalogs.ingest import ingest_catalog_table
from specclip_search.cli.doctor import examine_atlas, forget_missing
from specclip_search.cli.main import run
from specclip_search.errors import AtlasError, SpecclipError
from specclip_search.queries.anomalies.anomalies import anomalies
from specclip_search.queries.emp.candidates import emp_candidates
from specclip_search.queries.similar.similar import similar
from specclip_search.queries.sql.sandbox import run_untrusted

from ..queries.toy_survey import FIRST_SOURCE

TABLE = pa.table({"source_id": pa.array([1, 2], pa.int64()), "teff": [5000.0, 6000.0]})


def write(stage: Any, number: int, inputs: str = "x") -> None:
    stage.write(number, TABLE, schema=TABLE.schema, inputs=inputs)


@pytest.fixture
def stage(tmp_path: Path) -> Any:
    return Atlas.create(tmp_path / "small").results("things")


def test_the_manifest_follows_every_write_and_removal(stage: Any) -> None:
    with stage.lock():
        for number in (0, 1, 3, 2, 7):
            write(stage, number)
        assert not read_manifest(stage.folder).settled
        stage.remove(1)
        write(stage, 2, "other inputs")
    kept = read_manifest(stage.folder)
    assert (kept.numbers, kept.shards, kept.rows, kept.settled) == (((0, 0), (2, 3), (7, 7)), 4, 8, True)
    assert kept.agrees(stage.parts())
    before = (stage.folder / MANIFEST).stat().st_ino
    with stage.lock():
        pass
    assert (stage.folder / MANIFEST).stat().st_ino == before, "a run that writes nothing replaces nothing"


def test_a_killed_writer_leaves_a_stage_that_reads(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with stage.lock():
        write(stage, 0)

    class Killed(BaseException):
        pass

    def die(*_: Any) -> None:
        raise Killed

    # killed between the sidecar and the manifest: what a process's end leaves, without its clean-up
    monkeypatch.setattr("specclip_search.atlas.stage.change", die)
    with pytest.raises(Killed):
        write(stage, 1)
    monkeypatch.undo()
    monkeypatch.setattr("specclip_search.atlas.stage.settle", lambda *_, **__: None)
    with stage.lock():
        write(stage, 2)
    monkeypatch.undo()
    assert len(stage.parts()) == 3
    with stage.lock():
        pass
    assert read_manifest(stage.folder).agrees(stage.parts())
    assert read_manifest(stage.folder).rows == 6


def test_an_atlas_of_an_older_version_opens_and_gets_its_manifest_at_the_next_write(stage: Any) -> None:
    with stage.lock():
        write(stage, 0)
        write(stage, 1)
    (stage.folder / MANIFEST).unlink()
    assert stage.read().num_rows == 4
    notes = [f.finding for f in examine_atlas(stage.folder.parents[1]) if f.status == "note"]
    assert any("no manifest.json" in text for text in notes)
    with stage.lock():
        pass
    assert read_manifest(stage.folder).rows == 4


def test_shards_of_two_states_are_told_apart(stage: Any, tmp_path: Path) -> None:
    with stage.lock():
        write(stage, 0)
        write(stage, 1)
    shutil.copytree(stage.folder, tmp_path / "earlier")
    with stage.lock():
        write(stage, 1, "later")
    for name in ("part-000001.parquet", "part-000001.json"):
        shutil.copy(tmp_path / "earlier" / name, stage.folder / name)
    with pytest.raises(AtlasError, match="two states of the atlas are mixed"):
        stage.parts()


def test_a_missing_shard_is_made_again_or_given_up(stage: Any) -> None:
    with stage.lock():
        for number in range(3):
            write(stage, number)
    for path in stage.folder.glob("part-000001.*"):
        path.unlink()
    with pytest.raises(AtlasError, match=r"Expected 3 shards .* found 2: part-000001 missing") as refused:
        stage.paths()
    assert "--allow-partial" in refused.value.hint


    def mend() -> None:
        with stage.lock():
            assert next(stage.free_numbers()) == 1
            write(stage, 1)

    with pytest.warns(UserWarning, match="part-000001 missing; what this run can make"):
        mend()
    assert stage.rows == 6
    for path in stage.folder.glob("part-000002.*"):
        path.unlink()
    assert forget_missing(stage.folder.parents[1])[0].finding == "given up: part-000002"
    assert stage.rows == 4


def test_readers_are_not_disturbed_by_a_writer(stage: Any) -> None:
    """A shard that is being replaced is not missing."""
    with stage.lock():
        for number in range(3):
            write(stage, number)
    reader = Atlas(stage.folder.parents[1]).results("things")
    # readers of this process would count as the writer's own
    code = f"""
import sys
from specclip_search.atlas import Atlas
from specclip_search.atlas import stage as stage_module
stage = Atlas({str(stage.folder.parents[1])!r}).results("things")
print("ready", flush=True)
for _ in range(60):
    assert len(stage.parts()) >= 3
    assert len(stage.paths()) >= 3
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "ready\n"
        with stage.lock():
            turn = 0
            while other.poll() is None:
                turn += 1
                write(stage, turn % 3, f"turn {turn}")
                # a run spends most of its time on a shard's content, not on its files
                time.sleep(0.05)
    assert other.returncode == 0
    assert turn > 0
    assert len(reader.parts()) == 3


def lose(folder: Path, number: int = 1) -> None:
    for path in folder.glob(f"part-{number:06d}.*"):
        path.unlink()


STAGES = {
    "spectra/gaia_xp": ("spectra", "sandbox"),
    "spectra/lamost_lrs": ("stars",),
    "vectors/toy/gaia_xp": ("similar", "vectors", "anomalies", "emp"),
    "vectors/toy/lamost_lrs": ("anomalies",),
    "translations/toy": ("translations", "anomalies"),
    "results/anomalies": ("stars",),
}


def ask(atlas: Atlas, what: str) -> Any:
    key = f"gaia:{FIRST_SOURCE}"
    queries: dict[str, Callable[[], Any]] = {
        "spectra": lambda: atlas.sql("SELECT * FROM spectra WHERE modality = 'gaia_xp'").arrow(),
        "stars": lambda: atlas.sql("SELECT * FROM stars").arrow(),
        "vectors": lambda: atlas.sql("SELECT * FROM vectors_gaia_xp").arrow(),
        "translations": lambda: atlas.sql("SELECT * FROM translations").arrow(),
        "sandbox": lambda: run_untrusted(atlas, "SELECT count(*) FROM spectra").table,
        "similar": lambda: similar(atlas, key, 5),
        "anomalies": lambda: anomalies(atlas, top=5),
        "emp": lambda: emp_candidates(atlas, top=5, builtin_seeds=False),
    }
    return queries[what]()


@pytest.mark.parametrize("lost", STAGES)
def test_every_query_names_a_missing_shard(copied: Atlas, lost: str) -> None:
    lose(copied.path / lost)
    for what in STAGES[lost]:
        with pytest.raises(SpecclipError, match=r"Expected 3 shards .* found 2: part-000001 missing"):
            ask(Atlas(copied.path), what)
    found = [f for f in examine_atlas(copied.path) if f.status == "problem"]
    assert [f.subject for f in found] == [lost]
    assert "part-000001 missing" in found[0].finding


def test_a_partial_answer_says_what_it_is_without(copied: Atlas, whole: Any) -> None:
    lose(copied.path / "spectra/gaia_xp")
    partial = Atlas(copied.path, allow_partial=True)
    with pytest.warns(UserWarning, match=r"gaia_xp spectra: 1 of 3 shards are missing \(part-000001\)"):
        rows = ask(partial, "spectra")
    assert 0 < rows.num_rows < ask(whole.atlas, "vectors").num_rows
    assert b"part-000001" in rows.schema.metadata[b"specclip_search"]


def test_the_option_is_one_for_all_commands(copied: Atlas, capsys: pytest.CaptureFixture[str]) -> None:
    lose(copied.path / "spectra/gaia_xp")
    sql = ["sql", "SELECT count(*) AS n FROM spectra_gaia_xp", "-f", "csv", "--atlas", str(copied.path)]
    for words, code in ((sql, 2), (["--allow-partial", *sql], 0), ([*sql, "--allow-partial"], 0), (sql, 2)):
        with pytest.raises(SystemExit) as ended:
            run(words)
        told = capsys.readouterr()
        assert ended.value.code == code, told.err
        assert "part-000001" in told.err
        assert told.out == ("n\n160\n" if code == 0 else "")


def test_a_half_copied_atlas_is_never_answered_from(whole: Any, tmp_path: Path) -> None:
    """Files in the order in which `cp -r` or `rsync` takes them, stopped at many places."""
    source = whole.atlas.path
    files = sorted(p.relative_to(source) for p in source.rglob("*") if p.is_file() and not p.name.startswith("."))
    expected = ask(whole.atlas, "stars").num_rows
    for count in range(1, len(files), max(1, len(files) // 9)):
        target = tmp_path / str(count)
        for name in files[:count]:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, target / name)
        if not (target / "atlas.toml").exists():
            continue
        atlas = Atlas(target)
        try:
            answered = ask(atlas, "stars").num_rows
        except SpecclipError:
            continue
        assert answered == expected or any(f.status == "problem" for f in examine_atlas(target))


def test_a_damaged_manifest_is_named(stage: Any) -> None:
    with stage.lock():
        write(stage, 0)
    path = stage.folder / MANIFEST
    content = json.loads(path.read_text(encoding="utf-8"))
    for damaged in ("", "[]", "{", json.dumps(content | {"numbers": [[5, 2]]}), json.dumps(content | {"rows": "x"})):
        path.write_text(damaged, encoding="utf-8")
        with pytest.raises(AtlasError, match=MANIFEST):
            stage.paths()


def test_a_manifest_of_ten_thousand_shards_is_small(tmp_path: Path) -> None:
    from specclip_search.atlas.manifest import counted, write_manifest
    from specclip_search.atlas.stage import Part

    parts = [Part(n, tmp_path / f"part-{n:06d}.parquet", 1000, f"sha256:{n:064x}", "inputs") for n in range(10_000)]
    write_manifest(tmp_path, counted(parts))
    assert os.path.getsize(tmp_path / MANIFEST) < 300
    kept = read_manifest(tmp_path)
    assert (kept.shards, kept.rows) == (10_000, 10_000_000)
    assert kept.missing(range(9_999)) == [9_999]
    assert kept.agrees(parts)
    assert not kept.agrees(parts[1:])


def test_a_catalogue_is_missed_too(copied: Atlas) -> None:
    ingest_catalog_table(copied, "few", TABLE)
    lose(copied.catalog("few").folder, 0)
    with pytest.raises(AtlasError, match="part-000000 missing"):
        copied.sql("SELECT * FROM few").arrow()


def test_a_stage_is_looked_at_again_only_where_it_changed(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with stage.lock():
        for number in range(3):
            write(stage, number)
    looks: list[Path] = []
    listed = stage_module.listed
    monkeypatch.setattr(stage_module, "listed", lambda folder: (looks.append(folder), listed(folder))[1])
    monkeypatch.setattr(stage_module, "_TICK_NS", 0)
    first = stage.digest
    for _ in range(5):
        assert (stage.digest, len(stage.paths()), len(stage.parts()), stage.rows) == (first, 3, 3, 6)
    assert len(looks) == 1
    with stage.lock():
        write(stage, 1, "other inputs")
    assert stage.parts()[1].inputs == "other inputs"
    manifest = stage.folder / MANIFEST
    good = manifest.read_text(encoding="utf-8")
    manifest.write_text(good.replace(" 6", " 7"), encoding="utf-8")
    with pytest.raises(AtlasError, match="mixed"):
        stage.parts()
    manifest.write_text(good, encoding="utf-8")
    assert stage.rows == 6
    (stage.folder / "part-000002.parquet").unlink()
    with pytest.raises(AtlasError, match="part-000002 missing"):
        stage.paths()


def test_a_folder_that_changed_just_now_is_not_taken_for_known(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with stage.lock():
        write(stage, 0)
    monkeypatch.setattr(stage_module, "_TICK_NS", 10**18)
    assert stage_module.stage_state(stage.folder) is None
    monkeypatch.setattr(stage_module, "_TICK_NS", 0)
    assert stage_module.stage_state(stage.folder) is not None
    # a clock that knows whole seconds alone
    os.utime(stage.folder, (time.time(), int(time.time())))
    assert stage_module.stage_state(stage.folder) is None


def test_only_statements_that_read_a_stage_are_refused(copied: Atlas, whole: Any) -> None:
    lose(copied.path / "spectra/lamost_lrs")
    for what in ("vectors", "translations"):
        answered, right = (ask(atlas, what).sort_by("source_id")["source_id"] for atlas in (copied, whole.atlas))
        assert answered.equals(right)
    assert run_untrusted(copied, "SELECT count(*) AS n FROM translations").table["n"].to_pylist() == [
        whole.atlas.sql("SELECT count(*) FROM translations").fetchall()[0][0]
    ]
    tables = copied.sql("SHOW TABLES").df().set_index("name")["meaning"]
    assert set(tables.index) == set(whole.atlas.sql("SHOW TABLES").df()["name"])
    assert "part-000001 missing" in tables["stars"]
    assert "part-000001 missing" in tables["spectra_lamost_lrs"]
    assert "missing" not in tables["vectors_gaia_xp"]
    for statement in ("SELECT * FROM spectra_lamost_lrs", "DESCRIBE stars", "SELECT * FROM query_table('stars')"):
        with pytest.raises(SpecclipError, match="part-000001 missing") as refused:
            copied.sql(statement).arrow()
        assert "--allow-partial" in refused.value.hint + refused.value.message


WHOLE_STAGES = {
    "spectra/gaia_xp": ("spectra", "stars"),
    "spectra/lamost_lrs": ("spectra", "stars", "anomalies"),
    "vectors/toy/gaia_xp": ("similar", "vectors", "anomalies", "emp"),
    "vectors/toy/lamost_lrs": ("anomalies", "similar"),
    "translations/toy": ("translations", "anomalies"),
    "results/anomalies": ("stars",),
    "results/emp": ("stars",),
}


@pytest.mark.parametrize("lost", WHOLE_STAGES)
def test_a_whole_stage_is_missed(copied: Atlas, lost: str) -> None:
    shutil.rmtree(copied.path / lost)
    for what in WHOLE_STAGES[lost]:
        with pytest.raises(SpecclipError, match=r"which atlas\.toml names; found nothing there") as refused:
            ask(Atlas(copied.path), what)
        assert lost in refused.value.message
    assert lost in {f.subject for f in examine_atlas(copied.path) if f.status == "problem"}
    partial = Atlas(copied.path, allow_partial=True)
    if lost.startswith("results"):
        with pytest.warns(UserWarning, match="missing as a whole"):
            rows = ask(partial, "stars")
        assert b"all shards" in rows.schema.metadata[b"specclip_search"]
    assert "given up: all of it" in {f.finding for f in forget_missing(copied.path) if f.subject == lost}
    assert not [f for f in examine_atlas(copied.path) if "names; found nothing" in f.finding]
    ask(Atlas(copied.path), "stars")


def test_a_search_answers_from_the_index_where_shards_of_vectors_are_missing(copied: Atlas, whole: Any) -> None:
    lose(copied.path / "vectors/toy/gaia_xp", 2)
    with pytest.raises(SpecclipError, match="part-000002 missing"):
        ask(copied, "similar")
    with pytest.warns(UserWarning, match=r"gaia_xp vectors of 'toy': 1 of 3 shards are missing \(part-000002\)"):
        found = ask(partial := Atlas(copied.path, allow_partial=True), "similar")
    assert found.equals(ask(whole.atlas, "similar"))
    assert found.attrs["partial"] == {"gaia_xp vectors of 'toy'": "part-000002"}
    last = whole.atlas.sql("SELECT max_by(spec_id, row) FROM (SELECT spec_id, file_row_number AS row FROM "
                           f"read_parquet('{whole.atlas.vectors('toy', 'gaia_xp').paths()[2]}'))").fetchall()[0][0]
    with pytest.raises(SpecclipError, match="part-000002"):
        similar(partial, f"gaia:{last}", 5)


def test_a_marker_that_was_changed_says_so(stage: Any) -> None:
    with stage.lock():
        write(stage, 0)
    path = stage.folder.parents[1] / "atlas.toml"
    text = path.read_text(encoding="utf-8")
    assert 'stages = [\n    "results/things",\n]' in text
    path.write_text(text.replace("things", "thongs"), encoding="utf-8")
    with pytest.raises(AtlasError, match=r"atlas\.toml is damaged") as refused:
        Atlas(path.parent)
    assert "remove its line `check`" in refused.value.hint
    path.write_text("".join(line for line in text.splitlines(keepends=True) if "check" not in line), encoding="utf-8")
    assert Atlas(path.parent).result_names() == ["things"]
