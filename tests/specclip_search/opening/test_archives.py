"""One member of an archive that cannot be opened is rejected; the others are read."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from specclip_search.errors import SpectrumError
from specclip_search.ingest.spectra import read_xp_file
from specclip_search.ingest.survey import read_survey_file
from specclip_search.opening import archives
from specclip_search.opening.archives import TooMuch, zip_members
from specclip_search.readers.containers.archive_member import members_to_open
from specclip_search.surveys import MODALITIES

SURVEY = next(name for name, modality in MODALITIES.items() if modality.seen_as is not None)
MEMBERS = {
    "first.csv": b"wavelength,flux\n4000,1\n4001,2\n",
    "empty.fits": b"",
    "cut.csv.gz": b"\x1f\x8b\x08\x00cut short",
    "last.csv": b"wavelength,flux\n5000,1\n5001,2\n",
}


@pytest.fixture(params=["a.tar", "a.tar.gz", "a.zip"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as opened:
            for name, data in MEMBERS.items():
                opened.writestr(name, data)
    else:
        with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as opened_tar:
            for name, data in MEMBERS.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                opened_tar.addfile(info, io.BytesIO(data))
    return path


def test_members_are_opened_one_by_one(archive: Path) -> None:
    opened = {name.partition("!")[2]: open_it for name, open_it in members_to_open(archive)}
    assert list(opened) == list(MEMBERS)
    for name, open_it in members_to_open(archive):
        plain = name.partition("!")[2]
        if plain in ("first.csv", "last.csv"):
            assert bytes(open_it().head) == MEMBERS[plain]
        else:
            with pytest.raises(SpectrumError, match=f"!{plain} is"):
                open_it()


def test_every_member_of_an_ingest_has_its_own_reason(archive: Path) -> None:
    """None of these is a spectrum of the survey: as many rejections as members, not one for the archive."""
    for refused in (list(read_survey_file(str(archive), None, survey=SURVEY)), list(read_xp_file(str(archive), None))):
        assert {one.source.partition("!")[2].partition("#")[0] for one in refused} == set(MEMBERS)


def test_a_damaged_member_of_a_zip_does_not_end_it(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as opened:
        for name in ("one", "two", "three"):
            opened.writestr(name, f"content of {name}")
    data = path.read_bytes().replace(b"content of two", b"content of twx")
    path.write_bytes(data)
    found = {name: file if isinstance(file, SpectrumError) else file.read_text() for name, file in zip_members(path)}
    assert found["one"] == "content of one"
    assert found["three"] == "content of three"
    assert "a.zip!two" in str(found["two"])


def test_a_bomb_ends_its_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("zeros", b"\0" * 1_000_000)
        opened.writestr("more", b"\0" * 1_000_000)
    monkeypatch.setattr(archives, "inflated_limit", lambda _: 500_000)
    with pytest.raises(TooMuch, match=r"bomb\.zip inflates to more"):
        list(zip_members(path))
