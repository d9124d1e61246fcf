"""What changed between visits: on real repeats of LAMOST, with changes planted in them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from astropy.io import fits
from scipy.stats import kstest

from specclip_search import changes
from specclip_search.atlas import Atlas
from specclip_search.cli.main import run
from specclip_search.errors import QueryError
from specclip_search.ingest import ingest_lamost
from specclip_search.queries.changes.calibration import LEAST_COMPARISONS, calibrate
from specclip_search.queries.changes.compare import Visit, compare, on_grid
from specclip_search.queries.changes.velocity import GRID, SIZE
from specclip_search.queries.changes.visits import visit_table
from specclip_search.surveys import LRS

DOUBLE, EMISSION = "spec-57289-EG030712S014809B01_sp16-217", "spec-57304-EG025335S013827B01_sp15-184"


@pytest.fixture(scope="session")
def repeats() -> ModuleType:
    spec = importlib.util.spec_from_file_location("repeats", Path(__file__).with_name("repeats.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def stars(repeats: ModuleType, shared_data: Path) -> list:
    return [repeats.spectra_of(files) for files in repeats.files_by_star(shared_data)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, repeats: ModuleType, shared_data: Path) -> Path:
    """All real repeats in an atlas; one visit of a star has a second set of lines, one of another star emission."""
    made = tmp_path_factory.mktemp("changes")
    paths = []
    for star in repeats.files_by_star(shared_data):
        for file in star:
            plant = next((one for name, one in planted_in(repeats).items() if file.name.startswith(name)), None)
            paths.append(file if plant is None else _planted(file, made / file.name, plant))
    ingest_lamost(Atlas.create(made / "atlas"), paths, workers=1)
    return made


def planted_in(repeats: ModuleType) -> dict:
    return {DOUBLE: repeats.double(0.4, 250.0), EMISSION: repeats.emission(3.0, 6564.6)}


def _planted(file: Path, target: Path, plant) -> Path:
    """A copy of a LAMOST file with other flux."""
    with fits.open(file) as hdus:
        header, image = hdus[0].header, hdus[0].data.astype(np.float32)
    wavelength = 10.0 ** (header["COEFF0"] + header["COEFF1"] * np.arange(image.shape[1]))
    flux, _ = plant(*on_grid(wavelength, image[0].astype(float), image[1].astype(float)), 0)
    image[0] = flux[: image.shape[1]]
    fits.PrimaryHDU(image, header).writeto(target)
    return target


@pytest.fixture(scope="session")
def plain(repeats: ModuleType, stars: list) -> tuple[list, list]:
    """Comparisons of real repeats, of every other star and of the others."""
    return repeats.pairs_of(stars[::2]), repeats.pairs_of(stars[1::2])


def test_p_values_are_uniform_on_the_other_half_of_real_repeats(repeats: ModuleType, plain: tuple[list, list]) -> None:
    known = calibrate(plain[0])
    assert 1.0 < known.velocity_floor < 7.0
    p = np.array([one.any for one in repeats.judged(plain[1], known)])
    assert kstest(p, "uniform").pvalue > 0.01
    assert (p < 0.01).mean() < 0.1


def test_velocities_of_real_visits_agree_and_shifts_are_found(
    repeats: ModuleType, stars: list, plain: tuple[list, list]
) -> None:
    velocity = np.array([one.shift.velocity for one in (*plain[0], *plain[1])])
    assert 1.4826 * np.median(np.abs(velocity - np.median(velocity))) / np.sqrt(2) < 5.0
    known = calibrate(plain[0])
    found = repeats.judged(repeats.pairs_of(stars[1::2], repeats.shift(30.0)), known)
    bright = repeats.snr_of(stars[1::2]) > 30
    assert (np.array([one.velocity for one in found])[bright] < 0.01).mean() > 0.9
    # a shift is no change of lines
    assert (np.array([one.shape for one in found]) < 0.01).mean() < 0.15


def test_a_tilt_of_the_flux_calibration_does_not_count(
    repeats: ModuleType, stars: list, plain: tuple[list, list]
) -> None:
    known = calibrate(plain[0])
    before = np.array([one.any for one in repeats.judged(plain[1], known)])
    after = np.array([one.any for one in repeats.judged(repeats.pairs_of(stars[1::2], repeats.tilted(3.0)), known)])
    assert np.abs(np.median(after) - np.median(before)) < 0.1
    assert (after < 0.01).sum() <= (before < 0.01).sum() + 1


def test_what_was_planted_is_found_and_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    atlas = Atlas(folder / "atlas")
    frame = changes(atlas, top=2)
    assert sorted(frame["kind"]) == ["double_lined", "line"]
    double = frame[frame["kind"] == "double_lined"].iloc[0]
    assert double["separation"] == pytest.approx(250, abs=60)
    assert double["share"] == pytest.approx(0.4, abs=0.12)
    assert "two sets of lines" in double["what"]
    line = frame[frame["kind"] == "line"].iloc[0]
    assert line["window"] == "Halpha"
    assert abs(line["window_width"]) == pytest.approx(3.0, abs=0.8)
    # the visit that was changed, by its time: 2015-10-08
    assert line["window_time"] == pytest.approx(57303.8, abs=0.3)
    assert "Halpha: " in line["what"]
    assert frame["p_value"].max() < 0.01
    with pytest.raises(SystemExit) as stop:
        run(["changes", "--key", f"lamost:{line['spec_id']}", "--format", "json", "--atlas", str(folder / "atlas")])
    assert stop.value.code == 0
    visits = json.loads(capsys.readouterr().out)
    assert len(visits) == line["visits"]
    assert {one["time_scale"] for one in visits} == {"MJD_UTC"}
    assert sum("Halpha" in (one["what"] or "") for one in visits) >= 1
    assert all(abs(one["rv"] - one["survey_rv"]) < 25 and 1 < one["rv_err"] < 10 for one in visits)
    named = atlas.sql("SELECT kind, count(*) FROM changes GROUP BY 1").fetchall()
    assert sum(count for _, count in named) == 45
    # the rows of visits are not made again
    part = atlas.results("visit_changes").parts()[0]
    assert part.extra["visits"] == part.extra["compared"] == part.rows == 99
    assert part.extra["comparisons"] == 54
    before = part.file.stat().st_mtime_ns
    assert changes(atlas, top=1)["spec_id"].tolist() == frame["spec_id"].tolist()[:1]
    assert part.file.stat().st_mtime_ns == before


def test_the_same_observation_in_two_releases_is_one_visit(shared_data: Path, tmp_path: Path) -> None:
    one = shared_data / "lamost" / "table" / "spec-55859-F5902_sp01-001.fits.gz"
    other = shared_data / "lamost" / "matrix" / "spec-55859-F5902_sp01-001_dr7.fits.gz"
    atlas = Atlas.create(tmp_path / "atlas")
    ingest_lamost(atlas, [one, other], workers=1)
    assert len(set(atlas.spectra(LRS).read(["release"])["release"].to_pylist())) == 2
    assert len(visit_table(atlas, LRS)) == 0
    with pytest.raises(QueryError, match="No star of the atlas has two visits"):
        changes(atlas)


def test_few_repeats_give_no_p_values_but_velocities(repeats: ModuleType, shared_data: Path, tmp_path: Path) -> None:
    atlas = Atlas.create(tmp_path / "atlas")
    files = repeats.files_by_star(shared_data)[:3]
    ingest_lamost(atlas, [file for star in files for file in star], workers=1)
    assert sum(map(len, files)) - 3 < LEAST_COMPARISONS
    frame = changes(atlas)
    assert len(frame) == 3
    assert frame["p_value"].isna().all()
    assert frame["kind"].isna().all()
    assert np.isfinite(frame["rv_change"]).all()
    with pytest.raises(QueryError, match=r"only one visit|not in this atlas"):
        changes(atlas, key="lamost:1")
    with pytest.raises(QueryError, match="top must be at least 1"):
        changes(atlas, top=0)


def test_odd_spectra_compare_to_nothing_or_to_numbers() -> None:
    rng = np.random.default_rng(0)
    flux, ivar = 1000.0 + rng.normal(0, 10, SIZE), np.full(SIZE, 0.01)
    plain = Visit.of(flux, ivar)
    hurt = np.where(GRID < 5000, np.nan, flux)
    for other in (Visit.of(flux, np.zeros(SIZE)), Visit.of(np.full(SIZE, np.nan), ivar), Visit.of(hurt, ivar * 0 - 1)):
        assert compare(plain, other) is None
        assert compare(other, plain) is None
    for odd in (np.zeros(SIZE), -flux, np.full(SIZE, 7.0), flux * 1e30, np.where(np.arange(SIZE) % 7, flux, 1e20)):
        found = compare(Visit.of(odd, ivar), plain)
        assert found is None or np.isfinite(found.shift.velocity)
