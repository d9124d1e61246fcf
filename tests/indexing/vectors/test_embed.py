"""Embedding runs: one to one, resumable to the byte, stale redone, nothing dropped in silence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from specclip_search.atlas import Atlas
from specclip_search.atlas.arrays import column_to_matrix
from specclip_search.errors import AtlasError, QueryError
from specclip_search.indexing.vectors.embed import embed

from ..fakes import FakeModel, fluxes, write_spectra

BIG = 2**60 + 1


@pytest.fixture
def atlas(tmp_path: Path) -> Atlas:
    made = Atlas.create(tmp_path / "atlas")
    for part in range(4):
        write_spectra(made, "gaia_xp", part, fluxes(50, seed=part), BIG + 50 * part)
    write_spectra(made, "lamost_lrs", 0, fluxes(30, "lamost_lrs"), 101001)
    return made


def shard_bytes(atlas: Atlas, model: str = "fake") -> dict[str, bytes]:
    folder = atlas.path / "vectors" / model
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("part-*"))}


def test_vectors_are_one_to_one_with_spectra(atlas: Atlas) -> None:
    model = FakeModel()
    report = embed(atlas, model, batch_rows=16)
    assert (report.read, report.kept, dict(report.rejected)) == (230, 230, {})
    assert report.rows == {"gaia_xp": 200, "lamost_lrs": 30}
    assert atlas.active_model == "fake"
    for part in atlas.spectra("gaia_xp").parts():
        made = atlas.vectors("fake", "gaia_xp").part(part.number)
        assert made is not None
        assert made.rows == part.rows
        assert made.extra["model_digest"] == model.digest
    table = atlas.vectors("fake", "gaia_xp").read()
    spectra = atlas.spectra("gaia_xp").read(["spec_id", "source_id", "flux"])
    assert table.column("spec_id").equals(spectra.column("spec_id"))
    assert table.column("source_id").equals(spectra.column("source_id"))
    assert table.column("source_id").null_count == 40
    expected, norms = model.embed_raw("gaia_xp", column_to_matrix(spectra.column("flux")))
    np.testing.assert_array_equal(column_to_matrix(table.column("vector")), expected.astype(np.float16))
    np.testing.assert_array_equal(table.column("norm").to_numpy(), norms)


def test_a_second_run_does_nothing_and_stale_shards_are_redone(atlas: Atlas) -> None:
    embed(atlas, FakeModel())
    before = shard_bytes(atlas)
    again = embed(atlas, FakeModel())
    assert (again.parts_written, again.parts_current, again.read) == (0, 5, 0)
    write_spectra(atlas, "gaia_xp", 2, fluxes(50, seed=77), BIG + 100)
    atlas.spectra("gaia_xp").remove(3)
    third = embed(atlas, FakeModel())
    assert (third.parts_written, third.parts_removed) == (1, 1)
    after = shard_bytes(atlas)
    assert "gaia_xp/part-000003.parquet" not in after
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"gaia_xp/part-000002.parquet", "gaia_xp/part-000002.json"}


def test_other_weights_of_the_same_name_replace_all_vectors(atlas: Atlas) -> None:
    embed(atlas, FakeModel(seed=0))
    report = embed(atlas, FakeModel(seed=1))
    assert report.parts_written == 5
    assert report.replaced_digests == ("sha256:fake-0",)
    assert "were replaced" in str(report)


def test_spectra_without_a_vector_are_set_aside_with_account(atlas: Atlas) -> None:
    flux = fluxes(40, seed=9)
    flux[7] = 1.0
    flux[20, 3] = np.nan
    flux[33, 0] = np.float32(0.25)
    write_spectra(atlas, "gaia_xp", 1, flux, BIG + 1000)
    report = embed(atlas, FakeModel(poison=0.25))
    assert report.read == 220
    assert report.read == report.kept + sum(report.rejected.values())
    assert report.rejected == {"flat_or_zero": 1, "not_finite": 2}
    aside = {(entry[2], entry[3]) for entry in report.set_aside}
    assert aside == {(BIG + 1007, "flat_or_zero"), (BIG + 1020, "not_finite"), (BIG + 1033, "not_finite")}
    part = atlas.vectors("fake", "gaia_xp").part(1)
    assert part is not None
    assert part.rows == 37
    assert part.extra["set_aside"] == [["dr7", BIG + 1007, "flat_or_zero"], ["dr7", BIG + 1020, "not_finite"],
                                       ["dr7", BIG + 1033, "not_finite"]]
    kept = atlas.vectors("fake", "gaia_xp").read(["spec_id", "vector"])
    assert np.isfinite(column_to_matrix(kept.column("vector"))).all()
    assert not {BIG + 1007, BIG + 1020, BIG + 1033} & set(kept.column("spec_id").to_pylist())


def test_an_error_of_the_model_reaches_the_caller_and_writes_no_shard(atlas: Atlas) -> None:
    class Broken(FakeModel):
        def embed_raw(self, modality: str, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        embed(atlas, Broken())
    assert not atlas.vectors("fake", "gaia_xp").exists
    assert not list(atlas.path.rglob(".writing-*"))


def test_the_model_is_copied_into_the_atlas_card_last(atlas: Atlas, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(b"weights")
    (folder / "model.toml").write_text('digest = "sha256:fake-0"\n')
    embed(atlas, FakeModel(folder=folder))
    copy = atlas.model_folder("fake")
    assert (copy / "weights.safetensors").read_bytes() == b"weights"
    assert atlas.models() == ["fake"]
    stamp = (copy / "weights.safetensors").stat().st_mtime_ns
    embed(atlas, FakeModel(folder=folder))
    assert (copy / "weights.safetensors").stat().st_mtime_ns == stamp
    (folder / "weights.safetensors").write_bytes(b"others")
    (folder / "model.toml").write_text('digest = "sha256:fake-1"\n')
    embed(atlas, FakeModel(seed=1, folder=folder))
    assert (copy / "weights.safetensors").read_bytes() == b"others"


def test_bad_requests_are_refused(atlas: Atlas, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="cannot embed 'jwst'"):
        embed(atlas, FakeModel(), ["jwst"])
    empty = Atlas.create(tmp_path / "empty")
    with pytest.raises(AtlasError, match="no gaia_xp spectra yet"):
        embed(empty, FakeModel(), ["gaia_xp"])
    with atlas.vectors("fake", "gaia_xp").lock():
        code = (f"import sys; sys.path[:0] = {sys.path!r}\n"
                "from specclip_search.atlas import Atlas; from specclip_search.indexing.vectors.embed import embed\n"
                f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
                f"from fakes import FakeModel\nembed(Atlas({str(atlas.path)!r}), FakeModel(), ['gaia_xp'])")
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "only one writer" in ended.stderr


def test_killed_and_started_again_ends_with_the_same_bytes(atlas: Atlas, tmp_path: Path) -> None:
    import shutil

    twin = tmp_path / "twin"
    shutil.copytree(atlas.path, twin)
    code = (f"import sys; sys.path[:0] = {[str(Path(__file__).parents[3]), str(Path(__file__).parents[1])]!r}\n"
            "from specclip_search.atlas import Atlas; from specclip_search.indexing.vectors.embed import embed\n"
            f"from fakes import FakeModel\nembed(Atlas({str(twin)!r}), FakeModel(delay=0.05), batch_rows=10)")
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"OMP_NUM_THREADS": "1"})
    vectors = twin / "vectors" / "fake" / "gaia_xp"
    deadline = time.monotonic() + 600
    while not (vectors / "part-000001.json").exists():
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    resumed = embed(Atlas(twin), FakeModel(), batch_rows=10)
    assert 1 <= resumed.parts_written < 5
    assert resumed.parts_current >= 2
    embed(atlas, FakeModel(), batch_rows=10)
    assert shard_bytes(Atlas(twin)) == shard_bytes(atlas)
    assert not list(twin.rglob(".writing-*"))


