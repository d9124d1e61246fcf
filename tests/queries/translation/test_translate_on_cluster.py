"""Translation errors made on a Dask cluster: the bytes and the account of one process."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specclip_search.atlas import Atlas
from specclip_search.errors import QueryError
from specclip_search.indexing.vectors import model_copy as clustered
from specclip_search.queries.translation.translate import translate
from specclip_search.surveys import LAMOST_LRS

pytest.importorskip("distributed", reason="Dask's cluster is not installed")
LRS = "lamost_lrs"


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    from dask.distributed import Client

    with Client(processes=False, n_workers=2, threads_per_worker=1, dashboard_address=":0") as client:
        yield client


def shards(atlas: Atlas) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(atlas.translations("toy").folder.iterdir())}


def test_same_bytes_as_in_one_process(
    survey_maker: Callable[..., Any],
    add_spectra: Callable[..., None],
    client: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    survey = survey_maker(stars=400, shards=3)
    # a shard of which no spectrum has a partner
    flux = np.ones((2, LAMOST_LRS.size), np.float32)
    add_spectra(survey.atlas, LRS, np.array([9, 8]), np.array([-1, -1]), flux, flux / 10, np.full(2, 20.0), first=3)
    monkeypatch.setattr(clustered, "_loaded", lambda copy: survey.model)
    there = Atlas(shutil.copytree(survey.atlas.path, tmp_path / "there"))
    expected = translate(survey.atlas, survey.model)
    seen: list[tuple[Any, ...]] = []
    report = translate(there, survey.model, lambda *told: seen.append(told), client=client)
    assert shards(there) == shards(survey.atlas)
    assert report == expected
    assert report.shards_written == 4
    assert seen[-1][0] == report.pairs + report.rejected > 300
    there.translations("toy").remove(1)
    again = translate(there, survey.model, client=client)
    assert (again.shards_written, again.shards_current) == (1, 3)
    assert shards(there) == shards(survey.atlas)


def test_errors_that_changed_on_the_way_stop_the_run(
    survey_maker: Callable[..., Any], client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    survey = survey_maker(stars=400)
    monkeypatch.setattr(clustered, "_loaded", lambda copy: survey.model)
    monkeypatch.setattr("specclip_search.queries.translation.learned_errors.load_errors", lambda folder: None)
    with pytest.raises(QueryError, match="has changed since the run began"):
        translate(survey.atlas, survey.model, client=client)
    assert survey.atlas.translations("toy").parts() == []
