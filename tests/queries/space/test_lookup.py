"""Ids to rows: the same rows as a scan finds, kept on disk, made anew when the stage changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from specclip_search.atlas import Atlas
from specclip_search.catalogs import ingest as catalog
from specclip_search.catalogs.ingest import ingest_catalog_table
from specclip_search.queries.space import lookup
from specclip_search.queries.space.lookup import open_lookup


def make(atlas: Atlas, rows: int, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, rows, rows) + 2**60
    table = pa.table(
        {
            "source_id": pa.array(ids, mask=rng.random(rows) < 0.05),
            "ra": rng.uniform(0, 360, rows),
            "dec": np.zeros(rows),
        }
    )
    ingest_catalog_table(atlas, "c", table)
    return atlas.catalog("c").read()


@pytest.mark.parametrize("keep", [0, 10**9])
def test_finds_what_a_scan_finds(atlas: Atlas, monkeypatch: pytest.MonkeyPatch, keep: int) -> None:
    monkeypatch.setattr(lookup, "_WORTH_KEEPING", keep)
    monkeypatch.setattr(catalog, "CHUNK_ROWS", 3000)
    table = make(atlas, 10_000)
    files = atlas.catalog("c").paths()
    assert len(files) == 4
    found = open_lookup(atlas, "c", files, "source_id")
    wanted = np.array([2**60 + 7, 5, 2**60 + 9999, 2**60 + 7, 2**60])
    query, row = found.find(wanted)
    ids = table["source_id"].fill_null(-1).to_numpy()
    expected = [(q, r) for q, one in enumerate(wanted) for r in np.flatnonzero(ids == one)]
    assert list(zip(query.tolist(), row.tolist(), strict=True)) == expected
    shuffled = np.random.default_rng(1).permutation(10_000)[:500]
    assert found.take(shuffled, ["ra", "source_id"]).equals(table.take(pa.array(shuffled)).select(["ra", "source_id"]))
    assert found.take(np.empty(0, np.int64), ["ra"]).num_rows == 0
    kept = list((atlas.path / "indexes" / ".lookup").glob("*.json")) if keep == 0 else []
    assert len(kept) == (keep == 0)


def test_a_changed_stage_is_looked_up_anew(atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "_WORTH_KEEPING", 0)
    make(atlas, 100)
    files = atlas.catalog("c").paths()
    open_lookup(atlas, "c", files, "source_id")
    table = make(atlas, 200, seed=3)
    found = open_lookup(atlas, "c", files, "source_id")
    assert len(found.ids) == len(table["source_id"].drop_null())


def test_an_atlas_that_cannot_be_written_is_read(atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(base: Path, made: object, fingerprint: str) -> None:
        raise PermissionError("read-only file system")

    monkeypatch.setattr(lookup, "_WORTH_KEEPING", 0)
    monkeypatch.setattr(lookup, "_store", refuse)
    table = make(atlas, 100)
    files = atlas.catalog("c").paths()
    assert len(open_lookup(atlas, "c", files, "source_id").ids) == len(table["source_id"].drop_null())


def test_a_damaged_lookup_is_made_again(atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "_WORTH_KEEPING", 0)
    make(atlas, 100)
    files = atlas.catalog("c").paths()
    good = np.array(open_lookup(atlas, "c", files, "source_id").ids)
    (atlas.path / "indexes" / ".lookup" / "c.source_id.ids.npy").write_bytes(b"broken")
    lookup._kept.cache_clear()
    assert np.array_equal(open_lookup(atlas, "c", files, "source_id").ids, good)


def test_rows_of_a_catalogue_by_lookup_are_those_of_the_join(atlas: Atlas) -> None:
    looked_up = atlas.sql("SELECT s.source_id, c.* EXCLUDE (source_id) FROM stars s, stellar_of(s.source_id) c "
                          "ORDER BY ALL").arrow()
    joined = atlas.sql("SELECT * FROM stars s JOIN stellar c USING (source_id) ORDER BY ALL").arrow()
    assert looked_up.num_rows == 3
    assert looked_up["source_id"].to_pylist() == joined["source_id"].to_pylist()
    assert looked_up["phot_g_mean_mag"].to_pylist() == [12.0, 12.0, 15.0]
    assert atlas.sql("SELECT count(*) FROM visits_of(NULL)").fetchall() == [(0,)]
