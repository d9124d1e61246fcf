"""A Gaia DR4 file, 51 BP and 55 RP coefficients, before and after its basis functions are installed.

The file is made from real DR3 spectra by least squares (tests/dr4_files.py): it shows the way through the program, not
DR4's own quality.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from specclip_search.atlas import Atlas
from specclip_search.atlas.arrays import column_to_matrix
from specclip_search.cli.main import run
from specclip_search.errors import SpecclipError
from specclip_search.ingest import ingest_gaia_xp, recalibrate
from specclip_search.surveys import XP

from ... import dr4_files

STARS = 30


@pytest.fixture
def files(shared_data: Path, tmp_path: Path) -> tuple[Path, Path, np.ndarray]:
    return dr4_files.write_both(shared_data, tmp_path, STARS)


def told(command: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stop:
        run(command)
    return int(stop.value.code or 0), capsys.readouterr().err


def test_each_file_has_its_release_and_processes_make_the_same_bytes(
    files: tuple[Path, Path, np.ndarray], tmp_path: Path
) -> None:
    atlas, other = Atlas.create(tmp_path / "atlas"), Atlas.create(tmp_path / "other")
    with dr4_files.installed():
        report = ingest_gaia_xp(atlas, files[:2], workers=1)
    assert (report.read, report.kept, report.waiting) == (2 * STARS, 2 * STARS, 0)
    rows = atlas.spectra(XP).read(["release", "scale"])
    assert rows["release"].to_pylist() == ["dr3"] * STARS + ["dr4"] * STARS
    np.testing.assert_allclose(rows["scale"].to_numpy()[:STARS], files[2][:, 107], rtol=1e-5)
    again = Atlas.create(tmp_path / "again")
    reports = [ingest_gaia_xp(one, files[:2], workers=n, shard_size=20) for one, n in ((other, 1), (again, 2))]
    assert reports[0] == reports[1]
    assert reports[0].waiting == STARS
    for stage in ("spectra", "waiting"):
        one, two = (getattr(place, stage)(XP).parts() for place in (other, again))
        assert [part.digest for part in one] == [part.digest for part in two]
        assert len(one) == (2 if stage == "spectra" else 1)


def test_coefficients_wait_for_their_bases_and_files_are_not_read_again(
    files: tuple[Path, Path, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "late"
    code, said = told(["ingest", "gaia-xp", *map(str, files[:2]), "-a", str(folder), "-j", "1"], capsys)
    assert code == 0
    assert f"{2 * STARS} Gaia XP spectra read = {STARS} kept + {STARS} waiting + 0 rejected" in said
    assert "gaia-xp --recalibrate" in said
    late = Atlas(folder)
    # still not installed: nothing is lost, nothing is written anew
    before = [part.digest for part in late.spectra(XP).parts()]
    assert recalibrate(late, workers=1).waiting == STARS
    assert [part.digest for part in late.spectra(XP).parts()] == before
    for file in files[:2]:
        file.unlink()
    with dr4_files.installed():
        code, said = told(["ingest", "gaia-xp", "--recalibrate", "-a", str(folder), "-j", "1"], capsys)
    assert code == 0
    assert f"{2 * STARS} Gaia XP spectra read = {2 * STARS} kept + 0 rejected" in said
    assert not late.waiting(XP).parts()
    with pytest.raises(SpecclipError, match="No solution waits"):
        recalibrate(late)


def test_recalibrated_spectra_are_those_of_an_ingest_with_the_bases(
    files: tuple[Path, Path, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, early = Atlas.create(tmp_path / "late"), Atlas.create(tmp_path / "early")
    ingest_gaia_xp(late, files[:2], workers=1)
    with dr4_files.installed():
        ingest_gaia_xp(early, files[:2], workers=1)
        # killed when the shard was written and its waiting rows were not yet removed
        aside = late.waiting(XP)
        kept = {path: path.read_bytes() for path in aside.folder.iterdir()}
        recalibrate(late, workers=1)
        for path, content in kept.items():
            path.write_bytes(content)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("specclip_search.ingest.waiting._belongs", lambda part, standing: True)
            report = recalibrate(late, workers=1)
    assert (report.read, report.kept, report.waiting, report.rejected) == (2 * STARS, 2 * STARS, 0, {})
    observed = [atlas.observed(XP).read() for atlas in (late, early)]
    assert observed[0].drop_columns(["flux", "ivar"]).equals(observed[1].drop_columns(["flux", "ivar"]))
    for one, two in zip(*(table["flux"].to_pylist() for table in observed), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-2)
    one, two = (atlas.spectra(XP).read() for atlas in (late, early))
    assert one.drop_columns(["flux", "error"]).equals(two.drop_columns(["flux", "error"]))
    for name in ("flux", "error"):
        np.testing.assert_allclose(column_to_matrix(one[name]), column_to_matrix(two[name]), rtol=1e-3, atol=1e-6)


def test_a_duplicate_that_waited_is_named_and_a_changed_file_starts_afresh(
    files: tuple[Path, Path, np.ndarray], shared_data: Path, tmp_path: Path
) -> None:
    atlas = Atlas.create(tmp_path / "atlas")
    twice = tmp_path / "again" / files[1].name
    twice.parent.mkdir()
    twice.write_bytes(files[1].read_bytes())
    ingest_gaia_xp(atlas, [files[1], twice], workers=1)
    assert pq.read_table(atlas.waiting(XP).parts()[0].path).num_rows == 2 * STARS
    with dr4_files.installed():
        report = recalibrate(atlas, workers=1)
    assert (report.read, report.kept, dict(report.rejected)) == (2 * STARS, STARS, {"duplicate_key": STARS})
    coefficients, errors = dr4_files.solutions(shared_data, 2)
    dr4_files.write_csv(twice, [7, 8], coefficients, errors, 55, (56, 57))
    report = ingest_gaia_xp(atlas, [files[1], twice], workers=1)
    assert (report.read, report.kept, report.waiting) == (STARS + 2, 2, STARS)
