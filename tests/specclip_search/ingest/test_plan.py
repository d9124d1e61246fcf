"""The plan remembers what belongs together; the ledger knows every key."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specclip_search.errors import AtlasError
from specclip_search.ingest.files import FITS_SUFFIXES, XP_SUFFIXES, FoundFile, find_files
from specclip_search.ingest.plan import KeyLedger, Plan
from specclip_search.ingest.spectra import by_count, by_size


def files(*names, size=10, mtime=1):
    return [FoundFile(f"/data/{name}", size, mtime, True) for name in names]


def paths(plan):
    return [[os.path.basename(path) for path in plan.files(part)["path"].to_pylist()] for part in range(len(plan))]


def test_parts_stay_as_they_were_when_files_are_added(tmp_path):
    plan = Plan(tmp_path)
    plan.update(files("a", "b", "c"), by_count(2), None)
    plan.update(files("a", "aa", "b", "c", "d", "e"), by_count(2), None)
    assert paths(plan) == [["a", "b"], ["c"], ["aa", "d"], ["e"]]
    assert paths(Plan(tmp_path)) == paths(plan)
    assert (plan.n_files, plan.part_sizes()) == (6, [2, 1, 2, 1])


def test_an_unchanged_plan_is_not_written_again(tmp_path):
    plan = Plan(tmp_path)
    plan.update(files("a"), by_count(2), "dr9")
    before = plan.path.stat().st_mtime_ns
    plan.update(files("a"), by_count(2), None)
    plan.update(files("a"), by_count(2), "dr9")
    assert plan.path.stat().st_mtime_ns == before


@pytest.mark.parametrize("change", [{"size": 11}, {"mtime": 2}])
def test_a_change_shows_in_its_own_part_alone(tmp_path, change):
    plan = Plan(tmp_path)
    plan.update(files("a", "b", "c", "d"), by_count(2), None)
    before = [plan.inputs(part, "x") for part in range(2)]
    plan.update([*files("a", "b", "c"), *files("d", **change)], by_count(2), None)
    assert plan.inputs(0, "x") == before[0]
    assert plan.inputs(1, "x") != before[1]
    assert plan.inputs(0, "y") != before[0]


def test_files_that_are_gone_stay_in_the_plan(tmp_path):
    plan = Plan(tmp_path)
    plan.update(files("a", "b"), by_count(2), None)
    plan.update(files("c"), by_count(2), None)
    assert paths(plan) == [["a", "b"], ["c"]]


def test_a_damaged_plan_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "plan.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(AtlasError, match="Remove it together"):
        Plan(tmp_path)


def test_big_files_make_their_own_parts(tmp_path):
    group = by_size(100)
    parts = list(group([*files("a", "b", size=3000), *files("big", size=10**9), *files("c", size=100)]))
    assert [[os.path.basename(file.path) for file in part] for part in parts] == [["a", "b", "big"], ["c"]]


def test_walking_is_in_order_whatever_the_file_system_says(tmp_path):
    for name in ("b/2.fits", "b/1.fits.gz", "a.FITS", "c/d/3.fit", "c/readme.txt", ".hidden.fits"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = [os.path.relpath(file.path, tmp_path) for file in find_files([tmp_path], FITS_SUFFIXES)]
    assert found == ["a.FITS", "b/1.fits.gz", "b/2.fits", "c/d/3.fit"]


def test_the_books_of_a_hats_catalogue_are_no_spectra(tmp_path):
    for name in ("hats.properties", "partition_info.csv", "dataset/Norder=1/Dir=0/Npix=4.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = [os.path.basename(file.path) for file in find_files([tmp_path], XP_SUFFIXES)]
    assert found == ["Npix=4.parquet"]


@given(st.lists(st.lists(st.tuples(st.sampled_from(["dr7", "dr8", None]), st.integers(0, 30)), max_size=12),
                max_size=12))
def test_the_ledger_finds_exactly_what_a_set_finds(parts):
    ledger, seen = KeyLedger(), set()
    for part in parts:
        release = np.array([name for name, _ in part], dtype=object)
        keys = np.array([2**60 + key for _, key in part], dtype=np.int64)
        expected = []
        for name, key in zip(release.tolist(), keys.tolist(), strict=True):
            expected.append((name, key) in seen)
            seen.add((name, key))
        taken = ledger.taken(release, keys)
        assert taken.tolist() == expected
        ledger.add(release[~taken], keys[~taken])
