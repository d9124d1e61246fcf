"""No single file stops an ingest: odd names, pipes, bombs, readers that raise, hang, eat memory or die."""

import gzip
import os
import shutil
import sys

import pytest

from specclip_search.atlas import Atlas
from specclip_search.ingest import ingest_gaia_xp, ingest_lamost, worker
from specclip_search.ingest.files import find_files, real_path, stored_path
from specclip_search.ingest.plan import Plan
from specclip_search.ingest.spectra import by_count, run_ingest

# what a worker process imports: the usual reading, but for files whose names say otherwise
READING = '''
import os, time
from specclip_search.ingest.spectra import read_lamost_file

def reading(path, release):
    name = os.path.basename(path)
    if "raises" in name:
        raise KeyError("odd")
    if "greedy" in name:
        bytearray(1 << 40)
    if "killed" in name and os.environ.get("SPECCLIP_MAY_DIE"):
        os._exit(9)
    if "hangs" in name:
        while True:
            try:
                time.sleep(0.05)
            except Exception:
                pass
    yield from read_lamost_file(path, release)
'''


@pytest.fixture
def atlas(tmp_path):
    return Atlas.create(tmp_path / "atlas")


@pytest.fixture
def good(shared_data):
    return sorted((shared_data / "lamost").rglob("*.fits.gz"))[:4]


@pytest.fixture
def reading(tmp_path, monkeypatch):
    """Importable in this process and in its workers."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "odd_reading.py").write_text(READING)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    import odd_reading

    yield odd_reading.reading
    sys.modules.pop("odd_reading")


def fill(folder, good, *names):
    folder.mkdir()
    for number, name in enumerate(names):
        shutil.copy(good[number % len(good)], folder / name)
    return folder


def ingest(atlas, folder, reading, workers, shard=2):
    def plan(place):
        made = Plan(place)
        made.update(find_files([folder], (".fits.gz",)), by_count(shard), None)
        return made

    return run_ingest(atlas, "lamost_lrs", plan, reading, workers, None)


def messages(atlas):
    table = atlas.rejected("lamost_lrs").read()
    return dict(zip(map(os.path.basename, table["source"].to_pylist()), table["message"].to_pylist(), strict=True))


def test_a_named_pipe_and_a_bomb_are_set_aside_and_the_rest_goes_in(atlas, good, tmp_path):
    folder = fill(tmp_path / "folder", good, "a.fits.gz", "b.fits.gz")
    os.mkfifo(folder / "p.fits")
    with gzip.open(folder / "bomb.fits.gz", "wb") as stream:
        stream.write(bytes(100 << 20))
    report = ingest_lamost(atlas, [folder])
    assert (report.read, report.kept, dict(report.rejected)) == (4, 2, {"unreadable": 2})
    said = messages(atlas)
    assert "is a pipe" in said["p.fits"]
    assert "inflates to more than" in said["bomb.fits.gz"]


def test_a_folder_whose_name_is_not_utf8_goes_in(atlas, good, tmp_path):
    folder = fill(tmp_path / "folder", good, "a.fits.gz")
    inner = os.fsencode(folder) + b"/\xb9\xe2\xc6\xd7"
    os.mkdir(inner)
    shutil.copy(os.fsencode(good[1]), inner + b"/b.fits.gz")
    shutil.copy(os.fsencode(good[2]), inner + b"/c.fits.gz")
    with open(inner + b"/wreck.fits", "wb") as handle:
        handle.write(b"SIMPLE  = nothing")
    report = ingest_lamost(atlas, [folder])
    assert (report.read, report.kept) == (4, 3)
    assert report.rejected == {"unreadable": 1}
    sources = atlas.spectra("lamost_lrs").read(["source"])["source"].to_pylist()
    assert sources[1:] == [rf"{folder}/\xb9\xe2\xc6\xd7/{name}.fits.gz" for name in "bc"]
    # a second run finds the same files, and a change of one of them
    assert ingest_lamost(atlas, [folder]).shards_written == 0
    os.utime(inner + b"/b.fits.gz", ns=(1, 1))
    assert ingest_lamost(atlas, [folder]).shards_written == 1
    listed = tmp_path / "list.txt"
    listed.write_bytes(b"\xef\xbb\xbf" + inner + b"/b.fits.gz\r\n")
    other = Atlas.create(tmp_path / "other")
    assert ingest_lamost(other, [f"@{listed}"]).kept == 1


def test_stored_paths_come_back():
    for path in ("/a/b.fits", os.fsdecode(b"/a/\xff.fits"), "/ä/星.fits"):
        stored_path(path).encode("utf-8")
        assert real_path(stored_path(path)) == path


def test_whatever_a_file_raises_or_takes_it_alone_is_refused(atlas, good, tmp_path, reading, monkeypatch):
    folder = fill(tmp_path / "folder", good, "a.fits.gz", "b-raises.fits.gz", "c-hangs.fits.gz", "d-greedy.fits.gz",
                  "e.fits.gz")
    monkeypatch.setattr(worker, "FILE_SECONDS", 0.3)
    report = ingest(atlas, folder, reading, 1)
    assert report.read == 5
    assert report.rejected["unreadable"] == 3
    said = messages(atlas)
    assert "KeyError" in said["b-raises.fits.gz"]
    assert "gave no spectrum in 0.3 s" in said["c-hangs.fits.gz"]
    assert "more memory than one file may take" in said["d-greedy.fits.gz"]


def test_a_file_that_kills_its_worker_is_found_and_refused(atlas, good, tmp_path, reading, monkeypatch):
    folder = fill(tmp_path / "folder", good, "a.fits.gz", "b-killed.fits.gz", "c.fits.gz", "d-killed.fits.gz")
    monkeypatch.setenv("SPECCLIP_MAY_DIE", "1")
    report = ingest(atlas, folder, reading, 2)
    assert (report.read, report.kept, dict(report.rejected)) == (4, 2, {"unreadable": 2})
    assert "ended the process that read it" in messages(atlas)["d-killed.fits.gz"]
    assert "ended the process that read it" in messages(atlas)["b-killed.fits.gz"]


def test_a_spectrum_that_cannot_be_prepared_does_not_take_others_with_it(atlas, good, tmp_path, monkeypatch):
    folder = fill(tmp_path / "folder", good, "a.fits.gz", "b.fits.gz", "c.fits.gz")
    usual = worker.spectra_table

    def odd(modality, spectra, prepared):
        if any(s.meta["source"].endswith("b.fits.gz") for s in spectra):
            raise OverflowError("fiberid")
        return usual(modality, spectra, prepared)

    monkeypatch.setattr(worker, "spectra_table", odd)
    report = ingest_lamost(atlas, [folder])
    assert (report.read, report.kept) == (3, 2)
    assert "OverflowError" in messages(atlas)["b.fits.gz"]


def test_the_same_for_gaia_xp(tmp_path, cases):
    folder = tmp_path / "xp"
    folder.mkdir()
    shutil.copy(cases / "row-of-many" / "two_rows.csv", folder / "good.csv")
    os.mkfifo(folder / "p.csv")
    report = ingest_gaia_xp(Atlas.create(tmp_path / "atlas"), [folder])
    assert (report.read, report.kept, dict(report.rejected)) == (3, 2, {"unreadable": 1})
