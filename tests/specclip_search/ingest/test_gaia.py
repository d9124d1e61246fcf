"""Gaia XP into the atlas: exact ids, every row accounted for, bulk files streamed."""

import csv
import gzip

import numpy as np
import pytest

from specclip_search.atlas import Atlas
from specclip_search.atlas.arrays import column_to_matrix
from specclip_search.errors import SpecclipError
from specclip_search.ingest import ingest_gaia_xp
from specclip_search.surveys import GAIA_XP

FIRST = 5853498713190525696


@pytest.fixture
def atlas(tmp_path):
    return Atlas.create(tmp_path / "atlas")


@pytest.fixture(scope="module")
def bulk_bytes(shared_data, tmp_path_factory):
    """A bulk file of 600 rows in the archive's form, ids one apart and above 2**53, every 50th without BP."""
    lines = (shared_data / "gaia_xp/continuous/XP_CONTINUOUS_RAW.ecsv").read_text().splitlines()
    comments = [line for line in lines if line.startswith("#")]
    names, *rows = csv.reader(line for line in lines if not line.startswith("#"))
    target = tmp_path_factory.mktemp("bulk") / "made.csv.gz"
    with gzip.open(target, "wt", newline="", compresslevel=1) as stream:
        stream.write("\n".join(comments) + "\n")
        writer = csv.writer(stream)
        writer.writerow(names)
        for number in range(600):
            row = list(rows[number % 2])
            row[names.index("source_id")] = str(FIRST + number)
            if number % 50 == 7:
                row = ["null" if name.startswith("bp_coef") else value for name, value in zip(names, row, strict=True)]
            writer.writerow(row)
    return target.read_bytes()


@pytest.fixture
def bulk(bulk_bytes, tmp_path):
    target = tmp_path / "XpContinuousMeanSpectrum_000000-003111.csv.gz"
    target.write_bytes(bulk_bytes)
    return target


def test_a_bulk_file_goes_in_with_exact_ids_and_accounts(atlas, bulk):
    calls = []
    report = ingest_gaia_xp(atlas, [bulk], workers=1, progress=lambda *call: calls.append(call))
    assert (report.read, report.kept, dict(report.rejected)) == (600, 588, {"missing_bp_or_rp": 12})
    rows = atlas.spectra("gaia_xp").read()
    expected = [FIRST + i for i in range(600) if i % 50 != 7]
    assert rows["spec_id"].to_pylist() == rows["source_id"].to_pylist() == expected
    assert rows["release"].unique().to_pylist() == ["dr3"]
    assert rows["source"][8].as_py() == f"{bulk}#9"
    assert calls[-1][0] == 600
    assert ingest_gaia_xp(atlas, [bulk], workers=1).shards_written == 0


def test_flux_and_error_are_gaiaxpys(atlas, bulk, shared_data):
    from specclip_search.readers.content import look
    from specclip_search.readers.gaia_xp import iter_xp

    ingest_gaia_xp(atlas, [bulk], workers=1)
    rows = atlas.spectra("gaia_xp").read()
    batch = next(iter_xp(look(shared_data / "gaia_xp/continuous/XP_CONTINUOUS_RAW.csv")))
    scale = batch.flux[:, [107]]
    assert np.allclose(column_to_matrix(rows["flux"])[:2], batch.flux / scale, rtol=1e-6)
    assert np.allclose(column_to_matrix(rows["error"])[:2], batch.error / scale, rtol=2e-3)
    assert rows["scale"].to_numpy()[:2] == pytest.approx(scale[:, 0], rel=1e-6)
    assert (rows["good_fraction"].to_numpy() == 1).all()
    assert column_to_matrix(rows["flux"])[:, 107].tolist() == [1.0] * 588


def test_small_files_share_a_shard_and_forms_of_one_star_are_duplicates(atlas, shared_data):
    report = ingest_gaia_xp(atlas, [shared_data / "gaia_xp/continuous", shared_data / "gaia_xp/sampled"], workers=1)
    assert report.read == report.kept + report.waiting + sum(report.rejected.values()) == 61
    # 30 solutions of 51 + 55 coefficients, the next release's
    assert (report.kept, report.waiting) == (5, 30)
    assert report.rejected == {"layout_unknown": 1, "duplicate_key": 22, "missing_bp_or_rp": 3}
    assert report.shards_written == 1


def test_processes_make_the_same_bytes(atlas, bulk, shared_data, tmp_path):
    paths = [bulk, shared_data / "gaia_xp/sampled"]
    ingest_gaia_xp(atlas, paths, workers=1)
    other = Atlas.create(tmp_path / "other")
    report = ingest_gaia_xp(other, paths, workers=2)
    assert report.shards_written == 2
    for part in atlas.spectra("gaia_xp").parts():
        assert other.spectra("gaia_xp").part(part.number).digest == part.digest


def test_a_truncated_bulk_file_keeps_the_rows_before_the_cut(atlas, bulk):
    data = bulk.read_bytes()
    bulk.write_bytes(data[: len(data) * 3 // 4])
    report = ingest_gaia_xp(atlas, [bulk], workers=1)
    assert 0 < report.kept < 588
    assert report.rejected["unreadable"] == 1
    bulk.write_bytes(data)
    assert ingest_gaia_xp(atlas, [bulk], workers=1).kept == 588


def test_the_release_can_be_said(atlas, shared_data):
    ingest_gaia_xp(atlas, [shared_data / "gaia_xp/sampled/XP_SAMPLED_RAW_dr3int6.csv"], release="dr3int6")
    assert atlas.spectra("gaia_xp").read(["release"])["release"].to_pylist() == ["dr3int6"] * 2


def test_no_xp_files_is_an_error_that_names_the_forms(atlas, tmp_path):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(SpecclipError, match=r"\.csv\.gz.*\.parquet"):
        ingest_gaia_xp(atlas, [tmp_path / "nothing"])


def test_a_table_of_something_else_is_set_aside(atlas, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text("source_id,teff\n5,4000\n")
    assert ingest_gaia_xp(atlas, [other]).rejected == {"layout_unknown": 1}


def test_the_grid_is_the_archives():
    assert GAIA_XP.size == 343


def test_members_of_archives_are_ingested_and_other_products_named(shared_data, tmp_path):
    atlas = Atlas.create(tmp_path / "atlas")
    archive = shared_data / "surveys" / "gaia_datalink" / "dl_fits.zip"
    report = ingest_gaia_xp(atlas, [archive], workers=1)
    # XP_CONTINUOUS and XP_SAMPLED are of one star; MCMC_MSC is no spectrum
    assert (report.read, report.kept) == (3, 1)
    assert report.rejected == {"layout_unknown": 1, "duplicate_key": 1}
    kept = atlas.spectra("gaia_xp").read(["spec_id", "source"]).to_pylist()
    assert kept[0]["spec_id"] == 5937083312263887616
    assert kept[0]["source"].startswith(f"{archive}!XP_")
    refused = {row["reason"]: row["source"] for row in atlas.rejected("gaia_xp").read().to_pylist()}
    assert "MCMC_MSC" in refused["layout_unknown"]
