"""Observed spectra are kept beside the model's input: to a stated precision, resumable, deletable, rebuilt."""

import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

from specclip_search import observed_spectrum
from specclip_search.atlas import Atlas
from specclip_search.cli.main import run
from specclip_search.errors import QueryError
from specclip_search.ingest import ingest_gaia_xp, ingest_lamost, ingest_survey
from specclip_search.ingest.observed import round_flux
from specclip_search.readers import iter_spectra, read_spectrum
from specclip_search.readers.registry import ReadOptions
from specclip_search.surveys import GAIA_XP, LAMOST_LRS
from specclip_search.web.pages.curves import observed_panels


@pytest.fixture
def atlas(tmp_path):
    return Atlas.create(tmp_path / "atlas")


def files_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("part-*"))}


def main(arguments):
    with pytest.raises(SystemExit) as stop:
        run(arguments)
    return stop.value.code


def same_within_precision(kept, delivered):
    flux, ivar = np.asarray(delivered.flux, np.float64), np.asarray(delivered.ivar, np.float64)
    good = ivar > 0
    assert np.abs(kept.wavelength / delivered.wavelength - 1).max() < 3e-7
    assert np.array_equal(kept.ivar > 0, good)
    assert (np.abs(kept.flux - flux) * np.sqrt(ivar) <= 1 / 8)[good].all()
    assert (np.abs(kept.flux - flux) <= 2.0**-9 * np.abs(flux)).all()
    assert np.abs(kept.ivar[good] / ivar[good] - 1).max() <= 1 / 64


def test_lamost_is_kept_over_its_full_range_in_nine_kilobytes(atlas, shared_data):
    folder = shared_data / "lamost" / "matrix"
    report = ingest_lamost(atlas, [folder], workers=1)
    assert report.observed == report.kept == len(list(folder.iterdir()))
    table = atlas.spectra(LAMOST_LRS.name).read(["spec_id", "release", "source"]).to_pylist()
    for row in table[::9]:
        kept = atlas.spectrum(f"lamost:{row['spec_id']}@{row['release']}")
        assert kept.wavelength[0] < 3700
        assert kept.wavelength[-1] > 8700
        same_within_precision(kept, read_spectrum(row["source"]))
    shard = atlas.observed(LAMOST_LRS.name).parquet_path(0)
    assert shard.stat().st_size / len(table) < 9000
    # the same in SQL, without us
    row = atlas.sql("SELECT scale, segments, len(flux) AS n FROM observed_lamost_lrs LIMIT 1").fetchall()[0]
    assert row[0] == 1.0
    assert sum(one["pixels"] for one in row[1]) == row[2]


def test_the_star_page_shows_it_beyond_the_model_range(atlas, shared_data):
    file = shared_data / "lamost" / "table" / "spec-55859-F5902_sp01-001.fits.gz"
    ingest_lamost(atlas, [file], workers=1)
    release = atlas.spectra(LAMOST_LRS.name).read(["release"])["release"][0].as_py()
    session = SimpleNamespace(atlas=atlas)
    (panel,) = observed_panels(session, {LAMOST_LRS.name: (101001, release)})
    assert panel.unit == "Angstrom"
    assert panel.wavelength[-1] > 8900
    assert set(panel.curves) == {"flux", "error"}
    assert np.isfinite(panel.curves["flux"]).mean() > 0.9
    assert observed_panels(session, {LAMOST_LRS.name: (101001, "dr99")}) == []
    shutil.rmtree(atlas.observed(LAMOST_LRS.name).folder)
    assert observed_panels(session, {LAMOST_LRS.name: (101001, release)}) == []
    # nothing else misses it
    assert atlas.sql("SELECT count(*) FROM epochs").fetchall() == [(1,)]
    assert "observed_lamost_lrs" not in {row[0] for row in atlas.sql("SHOW TABLES").fetchall()}


def test_other_surveys_are_kept_before_they_are_degraded(atlas, shared_data):
    """XP in W m-2 nm-1 has an inverse variance that float32 cannot hold; MRS has two arms; SDSS rows have epochs."""
    ingest_gaia_xp(atlas, [shared_data / "gaia_xp" / "sampled" / "XP_SAMPLED_RAW_dr3int6.csv"], workers=1)
    spec_id = atlas.spectra(GAIA_XP.name).read(["spec_id"])["spec_id"][0].as_py()
    kept = observed_spectrum(atlas, f"gaia:{spec_id}")
    assert len(kept.flux) == 343
    assert 0 < np.median(kept.flux) < 1e-12
    assert np.isfinite(kept.ivar).all()
    mrs = sorted((shared_data / "surveys" / "lamost_mrs").iterdir())
    ingest_survey(atlas, "lamost_mrs", mrs, workers=1, epochs=True)
    boss = shared_data / "surveys" / "boss" / "spec-3586-55181-0500.fits.gz"
    ingest_survey(atlas, "sdss", [boss], workers=1, epochs=True)
    delivered = {(one.spec_id, one.epoch): one for path in [*mrs, boss]
                 for one in iter_spectra(path, ReadOptions(epochs=True))}
    for survey, prefix in (("lamost_mrs", "mrs"), ("sdss", "sdss")):
        rows = atlas.observed(survey).read(["spec_id", "epoch"]).to_pylist()
        assert len(rows) == atlas.spectra(survey).rows
        assert any(row["epoch"] is None for row in rows) or survey == "lamost_mrs"
        for row in rows:
            kept = observed_spectrum(atlas, f"{prefix}:{row['spec_id']}", epoch=row["epoch"])
            same_within_precision(kept, delivered[row["spec_id"], row["epoch"]])
    with pytest.raises(QueryError, match="epoch 7 is not kept as observed; epochs here: 1"):
        observed_spectrum(atlas, f"sdss:{rows[0]['spec_id']}", epoch=7)


def test_a_rebuilt_stage_has_the_same_bytes_and_spectra_stay(atlas, survey):
    options = {"workers": 1, "shard_size": 25}
    ingest_lamost(atlas, [survey.folder], **options)
    spectra, observed = atlas.spectra(LAMOST_LRS.name).folder, atlas.observed(LAMOST_LRS.name).folder
    before, kept = files_of(spectra), files_of(observed)
    assert len(before) == len(kept)
    shutil.rmtree(observed)
    report = ingest_lamost(atlas, [survey.folder], **options)
    assert (report.shards_written, report.observed) == (0, 0)
    assert not observed.exists()
    # one file is gone: its spectrum stays in the atlas, its observed spectrum cannot be rebuilt
    gone = atlas.spectra(LAMOST_LRS.name).read(["source"])["source"][3].as_py()
    os.rename(gone, gone + ".away")
    report = ingest_lamost(atlas, [survey.folder], observed=True, **options)
    assert (report.kept, report.observed) == (120, 119)
    shutil.rmtree(observed)
    os.rename(gone + ".away", gone)
    report = ingest_lamost(atlas, [survey.folder], observed=True, **options)
    assert report.observed == report.kept == 120
    assert files_of(spectra) == before
    assert files_of(observed) == kept


def test_no_observed_removes_what_is_stale_and_keeps_the_model_input(atlas, survey, tmp_path):
    plain = Atlas.create(tmp_path / "plain")
    options = {"workers": 1, "shard_size": 25}
    ingest_lamost(atlas, [survey.folder], **options)
    report = ingest_lamost(plain, [survey.folder], observed=False, **options)
    assert report.observed == 0
    assert not plain.observed(LAMOST_LRS.name).folder.exists()
    assert files_of(plain.spectra(LAMOST_LRS.name).folder) == files_of(atlas.spectra(LAMOST_LRS.name).folder)
    survey.good[60].write_bytes(b"")
    ingest_lamost(atlas, [survey.folder], observed=False, **options)
    assert atlas.observed(LAMOST_LRS.name).part(2) is None
    assert atlas.observed(LAMOST_LRS.name).part(1) is not None


def test_the_command_writes_it_and_says_what_is_missing(atlas, shared_data, capsys, tmp_path):
    file = shared_data / "lamost" / "table" / "spec-55859-F5902_sp01-001.fits.gz"
    folder = str(atlas.path)
    assert main(["ingest", "lamost", str(file), "--no-observed", "--atlas", folder]) == 0
    assert main(["spectrum", "lamost:101001", "--observed", "--atlas", folder]) == 2
    assert "again with --observed" in capsys.readouterr().err
    assert main(["ingest", "lamost", str(file), "--observed", "--atlas", folder]) == 0
    assert "1  of those kept are in the atlas as observed" in capsys.readouterr().err
    assert main(["spectrum", "lamost:101001", "--observed", "--format", "json", "--atlas", folder]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == len(read_spectrum(file).flux)
    assert main(["spectrum", "lamost:101001", "--epoch", "3", "--atlas", folder]) == 2
    target = tmp_path / "one.parquet"
    assert main(["spectrum", str(file), "--observed", "--output", str(target), "--atlas", folder]) == 0
    assert pq.read_table(target)["wavelength"][-1].as_py() > 9000


def test_rounding_never_makes_a_number_infinite_or_loses_one():
    odd = np.array([0.0, -0.0, 3.4028235e38, -3.4e38, np.nan, np.inf, -np.inf, 1e-45, 1.0], np.float32)
    for weight in (0.0, 1e-30, 1.0, 3e38):
        kept = round_flux(odd, np.full(len(odd), weight, np.float32))
        assert np.array_equal(np.isfinite(kept), np.isfinite(odd))
        assert kept[8] == 1.0
        assert np.isnan(kept[4])
