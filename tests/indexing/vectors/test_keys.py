"""Keys: int64 above 2**53, several releases, missing ids said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from specclip_search.atlas import Atlas
from specclip_search.atlas.arrays import table_from_columns
from specclip_search.atlas.schemas import vectors_schema
from specclip_search.errors import AtlasError, QueryError, VectorIndexError
from specclip_search.indexing.build.build import build_index
from specclip_search.indexing.vectors.keys import NO_SOURCE, KeyTable
from specclip_search.indexing.vectors.table import VectorTable

from ..conftest import BIG, MODEL

# ids that a float64 cannot tell apart
IDS = 2**62 + np.array([3, 1, 2, 1, 7, 2, 1], np.int64)
RELEASES = ["dr7", "dr7", "dr7", "dr11", "dr7", "dr11", "dr9"]
SOURCES = np.ma.masked_array([50, 60, 70, 60, 0, 70, 60], mask=[0, 0, 0, 0, 1, 0, 0])


@pytest.fixture
def atlas(tmp_path: Path) -> Atlas:
    made = Atlas.create(tmp_path / "keys")
    schema = vectors_schema(4)
    stage = made.vectors(MODEL, "lamost_lrs")
    for number, part in enumerate((slice(0, 3), slice(3, 3), slice(3, 7))):
        count = part.stop - part.start
        unit = np.tile(np.eye(4, dtype=np.float32)[:1], (count, 1))
        columns = {"spec_id": IDS[part], "source_id": SOURCES[part], "release": RELEASES[part], "vector": unit,
                   "norm": np.ones(count, np.float32)}
        with stage.lock():
            stage.write(number, table_from_columns(columns, schema), schema=schema, inputs="x",
                        extra={"model_digest": "sha256:tiny"})
    return made


def test_rows_to_keys_and_back(atlas: Atlas) -> None:
    keys = KeyTable.open(atlas, MODEL, "lamost_lrs")
    assert keys.spec_id.dtype == np.int64
    assert keys.spec_id.tolist() == IDS.tolist()
    assert keys.source_id.tolist() == [50, 60, 70, 60, NO_SOURCE, 70, 60]
    assert keys.releases == ("dr7", "dr9", "dr11")
    assert keys.release_names(np.array([0, 3, 6])) == ["dr7", "dr11", "dr9"]
    # the newest release unless one is named; dr11 is newer than dr9
    assert keys.rows_of([2**62 + 1, 2**62 + 3, 2**62 + 1]).tolist() == [3, 0, 3]
    assert keys.rows_of([2**62 + 1], release="dr7").tolist() == [1]
    assert keys.rows_of([]).tolist() == []


def test_all_rows_by_spectrum_and_by_star(atlas: Atlas) -> None:
    keys = KeyTable.open(atlas, MODEL, "lamost_lrs")
    rows, queries = keys.all_rows_of(np.array([2**62 + 2, 5, 2**62 + 1]))
    assert sorted(zip(queries.tolist(), rows.tolist(), strict=True)) == [(0, 2), (0, 5), (2, 1), (2, 3), (2, 6)]
    rows, queries = keys.rows_of_sources(np.array([60, NO_SOURCE, 50]))
    assert sorted(zip(queries.tolist(), rows.tolist(), strict=True)) == [(0, 1), (0, 3), (0, 6), (2, 0)]
    assert [r.tolist() for r in keys.repeats_of(np.array([3, 4]))] == [[1, 3, 6], [4]]


def test_a_missing_id_is_said(atlas: Atlas) -> None:
    keys = KeyTable.open(atlas, MODEL, "lamost_lrs")
    with pytest.raises(QueryError, match=r"No lamost_lrs spectrum with id 5 in this atlas; it holds 7 "
                                         rf"\(ids {2**62 + 1} to {2**62 + 7}, releases: dr7, dr9, dr11\)"):
        keys.rows_of([2**62 + 1, 5])
    with pytest.raises(QueryError, match=r"of release 'dr12' with id 46116860184273879\d\d in"):
        keys.rows_of([2**62 + 1], release="dr12")
    with pytest.raises(QueryError, match="Ids must be 64-bit integers; found float64"):
        keys.rows_of(np.array([2.0**62]))


def test_keys_beside_an_index_are_those_of_the_vectors(make_atlas: Callable[..., Atlas]) -> None:
    atlas = make_atlas(1500)
    build_index(atlas, MODEL, "gaia_xp")
    kept = KeyTable.open(atlas, MODEL, "gaia_xp")
    assert isinstance(kept.spec_id, np.memmap)
    ids = BIG + np.random.default_rng(0).permutation(1500)
    np.testing.assert_array_equal(kept.rows_of(ids), ids - BIG)
    fresh = KeyTable.of(VectorTable(atlas, MODEL, "gaia_xp"))
    np.testing.assert_array_equal(kept.by_spec, fresh.by_spec)


def test_vectors_are_read_by_row(atlas: Atlas, make_atlas: Callable[..., Atlas]) -> None:
    table = VectorTable(make_atlas(5000), MODEL, "gaia_xp")
    everything = np.concatenate([half for _, half in table.batches(333)])
    rows = np.random.default_rng(2).integers(0, 5000, 300)
    np.testing.assert_array_equal(table.read_rows(rows), everything[rows].astype(np.float32))
    assert VectorTable(atlas, MODEL, "lamost_lrs").read_rows(np.array([6, 0])).shape == (2, 4)
    with pytest.raises(QueryError, match="between 0 and 4999; found 0 to 5000"):
        table.read_rows(np.array([0, 5000]))
    with pytest.raises(AtlasError, match="no gaia_xp vectors of 'nobody' yet"):
        VectorTable(atlas, "nobody", "gaia_xp")


def test_shards_without_a_row_are_told_from_none(tmp_path):
    from specclip_search.atlas import Atlas
    from specclip_search.atlas.schemas import vectors_schema
    from specclip_search.errors import VectorIndexError

    stage = Atlas.create(tmp_path / "empty").vectors("mini", "gaia_xp")
    with stage.lock():
        stage.write(0, vectors_schema(8).empty_table(), schema=vectors_schema(8), inputs="x")
    with pytest.raises(VectorIndexError, match="every spectrum was rejected"):
        KeyTable.open(Atlas(tmp_path / "empty"), "mini", "gaia_xp")


def test_a_combined_spectrum_wins_over_its_exposures_wherever_it_stands(tmp_path: Path) -> None:
    """Of a survey with one file an exposure the combined spectrum may come last; epochs survive the index folder."""
    made, schema, ids = Atlas.create(tmp_path / "epochs"), vectors_schema(4, has_epochs=True), 2**62 + 1
    stage = made.vectors(MODEL, "sdss")
    columns = {"spec_id": np.full(4, ids), "source_id": [None] * 4, "release": ["v1", "v1", "v1", "v0"],
               "epoch": [3, 2**60 + 1, None, None], "vector": np.tile(np.eye(4, dtype=np.float32)[:1], (4, 1)),
               "norm": np.ones(4, np.float32)}
    with stage.lock():
        stage.write(0, table_from_columns(columns, schema), schema=schema, inputs="x",
                    extra={"model_digest": "sha256:tiny"})
    keys = KeyTable.open(made, MODEL, "sdss")
    assert keys.rows_of([ids]).tolist() == [2]
    assert keys.rows_of([ids], "v0").tolist() == [3]
    assert keys.epochs(np.arange(4)) == [3, 2**60 + 1, None, None]
    folder = tmp_path / "saved"
    folder.mkdir()
    keys.save(folder)
    assert KeyTable.load(folder, "sdss").epochs(np.arange(4)) == [3, 2**60 + 1, None, None]
    (folder / "epoch.npy").unlink()
    with pytest.raises(VectorIndexError, match=r"epoch\.npy is damaged"):
        KeyTable.load(folder, "sdss")
