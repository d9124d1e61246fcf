"""Builds: determinism, kill and resume, growth, removal, refusals before work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from specclip_search.atlas import Atlas
from specclip_search.errors import VectorIndexError
from specclip_search.indexing.build.build import build_index, plan_build
from specclip_search.indexing.build.check import check_index, index_info
from specclip_search.indexing.build.tune import tune_index
from specclip_search.indexing.search.index import VectorIndex
from specclip_search.indexing.vectors.index_folder import current_generation

from ..conftest import BIG, LISTS, MODEL, star_vectors, write_vectors

AtlasMaker = Callable[..., Atlas]


def index_bytes(atlas: Atlas) -> dict[str, bytes]:
    """Everything an answer depends on; times in index.toml differ."""
    generation = current_generation(atlas, MODEL, "gaia_xp")
    assert generation is not None
    return {p.name: p.read_bytes() for p in generation.folder.iterdir()}


def test_the_same_vectors_and_seed_give_the_same_index(make_atlas: AtlasMaker) -> None:
    one, two = make_atlas(2000, name="one"), make_atlas(2000, name="two")
    for atlas in (one, two):
        build_index(atlas, MODEL, "gaia_xp", recipe=LISTS, seed=3)
    assert index_bytes(one) == index_bytes(two)
    infos = [index_info(atlas, MODEL, "gaia_xp") for atlas in (one, two)]
    for key in ("search", "recall", "learnt", "recipe", "vectors_digest", "centring"):
        assert infos[0][key] == infos[1][key], key
    assert build_index(one, MODEL, "gaia_xp", recipe=LISTS, seed=3).action == "current"
    assert build_index(one, MODEL, "gaia_xp", recipe=LISTS, seed=4).action == "built"


def test_report_measures_recall_and_what_centring_gains(make_atlas: AtlasMaker) -> None:
    report = build_index(make_atlas(3000), MODEL, "gaia_xp", recipe=LISTS)
    assert report.recipe == "PCAR32,IVF32,PQ16np"
    groups = {recall.group: recall for recall in report.recall}
    assert {"in-instrument", "cross-instrument, from lamost_lrs", "lowest 1 % in density"} <= groups.keys()
    assert min(groups["in-instrument"].at_10, groups["in-instrument"].at_100) >= 0.97
    gain = report.centring[0]
    assert gain.modality == "lamost_lrs"
    # the two views differ by a constant offset: centring must find more of the counterparts
    assert gain.with_centring[0] > gain.without[0] + 0.05
    assert "own star first" in str(report)


def test_the_automatic_recipe_is_flat_when_small(make_atlas: AtlasMaker) -> None:
    report = build_index(make_atlas(500), MODEL, "gaia_xp")
    assert (report.recipe, report.action) == ("flat", "built")


def test_rare_strata_are_measured_apart(make_atlas: AtlasMaker) -> None:
    import pyarrow as pa

    from ..fakes import fluxes, write_spectra

    atlas = make_atlas(1400)
    write_spectra(atlas, "gaia_xp", 0, fluxes(700), BIG)
    schema = pa.schema([("source_id", pa.int64()), ("feh", pa.float32())])
    labels = pa.table({"source_id": BIG + np.arange(0, 1400, 10), "feh": np.linspace(-3, 0, 140, dtype="f4")}, schema)
    with atlas.catalog("labels").lock():
        atlas.catalog("labels").write(0, labels, schema=schema, inputs="labels")
    report = build_index(atlas, MODEL, "gaia_xp", recipe=LISTS)
    groups = {recall.group: recall.queries for recall in report.recall}
    assert groups["[Fe/H] < -2"] == 23
    assert groups["S/N < 15"] == 64


def test_a_killed_build_leaves_the_old_index_and_continues(make_atlas: AtlasMaker, tmp_path: Path) -> None:
    atlas, twin = make_atlas(2100), make_atlas(2100, name="twin")
    build_index(atlas, MODEL, "gaia_xp", recipe="flat")
    before = index_bytes(atlas)
    root = str(Path(__file__).parents[3])
    code = (f"import sys, time; sys.path.insert(0, {root!r})\n"
            "from specclip_search.atlas import Atlas; from specclip_search.indexing import build_index\n"
            "from specclip_search.indexing.build import steps\n"
            "real = steps.InvertedLists.encode\n"
            "def slow(self, vectors):\n    time.sleep(0.5); return real(self, vectors)\n"
            "steps.InvertedLists.encode = slow\n"
            f"build_index(Atlas({str(atlas.path)!r}), {MODEL!r}, 'gaia_xp', recipe={LISTS!r})")
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"OMP_NUM_THREADS": "1"})
    building = atlas.index_folder(MODEL, "gaia_xp") / "building"
    deadline = time.monotonic() + 600
    while not (building / "codes-000000.npy").exists():
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (building / "codes-000002.npy").exists()
    assert index_bytes(atlas) == before
    assert VectorIndex.open(atlas, MODEL, "gaia_xp").kind == "flat"
    trained = (building / "trained.faiss").stat().st_mtime_ns
    codes = (building / "codes-000000.npy").stat().st_mtime_ns
    stamps: list[int] = []

    def note(done: int, total: int | None, step: str = "") -> None:
        stamps.append((building / "trained.faiss").stat().st_mtime_ns)
        stamps.append((building / "codes-000000.npy").stat().st_mtime_ns)

    build_index(atlas, MODEL, "gaia_xp", recipe=LISTS, progress=note)
    assert {trained, codes} == set(stamps)
    build_index(twin, MODEL, "gaia_xp", recipe=LISTS)
    assert index_bytes(atlas) == index_bytes(twin)
    assert not building.exists()
    assert len(list(building.parent.glob("generation-*"))) == 1


def test_new_shards_are_added_without_learning_anew(make_atlas: AtlasMaker) -> None:
    atlas = make_atlas(2100)
    build_index(atlas, MODEL, "gaia_xp", recipe=LISTS)
    everything = star_vectors(2800, 0)
    old = VectorIndex.open(atlas, MODEL, "gaia_xp")
    asked = old.vectors(np.arange(5))
    answer = old.search(asked, 10, query_modality="gaia_xp", centred=True)
    # the same population: other rows of the same manifold
    added = star_vectors(2100, 0)[:700] + np.random.default_rng(0).normal(size=(700, 64)).astype("f4") * 0.01
    added /= np.linalg.norm(added, axis=1, keepdims=True)
    write_vectors(atlas, "gaia_xp", added, first_part=3, first_id=BIG + 5000)
    report = build_index(atlas, MODEL, "gaia_xp", recipe=LISTS)
    assert report.action == "grown"
    assert report.drift is not None
    assert report.drift.small
    assert "training" not in report.seconds or report.seconds["training"] < 0.5
    assert report.rows == len(everything)
    new = VectorIndex.open(atlas, MODEL, "gaia_xp")
    found = new.search(added[:50], 1, query_modality="gaia_xp")
    assert (found.rows[:, 0] == 2100 + np.arange(50)).mean() > 0.95
    # a reader that had the old one open is not disturbed
    np.testing.assert_array_equal(old.search(asked, 10, query_modality="gaia_xp", centred=True).rows, answer.rows)
    assert check_index(atlas, MODEL, "gaia_xp", full=True).ok


def test_removed_and_replaced_shards_disappear(make_atlas: AtlasMaker) -> None:
    atlas = make_atlas(3500)
    build_index(atlas, MODEL, "gaia_xp", recipe=LISTS)
    atlas.vectors(MODEL, "gaia_xp").remove(1)
    replaced = star_vectors(3500, 0)[2100:2500]
    write_vectors(atlas, "gaia_xp", replaced, first_part=3, first_id=BIG + 9000)
    report = build_index(atlas, MODEL, "gaia_xp", recipe=LISTS)
    assert (report.action, report.rows) == ("grown", 2500)
    index = VectorIndex.open(atlas, MODEL, "gaia_xp")
    all_vectors = star_vectors(3500, 0)
    expected = np.concatenate([all_vectors[:700], all_vectors[1400:2100], replaced, all_vectors[2800:]])
    stored = expected.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(index.raw_vectors(np.arange(2500)), stored)
    found = index.search(expected[::25], 1, query_modality="gaia_xp")
    assert (found.rows[:, 0] == np.arange(0, 2500, 25)).mean() > 0.95
    gone, _ = index.keys.all_rows_of(BIG + np.arange(700, 1400))
    assert not len(gone)
    assert check_index(atlas, MODEL, "gaia_xp", full=True).ok


def test_growth_that_drifts_is_said_and_learnt_anew(make_atlas: AtlasMaker) -> None:
    atlas = make_atlas(2100)
    build_index(atlas, MODEL, "gaia_xp", recipe=LISTS)
    strange = np.random.default_rng(1).normal(size=(700, 64)).astype("f4")
    strange /= np.linalg.norm(strange, axis=1, keepdims=True)
    write_vectors(atlas, "gaia_xp", strange, first_part=3, first_id=BIG + 5000)
    report = build_index(atlas, MODEL, "gaia_xp", recipe=LISTS)
    assert report.action == "built"
    assert report.drift is not None
    assert report.drift.distance > 1.15
    assert "retrained: new vectors lie" in str(report)
    # noise in all directions cannot be compressed so far: that is said too
    assert not report.recall_reached
    assert "was not reached" in str(report)
    found = check_index(atlas, MODEL, "gaia_xp", full=True).findings
    assert {finding.subject for finding in found if finding.status == "problem"} == {"recall"}


def test_what_cannot_fit_is_refused_before_work(make_atlas: AtlasMaker) -> None:
    atlas = make_atlas(1000)
    with pytest.raises(VectorIndexError, match=r"needs 7\d\d MB of memory; 10 MB are allowed: 7\d\d MB are missing"):
        build_index(atlas, MODEL, "gaia_xp", memory="10M")
    assert not atlas.index_folder(MODEL, "gaia_xp").exists()
    recipe, needs = plan_build(atlas, MODEL, "gaia_xp", memory="4G", recipe="PCA32,IVF16,PQ8")
    assert str(recipe) == "PCAR32,IVF16,PQ8np"
    assert 0 < needs.search_memory < needs.build_memory
    assert needs.disk < needs.build_disk
    for text, message in (("PCA32,IVF16,PQ7", "must divide"), ("PCA99,IVF16,PQ9", "the vectors have 64"),
                          ("IVF5000,PQ8", "at least 5000 vectors"), ("hnsw", "is not an index recipe")):
        with pytest.raises(VectorIndexError, match=message):
            plan_build(atlas, MODEL, "gaia_xp", recipe=text)
    with pytest.raises(VectorIndexError, match="'lots' is not an amount of memory"):
        plan_build(atlas, MODEL, "gaia_xp", memory="lots")


def test_what_a_disk_cannot_hold_is_refused(make_atlas: AtlasMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    atlas = make_atlas(1000)
    _, needs = plan_build(atlas, MODEL, "gaia_xp", recipe="PCA32,IVF16,PQ8")

    class Small:
        free = needs.build_disk - 30_000

    monkeypatch.setattr("specclip_search.indexing.build.costs.shutil.disk_usage", lambda _: Small)
    with pytest.raises(VectorIndexError, match=r"needs \d+ kB of disk in .*; \d+ kB are free: 30 kB are missing"):
        build_index(atlas, MODEL, "gaia_xp", recipe="PCA32,IVF16,PQ8")
    assert not atlas.index_folder(MODEL, "gaia_xp").exists()


def test_check_finds_what_is_damaged(make_atlas: AtlasMaker) -> None:
    atlas = make_atlas(1500)
    build_index(atlas, MODEL, "gaia_xp", recipe=LISTS)
    assert check_index(atlas, MODEL, "gaia_xp").ok
    generation = current_generation(atlas, MODEL, "gaia_xp")
    assert generation is not None
    keys = np.load(generation.folder / "spec_id.npy")
    np.save(generation.folder / "spec_id.npy", keys[::-1])
    with open(generation.folder / "store.f16", "r+b") as handle:
        first = handle.read(128)
        handle.seek(0)
        handle.write(first[::-1])
    problems = {f.subject for f in check_index(atlas, MODEL, "gaia_xp", full=True).findings if f.status == "problem"}
    assert problems >= {"files", "keys", "store"}
    os.truncate(generation.folder / "store.f16", 1000)
    findings = check_index(atlas, MODEL, "gaia_xp").findings
    assert "must hold 1500 vectors" in findings[0].finding
    (generation.folder / "store.f16").unlink()
    with pytest.raises(VectorIndexError, match="found no file"):
        VectorIndex.open(atlas, MODEL, "gaia_xp")


def test_a_damaged_manifest_or_faiss_file_is_said(make_atlas: AtlasMaker) -> None:
    atlas = make_atlas(1500)
    build_index(atlas, MODEL, "gaia_xp", recipe=LISTS)
    generation = current_generation(atlas, MODEL, "gaia_xp")
    assert generation is not None
    whole = (generation.folder / "index.faiss").read_bytes()
    (generation.folder / "index.faiss").write_bytes(whole[:2000])
    with pytest.raises(VectorIndexError, match=r"index\.faiss is damaged"):
        VectorIndex.open(atlas, MODEL, "gaia_xp")
    manifest = atlas.index_folder(MODEL, "gaia_xp") / "index.toml"
    manifest.write_text("format = 99\n")
    with pytest.raises(VectorIndexError, match="format 1 is expected, found 99"):
        VectorIndex.open(atlas, MODEL, "gaia_xp")
    manifest.write_text("= nonsense")
    with pytest.raises(VectorIndexError, match="not valid TOML"):
        VectorIndex.open(atlas, MODEL, "gaia_xp")


def test_tuning_keeps_what_it_finds(make_atlas: AtlasMaker) -> None:
    atlas = make_atlas(4000)
    build_index(atlas, MODEL, "gaia_xp", recipe="PCA32,IVF64,PQ8", wished_recall=0.7)
    first = VectorIndex.open(atlas, MODEL, "gaia_xp")
    report = tune_index(atlas, MODEL, "gaia_xp", recall=0.98)
    assert report.before == (first.tuned_nprobe, first.tuned_rerank)
    assert report.after > report.before
    assert report.reached
    assert min(r.at_10 for r in report.recall[:2]) > 0.95
    again = VectorIndex.open(atlas, MODEL, "gaia_xp")
    assert (again.tuned_nprobe, again.tuned_rerank) == report.after
    assert index_info(atlas, MODEL, "gaia_xp")["recall"][0]["at_10"] == round(report.recall[0].at_10, 5)
    with pytest.raises(VectorIndexError, match="between 0 and 1"):
        tune_index(atlas, MODEL, "gaia_xp", recall=99)
