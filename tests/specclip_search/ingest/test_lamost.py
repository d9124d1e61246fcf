"""A LAMOST survey goes in whole: exact accounts, nothing twice, nothing lost, the same bytes after a kill."""

import gzip
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter

import numpy as np
import pytest

from specclip_search.atlas import Atlas
from specclip_search.atlas.arrays import column_to_matrix
from specclip_search.errors import AtlasError, SpecclipError
from specclip_search.ingest import ingest_lamost
from specclip_search.readers import read_spectrum
from specclip_search.surveys import LAMOST_LRS


def atlas_bytes(atlas):
    return {str(path.relative_to(atlas.path)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(atlas.path.rglob("part-*"))}


def ingest(atlas, *paths, **options):
    return ingest_lamost(atlas, list(paths), **{"workers": 1, "shard_size": 25, **options})


@pytest.fixture
def atlas(tmp_path):
    return Atlas.create(tmp_path / "atlas")


def test_accounts_are_exact(atlas, survey):
    report = ingest(atlas, survey.folder)
    assert report.read == 144
    assert report.kept == 120
    assert report.rejected == survey.reasons
    table = atlas.spectra("lamost_lrs").read()
    assert sorted(table["spec_id"].to_pylist()) == [5_000_000_000 + i for i in range(120)]
    rejected = atlas.rejected("lamost_lrs").read().to_pylist()
    assert Counter(row["reason"] for row in rejected) == survey.reasons
    assert all(row["message"] for row in rejected)
    assert len({row["source"] for row in rejected}) == 24
    page = next(row for row in rejected if "503 Service Unavailable" in row["message"])
    assert page["source"].startswith(str(survey.folder))


def test_a_row_holds_what_its_file_holds(atlas, survey):
    ingest(atlas, survey.folder)
    rows = atlas.spectra("lamost_lrs").read()
    flux = column_to_matrix(rows["flux"])
    for place, row in enumerate(rows.drop_columns(["flux", "error"]).to_pylist()[:10]):
        spectrum = read_spectrum(row["source"])
        assert row["spec_id"] == spectrum.spec_id
        for name in ("ra", "dec", "planid", "fiberid", "subclass", "release"):
            assert row[name] == spectrum.meta[name]
        assert row["snr"] == pytest.approx(spectrum.meta["snrg"])
        if row["n_repaired"] == 0:
            expected = LAMOST_LRS.prepare(spectrum.wavelength, spectrum.flux)[0]
            assert np.abs(flux[place] - expected).max() < 1e-6
        assert row["source_id"] is None
        assert row["simulated"] is False


def test_a_second_run_does_nothing(atlas, survey):
    first = ingest(atlas, survey.folder)
    before = {path: path.stat().st_mtime_ns for path in atlas.path.rglob("*.parquet")}
    second = ingest(atlas, survey.folder)
    assert (second.shards_written, second.shards_current) == (0, first.shards_written)
    assert (second.read, second.kept, second.rejected) == (first.read, first.kept, first.rejected)
    assert {path: path.stat().st_mtime_ns for path in atlas.path.rglob("*.parquet")} == before


def test_new_files_become_new_shards_and_leave_the_others(atlas, survey, tools):
    first = ingest(atlas, survey.folder)
    before = atlas_bytes(atlas)
    originals = [path for path in survey.good if path.name.endswith(".gz")][:5]
    tools.good_files(originals, survey.folder / "20990101", 7, first_obsid=9_000_000_000)
    report = ingest(atlas, survey.folder)
    assert report.kept == first.kept + 7
    assert report.shards_written == 1
    assert report.shards_current == first.shards_written
    after = atlas_bytes(atlas)
    assert {name: after[name] for name in before} == before


def test_a_changed_file_makes_only_its_own_shard_anew(atlas, survey, tools):
    ingest(atlas, survey.folder)
    before = atlas_bytes(atlas)
    changed = survey.good[60]
    data = tools._data(changed)
    data = tools.with_obsid(data, 7_777_777_777)
    changed.write_bytes(gzip.compress(data, 1, mtime=0) if changed.suffix == ".gz" else data)
    os.utime(changed, ns=(1, 10**18))
    report = ingest(atlas, survey.folder)
    assert report.shards_written == 1
    after = atlas_bytes(atlas)
    assert {name.split("/")[-1].split(".")[0] for name in before if after[name] != before[name]} == {"part-000002"}
    assert 7_777_777_777 in atlas.spectra("lamost_lrs").read(["spec_id"])["spec_id"].to_pylist()


def test_a_key_that_becomes_free_goes_to_the_next_file_that_has_it(atlas, survey, tools):
    """The wrecks hold copies of good files; when an original changes its id, its copy is no duplicate any more."""
    first = ingest(atlas, survey.folder)
    original = survey.good[5]  # wreck 5 is its copy
    obsid = read_spectrum(original).spec_id
    original.write_bytes(tools.with_obsid(tools._data(original), 8_888_888_888))
    report = ingest(atlas, survey.folder)
    assert report.kept == first.kept + 1
    assert report.rejected["duplicate_key"] == first.rejected["duplicate_key"] - 1
    ids = atlas.spectra("lamost_lrs").read(["spec_id"])["spec_id"].to_pylist()
    assert {obsid, 8_888_888_888} <= set(ids)
    assert len(set(ids)) == len(ids)


def test_processes_make_the_same_bytes_as_one(atlas, survey, tmp_path):
    ingest(atlas, survey.folder)
    other = Atlas.create(tmp_path / "other")
    calls = []
    ingest(other, survey.folder, workers=2, progress=lambda done, total, note: calls.append((done, total, note)))
    assert atlas_bytes(other) == atlas_bytes(atlas)
    assert calls[-1][0] == calls[-1][1] == 144
    assert [done for done, _, _ in calls] == sorted(done for done, _, _ in calls)


@pytest.mark.parametrize("moments", [(1,), pytest.param((1, 2, 3), marks=pytest.mark.slow)])  # shards that stand
def test_killed_at_any_time_it_ends_with_the_same_bytes(atlas, survey, tmp_path, moments):
    ingest(atlas, survey.folder)
    other = Atlas.create(tmp_path / "other")
    script = textwrap.dedent(f"""
        from specclip_search.atlas import Atlas
        from specclip_search.ingest import ingest_lamost
        if __name__ == "__main__":
            ingest_lamost(Atlas({str(other.path)!r}), [{str(survey.folder)!r}], workers=1, shard_size=25)
        """)
    kills = 0
    for wanted in moments:
        process = subprocess.Popen([sys.executable, "-c", script])
        deadline = time.monotonic() + 600
        while process.poll() is None and time.monotonic() < deadline:
            if len(list((other.path / "spectra").rglob("part-*.json"))) >= wanted:
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.001)
        process.wait()
    assert kills
    report = ingest(other, survey.folder)
    assert report.kept == 120
    assert atlas_bytes(other) == atlas_bytes(atlas)
    assert not list(other.path.rglob(".writing-*"))


def test_shards_of_other_origin_are_left_alone_and_their_spectra_not_doubled(atlas, survey, tmp_path):
    donor = Atlas.create(tmp_path / "donor")
    ingest(donor, *survey.good[:10])
    rows = donor.spectra("lamost_lrs").read()
    stage = atlas.spectra("lamost_lrs")
    with stage.lock():
        stage.write(0, rows, schema=rows.schema, inputs="simulation")
    foreign = stage.part(0).digest
    report = ingest(atlas, *survey.good[:30])
    assert stage.part(0).digest == foreign
    assert report.rejected == {"duplicate_key": 10}
    ids = stage.read(["spec_id"])["spec_id"].to_pylist()
    assert len(ids) == len(set(ids)) == 30
    assert ingest(atlas, *survey.good[:30]).shards_written == 0


def test_a_list_of_files_is_followed(atlas, survey, tmp_path):
    names = tmp_path / "files.txt"
    names.write_text("# two stars\n" + "\n".join(os.path.relpath(path, tmp_path) for path in survey.good[:2]) + "\n\n")
    assert ingest(atlas, f"@{names}").kept == 2
    with pytest.raises(SpecclipError, match=r"list .* cannot be read"):
        ingest(atlas, f"@{tmp_path / 'none.txt'}")


def test_a_file_named_twice_counts_once(atlas, survey):
    assert ingest(atlas, survey.good[0], survey.good[0], survey.folder / "20160001").read == 40


def test_nothing_to_read_is_refused_with_what_was_looked_for(atlas, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "readme.txt").write_text("no spectra here")
    with pytest.raises(SpecclipError, match=r"No spectrum files below .*\.fits"):
        ingest(atlas, empty)
    with pytest.raises(SpecclipError, match="does not exist"):
        ingest(atlas, tmp_path / "nowhere")
    with pytest.raises(SpecclipError, match="at least 1"):
        ingest(atlas, tmp_path, shard_size=0)
    assert not list(atlas.path.rglob("part-*"))


def test_release_is_taken_from_the_header_else_from_the_caller(atlas, survey, tools):
    nameless = survey.folder.parent / "nameless.fits"
    nameless.write_bytes(tools._data(survey.good[3]).replace(b"DATA_V  =", b"COMMENT  "))
    ingest(atlas, survey.good[2], nameless, release="dr99")
    rows = atlas.spectra("lamost_lrs").read(["release", "source"]).to_pylist()
    assert [row["release"] for row in rows] == [read_spectrum(survey.good[2]).meta["release"], "dr99"]
    ingest(atlas, survey.good[2], nameless, release="dr100")
    assert atlas.spectra("lamost_lrs").read(["release"])["release"].to_pylist()[1] == "dr100"


def test_two_writers_do_not_meet(atlas, survey):
    with atlas.spectra("lamost_lrs").lock(), pytest.raises(AtlasError, match="being written"):
        ingest(atlas, survey.folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_set_aside_and_taken_once_it_is_readable(atlas, survey):
    survey.good[1].chmod(0)
    assert ingest(atlas, *survey.good[:3]).rejected == {"unreadable": 1}
    survey.good[1].chmod(0o644)
    assert ingest(atlas, *survey.good[:3]).kept == 3


def test_a_link_that_leads_back_ends(atlas, survey):
    (survey.folder / "20160001" / "loop").symlink_to(survey.folder, target_is_directory=True)
    assert ingest(atlas, survey.folder).kept == 120


def test_a_dead_link_is_accounted_for(atlas, survey, tmp_path):
    (survey.folder / "gone.fits").symlink_to(tmp_path / "nothing")
    report = ingest(atlas, survey.folder)
    assert (report.read, report.kept) == (145, 120)
