"""The doctor finds what is wrong, and says what to do."""

import json
import subprocess
import sys

import pyarrow as pa
import pytest

from specclip_search.atlas import Atlas
from specclip_search.cli import doctor


def problems(findings):
    return [f"{f.subject}: {f.finding}" for f in findings if f.status == "problem"]


def test_two_builds_of_faiss_are_a_problem(monkeypatch):
    monkeypatch.setattr(doctor, "installed_version", lambda name: "1.15" if name.startswith("faiss") else None)
    found = doctor._examine_faiss()
    assert found.status == "problem"
    assert "overwrite each other" in found.finding
    monkeypatch.setattr(doctor, "installed_version", lambda name: None)
    assert "specclip-search[cpu]" in doctor._examine_faiss().finding


def test_a_damaged_shard_is_found_only_by_a_deep_look(tmp_path):
    atlas = Atlas.create(tmp_path / "a")
    stage = atlas.catalog("survey")
    table = pa.table({"source_id": [2**60 + 1, 5]})
    with stage.lock():
        part = stage.write(0, table, schema=table.schema, inputs="x")
    (stage.folder / ".writing-1-part-000001.parquet").write_text("half")
    assert problems(doctor.examine_atlas(atlas.path)) == []
    assert any("temporary files" in f.finding for f in doctor.examine_atlas(atlas.path))
    assert any(f.finding == "2 rows in 1 shards" for f in doctor.examine_atlas(atlas.path))
    part.path.write_bytes(part.path.read_bytes()[:-1] + b"x")
    assert "part-000000.parquet is damaged" in problems(doctor.examine_atlas(atlas.path, deep=True))[0]


def test_a_missing_atlas_is_reported_not_raised(tmp_path):
    assert "No atlas at" in problems(doctor.examine_atlas(tmp_path / "none"))[0]


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_the_command_prints_findings_in_any_format(kind, tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from specclip_search.cli.main import run; run()",
            "doctor",
            "-f",
            kind,
            "--atlas",
            str(Atlas.create(tmp_path / "a").path),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if kind == "json":
        rows = json.loads(done.stdout)
        assert {"python", "faiss", "atlas"} <= {row["subject"] for row in rows}
    else:
        assert done.stdout.splitlines()[0] == "status,subject,finding"
