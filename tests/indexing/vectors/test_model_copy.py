"""Shards embedded on a Dask cluster: the bytes of one process, the same account, nothing half done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specclip_search.atlas import Atlas
from specclip_search.errors import CheckpointError
from specclip_search.indexing.vectors import model_copy as clustered
from specclip_search.indexing.vectors.embed import embed
from specclip_search.indexing.vectors.estimate import estimate

from ..fakes import FakeModel, fluxes, write_spectra
from .test_estimate import give_estimators

pytest.importorskip("distributed", reason="Dask's cluster is not installed")


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    from dask.distributed import Client

    with Client(processes=False, n_workers=2, threads_per_worker=1, dashboard_address=":0") as client:
        yield client


def make(folder: Path) -> Atlas:
    atlas = Atlas.create(folder)
    flux = [fluxes(40, seed=part) for part in range(3)]
    flux[1][7] = 1.0
    for part, values in enumerate(flux):
        write_spectra(atlas, "gaia_xp", part, values, 2**60 + 100 * part)
    write_spectra(atlas, "lamost_lrs", 0, fluxes(30, "lamost_lrs"), 101)
    return atlas


def written(atlas: Atlas, stage: str = "vectors") -> dict[str, bytes]:
    folder = atlas.path / stage
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("part-*"))}


def test_same_bytes_as_in_one_process(tmp_path: Path, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clustered, "_loaded", lambda copy: FakeModel())
    here, there = make(tmp_path / "here"), make(tmp_path / "there")
    expected = embed(here, FakeModel(), batch_rows=16)
    seen: list[tuple[Any, ...]] = []
    report = embed(there, FakeModel(), batch_rows=16, client=client, progress=lambda *told: seen.append(told))
    assert written(there) == written(here)
    assert len(written(here)) == 8
    for name in ("read", "kept", "rejected", "set_aside", "parts_written", "rows"):
        assert getattr(report, name) == getattr(expected, name)
    assert report.rejected == {"flat_or_zero": 1}
    assert [told[0] for told in seen][-1] == 150
    there.vectors("fake", "gaia_xp").remove(2)
    again = embed(there, FakeModel(), batch_rows=16, client=client)
    assert (again.parts_written, again.parts_current) == (1, 3)
    assert written(there) == written(here)


def test_other_weights_on_a_worker_stop_the_run(tmp_path: Path, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clustered, "_loaded", lambda copy: FakeModel(seed=1))
    atlas = make(tmp_path / "atlas")
    with pytest.raises(CheckpointError, match="holds the weights sha256:fake-1; the run started with sha256:fake-0"):
        embed(atlas, FakeModel(), client=client)
    assert written(atlas) == {}


def test_estimates_are_the_bytes_of_one_process(tmp_path: Path, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = FakeModel(folder=tmp_path / "fake")
    give_estimators(model, tmp_path / "fake", "gaia_xp")
    monkeypatch.setattr(clustered, "_loaded", lambda copy: model)
    here, there = make(tmp_path / "here"), make(tmp_path / "there")
    for atlas in (here, there):
        embed(atlas, model)
    expected, report = estimate(here, model), estimate(there, model, client=client)
    assert written(there, "estimates") == written(here, "estimates")
    assert len(written(here, "estimates")) == 6
    for name in ("rows", "written", "current", "estimated", "flagged"):
        assert getattr(report, name) == getattr(expected, name)
    there.estimates("gaia_xp").remove(1)
    again = estimate(there, model, client=client)
    assert (again.written, again.current) == (1, 2)
    assert written(there, "estimates") == written(here, "estimates")


def test_a_real_model_through_its_copy_in_the_atlas(tmp_path: Path, client: Any) -> None:
    from specclip_search.training.model import load_model

    model = load_model("mini", device="cpu")
    here, there = make(tmp_path / "here"), make(tmp_path / "there")
    embed(here, model)
    embed(there, model, client=client, device="cpu")
    assert written(there) == written(here)
    vectors = np.stack(there.vectors("mini", "gaia_xp").read(["vector"])["vector"].to_pylist())
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=2e-3)
