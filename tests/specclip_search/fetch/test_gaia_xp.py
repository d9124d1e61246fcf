"""XP spectra from an archive that fails in every way that the real one does."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from specclip_search.atlas import Atlas
from specclip_search.cli.main import run
from specclip_search.errors import FetchError, QueryError
from specclip_search.fetch import fetch_gaia_xp
from specclip_search.fetch.ledger import read_ids
from specclip_search.fetch.patience import Patience
from specclip_search.ingest import ingest_gaia_xp
from specclip_search.surveys import XP

from ... import dr4_files
from .archive_server import FakeArchive
from .conftest import STARS


def ids_of(archive: FakeArchive) -> list[int]:
    assert archive.stars is not None
    return [int(one) for one in archive.stars["source_id"]]


def left_out(archive: FakeArchive) -> set[int]:
    return set(ids_of(archive)) - set(archive.products)


def test_the_first_day_of_dr4(archive: FakeArchive, tmp_path: Path, patience: Patience) -> None:
    """Fetch, ingest, embed, index, similar: nothing changed but the table's row."""
    from specclip_search import similar
    from specclip_search.indexing.build.build import build_index
    from specclip_search.indexing.vectors.embed import embed
    from specclip_search.training.model import load_model

    report = fetch_gaia_xp(tmp_path / "down", cone=(100.0, 20.0, 0.5), release="dr4", archive=archive.address,
                           chunk=10, patience=patience)
    assert {(one["RETRIEVAL_TYPE"], one["RELEASE"], one["DATA_STRUCTURE"]) for one in archive.asked} == {
        ("MEAN_SPECTRUM_XP", "Gaia DR4", "DATAMODEL_GAIA")}
    assert (report.asked, report.got, set(report.missing)) == (STARS, STARS - 3, left_out(archive))
    atlas = Atlas.create(tmp_path / "atlas")
    with dr4_files.installed():
        ingested = ingest_gaia_xp(atlas, [tmp_path / "down"], workers=1)
        assert (ingested.read, ingested.kept) == (STARS - 3, STARS - 3)
        assert set(atlas.spectra(XP).read(["release"])["release"].to_pylist()) == {"dr4"}
        assert ingest_gaia_xp(atlas, [tmp_path / "dr3.csv"], workers=1).kept == 2 * STARS - 3
    embed(atlas, load_model("mini"))
    build_index(atlas, modality=XP)
    # DR3's ids are one lower; 51 functions leave some of a spectrum out, and its star is still what is most like it
    own = [star - 1 in similar(atlas, f"Gaia DR4 {star}", k=3)["spec_id"].tolist() for star in archive.products]
    assert sum(own) >= 0.8 * len(own)


def test_every_id_comes_or_is_named_whatever_fails(
    archive: FakeArchive, tmp_path: Path, patience: Patience, naps: list[float]
) -> None:
    archive.faults = ["500", "cut", "pass", "503", "short", "forget", "pass", "page"]
    ids = ids_of(archive)
    report = fetch_gaia_xp(tmp_path / "down", ids=[*ids, ids[0], 77], release="dr4", archive=archive.address, chunk=9,
                           patience=patience)
    assert (report.asked, report.got, report.repeated) == (STARS + 1, STARS - 3, 1)
    assert set(report.missing) == left_out(archive) | {77}
    assert not archive.faults
    named = (tmp_path / "down" / "missing.txt").read_text("utf-8").splitlines()
    assert {int(line.split("\t")[0]) for line in named} == set(report.missing)
    assert all("asked twice" in line for line in named)
    # the server's wish is followed, other waits double
    assert naps[:4] == [2.0, 4.0, 7.0, 4.0]
    assert not list((tmp_path / "down").glob(".writing-*"))
    before = len(archive.asked)
    again = fetch_gaia_xp(tmp_path / "down", ids=[*ids, ids[0], 77], release="dr4", archive=archive.address, chunk=9,
                          patience=patience)
    assert (again.requests, again.got, again.missing) == (0, report.got, report.missing)
    assert len(archive.asked) == before


def test_a_server_that_stays_broken_is_left_and_the_download_continues_later(
    archive: FakeArchive, tmp_path: Path, patience: Patience
) -> None:
    archive.products |= dict.fromkeys(left_out(archive), next(iter(archive.products.values())))
    ids = ids_of(archive)[:12]
    archive.faults = ["pass", *["500"] * 4]
    with pytest.raises(FetchError, match="the archive answered 500") as raised:
        fetch_gaia_xp(tmp_path / "down", ids=ids, release="dr4", archive=archive.address, chunk=3, patience=patience)
    assert "out of order" in raised.value.message
    assert "run the same command again" in raised.value.hint
    assert len(list((tmp_path / "down").glob("*.zip"))) == 1
    seen = len(archive.asked)
    fetch_gaia_xp(tmp_path / "down", ids=ids, release="dr4", archive=archive.address, chunk=3, patience=patience)
    assert ids[:3] not in archive.ids_asked()[seen:]
    # a file that is gone is fetched again, the others are not
    first, *_ = sorted((tmp_path / "down").glob("*.zip"))
    first.unlink()
    seen = len(archive.asked)
    fetch_gaia_xp(tmp_path / "down", ids=ids, release="dr4", archive=archive.address, chunk=3, patience=patience)
    assert archive.ids_asked()[seen] == ids[:3]
    assert first.exists()
    with pytest.raises(QueryError, match="holds another download: it differs in of"):
        fetch_gaia_xp(tmp_path / "down", ids=ids[1:], release="dr4", archive=archive.address, chunk=3)
    with pytest.raises(QueryError, match="holds files of something else"):
        fetch_gaia_xp(tmp_path, ids=ids, release="dr4", archive=archive.address)


def test_an_answer_that_does_not_come_is_asked_for_again(archive: FakeArchive, tmp_path: Path) -> None:
    archive.faults = ["slow"]
    ids = [star for star in ids_of(archive) if star in archive.products][:3]
    hasty = Patience(tries=2, pause=0.0, timeout=0.3, sleep=lambda _: archive.go.set())
    report = fetch_gaia_xp(tmp_path / "down", ids=ids, release="dr4", archive=archive.address, patience=hasty)
    assert (report.got, archive.reached.is_set()) == (3, True)


def test_a_killed_download_continues(archive: FakeArchive, tmp_path: Path) -> None:
    archive.faults = ["pass", "slow"]
    ids = [star for star in ids_of(archive) if star in archive.products][:9]
    (tmp_path / "ids.txt").write_text("".join(f"{one}\n" for one in ids), "utf-8")
    command = ["fetch", "gaia-xp", "--ids", str(tmp_path / "ids.txt"), "--release", "dr4", "--chunk", "3",
               "--archive", archive.address, "--output", str(tmp_path / "down"), "--pause", "0"]
    process = subprocess.Popen([sys.executable, "-P", "-m", "specclip_search", *command], stderr=subprocess.DEVNULL)
    assert archive.reached.wait(120)
    process.send_signal(signal.SIGKILL)
    process.wait()
    archive.go.set()
    assert len(list((tmp_path / "down").glob("*.zip"))) == 1
    with open(tmp_path / "down" / "ledger.jsonl", "a", encoding="utf-8") as ledger:
        ledger.write('{"name": "0000')  # a line that was being written
    seen = len(archive.asked)
    with pytest.raises(SystemExit) as stop:
        run(command)
    assert stop.value.code == 0
    assert archive.ids_asked()[seen:] == [ids[3:6], ids[6:]]
    assert ingest_gaia_xp(Atlas.create(tmp_path / "atlas"), [tmp_path / "down"], workers=1).waiting == 9


def test_what_needs_a_login_says_so(archive: FakeArchive, tmp_path: Path, patience: Patience) -> None:
    archive.user = ("me", "secret")
    ids = ids_of(archive)[:3]
    with pytest.raises(FetchError, match="refused DataLink of 3 ids with 401") as raised:
        fetch_gaia_xp(tmp_path / "down", ids=ids, release="dr4", archive=archive.address, patience=patience)
    assert "--credentials FILE" in raised.value.hint
    secret = tmp_path / "login"
    secret.write_text("me\nwrong\n", "utf-8")
    with pytest.raises(FetchError, match="refused login with 401"):
        fetch_gaia_xp(tmp_path / "down", ids=ids, release="dr4", archive=archive.address, credentials=secret)
    secret.write_text("me\nsecret\n", "utf-8")
    done = fetch_gaia_xp(tmp_path / "down", ids=ids, release="dr4", archive=archive.address, credentials=secret,
                         patience=patience)
    assert done.got == 3
    assert not any("secret" in path.read_text("utf-8", "replace") for path in (tmp_path / "down").glob("*.json*"))
    with pytest.raises(QueryError, match="unencrypted"):
        fetch_gaia_xp(tmp_path / "other", ids=ids, archive="http://gea.example.org", credentials=secret)


def test_requests_that_cannot_be(archive: FakeArchive, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    down = tmp_path / "down"
    for options, words in (
        ({"ids": [5], "chunk": 5001}, "1 to 5,000 ids"),
        ({"ids": [5], "release": "dr2"}, "no XP spectra of 'dr2'"),
        ({"ids": [5], "release": "dr4", "product": "sampled"}, "has no product 'sampled'"),
        ({"ids": [5], "cone": (1, 2, 3)}, "one of ids, a cone and a query"),
        ({"cone": (400, 0, 1)}, "RA 0 to 360"),
        ({"ids": [5], "form": "avro"}, "no format of DataLink"),
        ({"ids": [5], "archive": "gea.esac.esa.int"}, "no address of an archive"),
    ):
        with pytest.raises(QueryError, match=words):
            fetch_gaia_xp(down, **{"archive": archive.address, **options})
    assert not archive.asked
    with pytest.raises(SystemExit) as stop:
        run(["fetch", "gaia-xp", "--cone", "1,2", "-o", str(down)])
    assert stop.value.code == 2
    assert "--cone 56.75,24.12,0.5" in capsys.readouterr().err


def test_ids_of_files(tmp_path: Path, cases: Path) -> None:
    plain = tmp_path / "ids.txt"
    plain.write_text(f"{2**62}\n\n17\n", "utf-8")
    assert read_ids(plain, "source_id") == [2**62, 17]
    table = tmp_path / "table.csv"
    table.write_text(f"Gaia DR3,teff\nGaia DR3 {2**62},4000\n,5\n", "utf-8")
    assert read_ids(table, "source_id") == [2**62]
    plain.write_text("17\n1.7e18\n", "utf-8")
    with pytest.raises(QueryError):
        read_ids(plain, "source_id")
