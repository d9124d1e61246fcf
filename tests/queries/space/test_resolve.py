"""Every kind of name that people type, against an atlas of real LAMOST and Gaia spectra."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pytest
from astropy.coordinates.name_resolve import sesame_url

from specclip_search.atlas import Atlas
from specclip_search.catalogs.ingest import ingest_catalog_table
from specclip_search.cli.main import run
from specclip_search.errors import QueryError
from specclip_search.ingest import ingest_catalog, ingest_gaia_xp, ingest_lamost
from specclip_search.keys import SpectrumKey
from specclip_search.queries.space.resolve import names_online, parse_position, resolve

KIC = 292.058720, 43.925228


@pytest.fixture(scope="module")
def atlas(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    folder = tmp_path_factory.mktemp("resolve")
    made = Atlas.create(folder / "atlas")
    files = (
        sorted((shared_data / "lamost" / "matrix").glob("spec-57287-*"))
        + sorted((shared_data / "lamost" / "matrix").glob("spec-55859-*"))[:5]
        + sorted((shared_data / "lamost" / "table").glob("spec-55859-F5902_sp01-001*"))
    )
    ingest_lamost(made, files, workers=1)
    ingest_gaia_xp(made, [shared_data / "gaia_xp" / "continuous" / "XP_CONTINUOUS_RAW.csv"], workers=1)
    names = folder / "names.csv"
    names.write_text("main_id,ra,dec\nKIC 8098300,292.05872,43.925228\nHD 122563,210.632667,9.686111\n", "utf-8")
    ingest_catalog(made, "famous", names)
    return made


@pytest.fixture(scope="module")
def obsid(atlas: Atlas) -> int:
    found = atlas.sql(
        "SELECT spec_id FROM spectra_lamost_lrs WHERE planid = 'KP193637N444141V03' AND spid = 10 AND fiberid = 161"
    )
    return int(found.fetchall()[0][0])


def test_every_spelling_of_one_star_finds_its_spectrum(atlas: Atlas, obsid: int) -> None:
    key = SpectrumKey("lamost_lrs", obsid)
    spelt = [
        str(key),
        f"{key}@dr6",
        str(obsid),
        "spec-57287-KP193637N444141V03_sp10-161",
        "some/folder/spec-57287-KP193637N444141V03_sp10-161.fits.gz",
        "J192814.09+435530.8",
        "2M19281409+4355308",
        "LAMOST J192814.09+435530.8",
        "292.05872 43.925228",
        "292.0587, +43.9252",
        "19:28:14.09 +43:55:30.8",
        "19 28 14.09 +43 55 30.8",
        "19h28m14.09s+43d55m30.8s",
        "KIC 8098300",
        "kic8098300",
        "KIC_8098300",
    ]
    for text in spelt:
        found = resolve(atlas, text)
        assert found.keys[0] == key, text
        assert found.separation is None or found.separation < 0.5, text
    assert resolve(atlas, key).keys == (key,)


def test_gaia_ids_are_found_by_release_and_those_of_dr2_refused(atlas: Atlas) -> None:
    star = 5853498713190525696
    for text in (f"gaia:{star}", str(star), f"Gaia DR3 {star}", f"gaia edr3 {star}", f"GaiaDR3 {star}"):
        found = resolve(atlas, text)
        assert (found.keys[0], found.source_id) == (SpectrumKey("gaia_xp", star), star), text
    with pytest.raises(QueryError, match="DR2") as raised:
        resolve(atlas, f"Gaia DR2 {star}")
    assert "dr2_neighbourhood" in raised.value.hint


def test_a_cross_walk_tells_what_an_id_of_another_release_is(atlas: Atlas, tmp_path: Path) -> None:
    star = 5853498713190525696
    atlas = Atlas(shutil.copytree(atlas.path, tmp_path / "atlas"))
    with pytest.raises(QueryError, match="same digits in release dr3") as raised:
        resolve(atlas, f"Gaia DR4 {star}")
    assert "dr3_neighbourhood" in raised.value.hint
    walk = {"dr3_source_id": [star, star], "dr4_source_id": [star + 1, star + 2], "angular_distance": [0.01, 900.0]}
    ingest_catalog_table(atlas, "walk", pa.table(walk))
    ingest_catalog_table(atlas, "older", pa.table({"dr2_source_id": [star - 1], "dr3_source_id": [star]}))
    for text in (f"Gaia DR4 {star + 1}", f"Gaia DR2 {star - 1}"):
        found = resolve(atlas, text)
        assert (found.keys[0], found.source_id) == (SpectrumKey("gaia_xp", star), star), text
    with pytest.raises(QueryError, match="not in this atlas"):
        resolve(atlas, f"Gaia DR4 {star + 9}")


def test_files_rows_and_members_are_told_apart(shared_data: Path, tmp_path: Path, atlas: Atlas) -> None:
    archive = shared_data / "surveys" / "gaia_datalink" / "dl_fits.zip"
    member = f"{archive}!XP_SAMPLED-Gaia DR3 5937083312263887616.fits"
    coadd = next((shared_data / "surveys" / "desi").glob("coadd-5*"))
    assert resolve(atlas, member).path == Path(member)
    assert (resolve(atlas, f"{coadd}#4").path, resolve(atlas, f"{coadd}#4").row) == (coadd, 4)
    assert resolve(atlas, coadd).kind == "file"
    (tmp_path / "star-17.fits").write_bytes(b"SIMPLE")
    with pytest.raises(QueryError, match="no spectrum file") as raised:
        resolve(atlas, f"{tmp_path}/star-71.fits")
    assert "star-17.fits" in raised.value.hint


def test_what_is_not_found_names_what_is_near(atlas: Atlas, obsid: int) -> None:
    with pytest.raises(QueryError) as raised:
        resolve(atlas, str(SpectrumKey("lamost_lrs", obsid + 1)))
    assert f"lamost:{obsid}" in raised.value.hint
    with pytest.raises(QueryError) as raised:
        resolve(atlas, "292.06 43.95")
    assert f"lamost:{obsid}" in raised.value.hint
    assert "89.2 arcsec away" in raised.value.hint
    with pytest.raises(QueryError) as raised:
        resolve(atlas, "KIC 8098301")
    assert "KIC 8098300" in raised.value.hint
    with pytest.raises(QueryError) as raised:
        resolve(atlas, "HD 122563")
    assert "arcsec of 210.63267" in raised.value.message


def test_the_network_is_asked_only_where_it_may_be(atlas: Atlas, obsid: int) -> None:
    asked: list[str] = []

    def online(name: str) -> tuple[float, float]:
        asked.append(name)
        if name != "Our star":
            raise QueryError("unknown", "")
        return KIC

    with pytest.raises(QueryError, match="no key, file, position or name"):
        resolve(atlas, "Our star", online=online)
    assert asked == []
    assert resolve(atlas, "Our star", network=True, online=online).keys[0].spec_id == obsid
    with pytest.raises(QueryError, match="no key") as raised:
        resolve(atlas, "Nobody's star", network=True, online=online)
    assert "unknown" in raised.value.message


def test_positions_across_the_pole_and_the_origin(atlas: Atlas) -> None:
    assert parse_position("12:23:45.67 -00:00:36") == pytest.approx((185.9402917, -0.01))
    assert parse_position("l=120.5 b=-30.2") == pytest.approx((10.36383, 32.62461), abs=1e-4)
    assert parse_position("not a position") is None
    for bad in ("400 10", "10 -95", "12:61:00 +10:00:00"):
        with pytest.raises(QueryError):
            parse_position(bad)


@pytest.fixture
def fake_sesame() -> Iterator[list[str]]:
    """A server that answers as CDS Sesame does, and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """The test's output is no log."""

        def do_GET(self) -> None:
            asked.append(unquote(self.path))
            known = self.path.endswith("KIC%208098300%20B")
            lines = ["# KIC 8098300 B", "#=S=Simbad"]
            lines += [f"%J {KIC[0]} +{KIC[1]} = 19:28:14.09 +43:55:30.8"] if known else ["#! *** Nothing found ***"]
            body = "\n".join(lines).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        with sesame_url.set([f"http://127.0.0.1:{server.server_address[1]}/sesame/"]):
            yield asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_names_through_sesame(
    atlas: Atlas, obsid: int, fake_sesame: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    name = "KIC 8098300 B"
    with pytest.raises(QueryError, match="no key, file, position or name"):
        resolve(atlas, name)
    assert fake_sesame == []
    with names_online():
        found = resolve(atlas, name)
    assert (found.kind, found.keys[0]) == ("name", SpectrumKey("lamost_lrs", obsid))
    assert fake_sesame == [f"/sesame/SNV?{name}"]
    with pytest.raises(QueryError, match="Sesame does not know 'Nobody' either"):
        resolve(atlas, "Nobody", network=True)
    # the option of every command, before or behind it
    for words in (["--network", "spectrum", name], ["spectrum", name, "--network"]):
        with pytest.raises(SystemExit) as stop:
            run([*words, "-a", str(atlas.path), "-f", "csv"])
        assert stop.value.code == 0, capsys.readouterr().err
    assert len(fake_sesame) == 4
    with pytest.raises(SystemExit) as stop:
        run(["spectrum", name, "-a", str(atlas.path)])
    assert stop.value.code == 2
    assert len(fake_sesame) == 4


def test_a_sesame_that_cannot_be_reached_is_not_one_that_does_not_know(atlas: Atlas) -> None:
    nobody = sesame_url.set(["http://127.0.0.1:9/"])
    with nobody, pytest.raises(QueryError, match="Sesame could not be asked") as raised:
        resolve(atlas, "HD 1", network=True)
    assert "does not know" not in raised.value.message
