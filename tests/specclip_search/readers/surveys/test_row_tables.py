"""Tables in which every row is a spectrum, and files inside archives."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from specclip_search.errors import SpectrumError
from specclip_search.readers import read_spectrum
from specclip_search.readers.containers.archive_member import iter_members, look_inside
from specclip_search.readers.registry import ReadOptions, iter_rows


@pytest.fixture
def mastar(shared_data: Path) -> Path:
    file = shared_data.parent / "cases" / "mastar-rows" / "mastar.fits.gz"
    if not file.is_file():
        pytest.skip(f"{file} is not there")
    return file


def test_every_row_of_mastar_is_a_spectrum(mastar: Path) -> None:
    rows = list(iter_rows(mastar))
    table = Table.read(mastar)
    assert [row.meta["mangaid"] for row in rows] == ["7-1", "7-2", "7-3"]
    assert len({row.spec_id for row in rows}) == 3
    np.testing.assert_array_equal(read_spectrum(f"{mastar}#2").flux, table["FLUX"][2])
    with pytest.warns(UserWarning, match="mastar.fits.gz#1"):
        assert read_spectrum(mastar).spec_id == rows[0].spec_id


def test_other_tables_of_rows_ask_for_what_they_do_not_say(tmp_path: Path) -> None:
    wave = np.linspace(3600.0, 6000.0, 2000)
    file = tmp_path / "mine.fits"
    Table({"ID": [5, 6], "WAVE": np.tile(wave, (2, 1)), "FLUX": np.ones((2, 2000)), "IVAR": np.ones((2, 2000))}).write(
        file
    )
    rows = list(iter_rows(file))
    assert all("unit" in row.message for row in rows)
    found = list(iter_rows(file, ReadOptions(unit="Angstrom", medium="vacuum")))
    assert [row.spec_id for row in found] == [5, 6]


def test_archives_are_read_in_place(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "surveys" / "gaia_datalink"
    archive = folder / "dl_fits.zip"
    names = [content.path.name for content in iter_members(archive)]
    assert len(names) == 3
    member = f"{archive}!XP_SAMPLED-Gaia DR3 5937083312263887616.fits"
    alone = read_spectrum(folder / "XP_SAMPLED-Gaia DR3 5937083312263887616.fits")
    np.testing.assert_array_equal(read_spectrum(member).flux, alone.flux)
    with pytest.raises(SpectrumError, match="archive of 3 files") as raised:
        read_spectrum(archive)
    assert f"'{archive}!" in raised.value.hint
    with pytest.raises(SpectrumError, match="has no file 'XP'"):
        look_inside(f"{archive}!XP")
    packed = tmp_path / "night.tar.gz"
    file = next((shared_data / "surveys" / "lamost_mrs").glob("med-58649*"))
    with tarfile.open(packed, "w:gz") as opened:
        opened.add(file, f"night/{file.name}")
    assert read_spectrum(packed).spec_id == 747810159


def test_damaged_archives_are_unreadable(shared_data: Path, tmp_path: Path) -> None:
    whole = (shared_data / "surveys" / "gaia_datalink" / "dl_fits.zip").read_bytes()
    for keep in (200, len(whole) // 2, len(whole) - 30):
        file = tmp_path / "cut.zip"
        file.write_bytes(whole[:keep])
        with pytest.raises(SpectrumError, match="damaged or truncated"):
            read_spectrum(f"{file}!XP_SAMPLED-Gaia DR3 5937083312263887616.fits")
