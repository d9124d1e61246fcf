"""LAMOST files by obsid, and rows of catalogues, from servers that fail."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from specclip_search.atlas import Atlas
from specclip_search.cli.main import run
from specclip_search.errors import FetchError, QueryError
from specclip_search.fetch import fetch_catalog, fetch_lamost
from specclip_search.fetch.patience import Patience
from specclip_search.ingest import ingest_catalog, ingest_lamost
from specclip_search.readers.lamost import observe_lamost

from .archive_server import FakeArchive
from .conftest import STARS
from .test_gaia_xp import ids_of


@pytest.fixture
def lamost(archive: FakeArchive, shared_data: Path) -> FakeArchive:
    """Six real files; one obsid is answered with another's file."""
    files = sorted((shared_data / "lamost" / "matrix").glob("*.fits.gz"))[:6]
    for file in files:
        archive.spectra[int(observe_lamost(file).spec_id or 0)] = (file.name, file.read_bytes())
    return archive


def test_files_are_whole_and_named_and_what_is_missing_is_told(
    lamost: FakeArchive, tmp_path: Path, patience: Patience
) -> None:
    obsids = list(lamost.spectra)
    lamost.spectra[7] = lamost.spectra[obsids[0]]
    lamost.spectra[obsids[1]] = ("../../evil.fits.gz", lamost.spectra[obsids[1]][1])
    lamost.faults = ["500", "cut", "short", "pass", "page"]
    report = fetch_lamost(tmp_path / "down", obsids=[*obsids, 7, 8, obsids[0]], release="dr11",
                          archive=lamost.address, patience=patience)
    assert (report.asked, report.got, report.repeated) == (8, 5, 1)
    assert set(report.missing) == {7, 8, obsids[1]}
    assert report.missing[7] == f"the server sent obsid {obsids[0]} instead"
    assert "404" in report.missing[8]
    assert "no spectrum but text" in report.missing[obsids[1]]
    assert not list(tmp_path.glob("*.fits.gz"))
    ingested = ingest_lamost(Atlas.create(tmp_path / "atlas"), [tmp_path / "down"], workers=1)
    assert ingested.read == 5
    seen = len(lamost.asked)
    assert fetch_lamost(tmp_path / "down", obsids=[*obsids, 7, 8], release="dr11", archive=lamost.address,
                        patience=patience).requests == 0
    assert len(lamost.asked) == seen


def test_a_hostile_name_stays_in_the_folder(lamost: FakeArchive, tmp_path: Path, patience: Patience) -> None:
    obsid = next(iter(lamost.spectra))
    lamost.spectra = {obsid: ("../../evil.fits.gz", lamost.spectra[obsid][1])}
    fetch_lamost(tmp_path / "a" / "down", obsids=[obsid], release="dr11", archive=lamost.address, patience=patience)
    assert [path.name for path in (tmp_path / "a" / "down").glob("*.fits.gz")] == [f"obsid-{obsid}.fits.gz"]
    assert not list(tmp_path.rglob("evil*"))


def test_a_broken_file_does_not_stop_the_others_and_a_broken_server_does(
    lamost: FakeArchive, tmp_path: Path, patience: Patience
) -> None:
    obsids = list(lamost.spectra)
    lamost.faults = ["500"] * 4
    report = fetch_lamost(tmp_path / "down", obsids=obsids, release="DR11", archive=lamost.address, patience=patience)
    assert (report.got, list(report.missing)) == (5, obsids[:1])
    # what failed is asked for again
    assert fetch_lamost(tmp_path / "down", obsids=obsids, release="dr11", archive=lamost.address,
                        patience=patience).got == 6
    lamost.faults = ["500"] * 12
    with pytest.raises(FetchError, match="the server answered 500, 4 times in a row"):
        fetch_lamost(tmp_path / "other", obsids=obsids, release="dr11", archive=lamost.address, patience=patience)


def test_a_token_is_used_and_never_told(
    lamost: FakeArchive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lamost.token = "T0K3N"
    (tmp_path / "token").write_text("T0K3N\n", "utf-8")
    (tmp_path / "ids.csv").write_text("obsid\n" + "".join(f"{one}\n" for one in lamost.spectra), "utf-8")
    command = ["fetch", "lamost", "--obsids", str(tmp_path / "ids.csv"), "--release", "dr11", "-o",
               str(tmp_path / "down"), "--archive", lamost.address, "--pause", "0", "--wait", "0"]
    with pytest.raises(SystemExit) as stop:
        run(command)
    assert stop.value.code == 1
    assert "--token-file FILE" in capsys.readouterr().err
    lamost.faults = ["cut"]
    with pytest.raises(SystemExit) as stop:
        run([*command, "--token-file", str(tmp_path / "token")])
    assert stop.value.code == 0
    assert "6 obsids asked = 6 got + 0 missing" in (said := capsys.readouterr().err)
    assert "T0K3N" not in said
    assert not any("T0K3N" in path.read_text("utf-8", "replace") for path in (tmp_path / "down").glob("*.json*"))


def test_rows_of_ids_with_units_and_missing_ones_named(
    archive: FakeArchive, tmp_path: Path, patience: Patience
) -> None:
    archive.faults = ["cut", "500"]
    ids = ids_of(archive)
    report = fetch_catalog(tmp_path / "gaia", table="gaiadr3.gaia_source", columns=["ra", "dec", "pmra"],
                           ids=[*ids, 99], archive=archive.address, chunk=10, patience=patience)
    assert (report.asked, report.got, list(report.missing)) == (STARS + 1, STARS, [99])
    assert archive.jobs["1"].startswith("SELECT source_id, ra, dec, pmra FROM gaiadr3.gaia_source WHERE source_id IN (")
    atlas = Atlas.create(tmp_path / "atlas")
    assert ingest_catalog(atlas, "gaia", tmp_path / "gaia").kept == STARS
    rows = atlas.catalog("gaia").read()
    assert rows["source_id"].to_pylist() == ids
    assert rows.schema.field("pmra").metadata[b"unit"] in (b"mas / yr", b"mas yr-1", b"mas.yr-1", b"mas yr**-1")


def test_a_cut_result_is_refused_and_queries_are_checked(
    archive: FakeArchive, tmp_path: Path, patience: Patience
) -> None:
    circle = fetch_catalog(tmp_path / "circle", table="gaiadr3.gaia_source", cone=(100.05, 20.0, 0.021),
                           archive=archive.address, patience=patience)
    assert (circle.asked, circle.files) == (0, 1)
    assert pq.read_table(next((tmp_path / "circle").glob("*.parquet"))).num_rows in (3, 4, 5)
    archive.overflow = True
    with pytest.raises(FetchError, match="cut the result"):
        fetch_catalog(tmp_path / "all", sql="SELECT * FROM gaiadr3.gaia_source", archive=archive.address,
                      patience=patience)
    for options, words in (
        ({"table": "gaia; DROP TABLE x", "cone": (1, 2, 3)}, "name of a table"),
        ({"table": "t", "columns": ["a b"], "ids": [5]}, "no name of a column"),
        ({"table": "t"}, "one of ids, a cone and a query"),
    ):
        with pytest.raises(QueryError, match=words):
            fetch_catalog(tmp_path / "bad", archive=archive.address, **options)
