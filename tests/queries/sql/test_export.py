"""Whole tables written by `export`, matches by `crossmatch`, and relations as other libraries' frames."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table

from specclip_search.atlas import Atlas
from specclip_search.catalogs.ingest import ingest_catalog_table
from specclip_search.cli.main import run
from specclip_search.errors import QueryError
from specclip_search.queries.sql.export import export_table

from ..small_atlas import star


def ran(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as stop:
        run(arguments)
    return int(stop.value.code or 0)


def test_parquet_is_streamed_with_its_meaning(atlas: Atlas, tmp_path: Path) -> None:
    seen: list[int] = []
    path = tmp_path / "stars.parquet"
    assert export_table(atlas, "stars", path, progress=seen.append) == "11 rows"
    table, expected = pq.read_table(path), atlas.sql("SELECT * FROM stars").arrow()
    order = [("source_id", "ascending"), ("lamost_spec_id", "ascending")]
    assert table.sort_by(order).equals(expected.sort_by(order))
    assert table.schema.field("feh").metadata[b"unit"] == b"dex"
    assert table.schema.field("source_id").type == pa.int64()
    assert seen[-1] == 11
    # in batches as at once: texts with nulls, units, the Arrow schema
    assert export_table(atlas, "SELECT * FROM stars WHERE source_id IS NOT NULL", path) == "10 rows"
    vo = Table.read(path, format="parquet.votable")
    assert (len(vo), str(vo["ra"].unit), vo["source_id"].dtype) == (10, "deg", np.dtype(np.int64))
    assert vo["feh"].description == table.schema.field("feh").metadata[b"description"].decode()


@pytest.mark.parametrize("name", ["poor.vot", "poor.fits"])
def test_rows_of_a_select_by_the_command(atlas: Atlas, tmp_path: Path, name: str) -> None:
    statement = "SELECT source_id, lamost_spec_id, ra, dec, feh FROM stars WHERE snr_xp > 1 ORDER BY source_id"
    assert ran(["export", statement, "--output", str(tmp_path / name), "-a", str(atlas.path)]) == 0
    table = Table.read(tmp_path / name)
    assert [int(number) for number in table["source_id"]] == [star(i) for i in range(10)]
    assert table["lamost_spec_id"].mask.tolist() == [i not in (0, 3, 8) for i in range(10)]
    assert str(table["ra"].unit) == "deg"


def test_hats_by_the_command(atlas: Atlas, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "my-stars"
    command = ["export", "stars", "--format", "hats", "--rows", "4", "--output", str(folder), "-a", str(atlas.path)]
    assert ran(command) == 0
    assert "10 rows in" in (told := capsys.readouterr().err)
    assert "1 without position rejected" in told
    files = sorted((folder / "my-stars" / "dataset").rglob("*.parquet"))
    ids = [number for file in files for number in pq.ParquetFile(file).read()["source_id"].to_pylist()]
    assert sorted(ids) == [star(i) for i in range(10)]
    assert ran(command) == 2
    assert "already exists" in capsys.readouterr().err


def test_what_cannot_be_exported(atlas: Atlas, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="'table' is for the terminal"):
        export_table(atlas, "stars", tmp_path / "stars.txt")
    with pytest.raises(QueryError, match="does not determine the file format"):
        export_table(atlas, "stars", tmp_path / "stars.xlsx")
    with pytest.raises(QueryError, match="Table with name starz"):
        export_table(atlas, "starz", tmp_path / "stars.parquet")
    assert not list(tmp_path.glob("stars*"))


def test_a_release_bundle_describes_its_table(
    atlas: Atlas, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "release"
    command = ["export", "stars", "--release-bundle", str(folder), "--license", "CC-BY-4.0", "-a", str(atlas.path)]
    assert ran([*command, "--output", "stars.vot"]) == 2
    assert "found both" in capsys.readouterr().err
    assert ran([*command, "--title", 'Stars: "ours"']) == 0
    schema = pq.read_schema(folder / "table.parquet")
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert {path.name for path in folder.iterdir()} == {
        "table.parquet", "croissant.json", "datapackage.json", "CITATION.cff", "SHA256SUMS"}
    croissant = json.loads((folder / "croissant.json").read_text())
    fields = {field["name"]: field for field in croissant["recordSet"][0]["field"]}
    assert list(fields) == schema.names
    assert fields["source_id"]["dataType"] == "sc:Integer"
    assert fields["ra"]["description"].endswith("[deg]")
    assert croissant["distribution"][0]["sha256"] == hashlib.sha256((folder / "table.parquet").read_bytes()).hexdigest()
    package = json.loads((folder / "datapackage.json").read_text())
    assert package["licenses"] == [{"name": "CC-BY-4.0"}]
    assert [field["name"] for field in package["resources"][0]["schema"]["fields"]] == schema.names
    assert 'title: "Stars: \\"ours\\""' in (folder / "CITATION.cff").read_text()
    assert ran(command) == 2
    assert "exists already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_crossmatch_by_the_command(atlas: Atlas, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {"name": ["two", "also two"], "ra": [2.0, 2.0], "dec": [-3 + 1 / 3600, -3.0]}
    ingest_catalog_table(atlas, "known", pa.table(found))
    out = tmp_path / "matches.vot"
    assert ran(["crossmatch", "stars", "known", "--radius", "2", "--output", str(out), "-a", str(atlas.path)]) == 0
    assert "1 matches written to" in (told := capsys.readouterr().err)
    assert "1 with more than one candidate" in told
    table = Table.read(out)
    assert (int(table["source_id"][0]), str(table["name"][0]), int(table["candidates"][0])) == (star(2), "also two", 2)
    assert str(table["separation_arcsec"].unit) == "arcsec"
    assert ran(["crossmatch", "stars", "known", "--format", "hats", "-a", str(atlas.path)]) == 2
    assert "Add --workers or --scheduler" in capsys.readouterr().err


def test_polars_frame(atlas: Atlas) -> None:
    polars = pytest.importorskip("polars")
    frame = atlas.sql("SELECT source_id, feh FROM spectra WHERE modality = 'lamost_lrs' ORDER BY spec_id").pl()
    assert frame.schema["source_id"] == polars.Int64
    assert frame["source_id"].to_list() == [star(0), star(0), None, None, star(3), star(8)]
    np.testing.assert_array_equal(frame["feh"].is_null().to_numpy(), [False, False, True, True, True, True])
