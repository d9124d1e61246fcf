"""The neighbour graph against brute force; resumable; stale when the vectors change."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from specclip_search.atlas import Atlas
from specclip_search.atlas.arrays import column_to_matrix
from specclip_search.errors import QueryError, VectorIndexError
from specclip_search.indexing.build.build import build_index
from specclip_search.indexing.search.neighbours import neighbour_stage, neighbours

from ..conftest import BIG, LISTS, MODEL, star_vectors, write_vectors


@pytest.mark.parametrize(("recipe", "least"), [("flat", 0.995), (LISTS, 0.97)])
def test_graph_is_brute_force(make_atlas: Callable[..., Atlas], recipe: str, least: float,
                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specclip_search.indexing.search.neighbours.BATCH_ROWS", 300)
    atlas = make_atlas(1500)
    with pytest.raises(VectorIndexError, match="There is no index"):
        neighbours(atlas, MODEL, "gaia_xp")
    build_index(atlas, MODEL, "gaia_xp", recipe=recipe)
    report = neighbours(atlas, MODEL, "gaia_xp", k=8)
    assert (report.rows, report.searched, report.parts_written) == (1500, 1500, 3)
    table = neighbour_stage(atlas, MODEL, "gaia_xp").read()
    rows = column_to_matrix(table.column("neighbour_row"))
    assert table.column("row").to_pylist() == list(range(1500))
    assert table.column("spec_id").to_pylist() == list(range(BIG, BIG + 1500))
    np.testing.assert_array_equal(column_to_matrix(table.column("neighbour_spec_id")), rows + BIG)
    assert not (rows == np.arange(1500)[:, None]).any()
    stored = star_vectors(1500, 0).astype(np.float16).astype(np.float64)
    centred = stored - stored.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    similarity = centred @ centred.T
    np.fill_diagonal(similarity, -2)
    truth = np.argsort(-similarity, axis=1)[:, :8]
    assert np.mean([np.isin(t, f).mean() for f, t in zip(rows, truth, strict=True)]) >= least
    found = column_to_matrix(table.column("similarity"))
    np.testing.assert_allclose(found, np.take_along_axis(similarity, rows, axis=1), atol=2e-3)


def test_only_missing_shards_are_made_and_stale_ones_redone(make_atlas: Callable[..., Atlas]) -> None:
    atlas = make_atlas(1500)
    build_index(atlas, MODEL, "gaia_xp")
    stage = neighbour_stage(atlas, MODEL, "gaia_xp")
    neighbours(atlas, MODEL, "gaia_xp", k=4)
    before = {part.number: part.path.read_bytes() for part in stage.parts()}
    stage.remove(1)
    again = neighbours(atlas, MODEL, "gaia_xp", k=4)
    assert (again.parts_written, again.parts_current, again.searched) == (1, 2, 700)
    assert {part.number: part.path.read_bytes() for part in stage.parts()} == before
    write_vectors(atlas, "gaia_xp", star_vectors(100, 0, seed=4), first_part=2, first_id=BIG + 7000)
    build_index(atlas, MODEL, "gaia_xp")
    third = neighbours(atlas, MODEL, "gaia_xp", k=4)
    assert (third.parts_written, third.parts_current) == (3, 0)
    with pytest.raises(QueryError, match="1 to 1000 neighbours"):
        neighbours(atlas, MODEL, "gaia_xp", k=0)


def test_more_neighbours_than_vectors_pads(make_atlas: Callable[..., Atlas]) -> None:
    atlas = make_atlas(20)
    build_index(atlas, MODEL, "gaia_xp")
    neighbours(atlas, MODEL, "gaia_xp", k=32)
    table = neighbour_stage(atlas, MODEL, "gaia_xp").read()
    rows = column_to_matrix(table.column("neighbour_row"))
    assert ((rows >= 0).sum(axis=1) == 19).all()
    assert (column_to_matrix(table.column("neighbour_spec_id"))[rows < 0] == -1).all()
