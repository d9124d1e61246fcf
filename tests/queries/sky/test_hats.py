"""LSDB's cross-match on Dask against the match in one process: the same pairs, the same columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from specclip_search.atlas import Atlas
from specclip_search.catalogs.ingest import ingest_catalog_table
from specclip_search.errors import QueryError
from specclip_search.queries.sky.crossmatch import crossmatch
from specclip_search.queries.sky.hats import as_catalogues, crossmatch_hats
from specclip_search.queries.sql.export import export_table
from specclip_search.queries.views.connection import connect
from specclip_search.stages.cluster import cluster_map, dask_client

ROWS = 4000


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    """Two catalogues of the same stars, some close pairs; moved a little, and by proper motion."""
    atlas = Atlas.create(tmp_path_factory.mktemp("sky") / "atlas")
    rng = np.random.default_rng(5)
    ra, dec = rng.uniform(0, 8, ROWS) % 360, rng.uniform(-4, 4, ROWS)
    pm = rng.normal(0, 300, (2, ROWS))
    left = {"source_id": 2**61 + np.arange(ROWS), "ra": ra, "dec": dec, "pmra": pm[0], "pmdec": pm[1]}
    twins = np.r_[np.arange(ROWS - 500), np.arange(400)]
    years = 16.0
    right = {
        "obsid": 10 + np.arange(len(twins)),
        "ra": ra[twins] + years * pm[0][twins] / 3.6e6 / np.cos(np.radians(dec[twins])) + rng.normal(0, 2e-4, 3900),
        "dec": dec[twins] + years * pm[1][twins] / 3.6e6 + rng.normal(0, 2e-4, 3900),
        "feh": np.where(np.arange(3900) % 5 == 0, np.nan, rng.normal(size=3900)),
        "visits": pa.array([None if i % 7 == 0 else i for i in range(3900)], pa.int64()),
    }
    ingest_catalog_table(atlas, "gaia", pa.table(left))
    ingest_catalog_table(atlas, "seen", pa.table(right))
    return atlas


@pytest.fixture(scope="module")
def client(lsdb: Any) -> Any:
    from dask.distributed import Client

    # threads of this process: the scheduler's protocol is the same, and no process need start
    with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=":0") as client:
        yield client


def in_order(table: pa.Table) -> pa.Table:
    return table.sort_by([("source_id", "ascending"), ("separation_arcsec", "ascending")]).combine_chunks()


def test_same_pairs_as_in_one_process(sky: Atlas, client: Any, lsdb: Any, tmp_path: Path) -> None:
    export_table(sky, "gaia", tmp_path / "gaia", "hats", max_rows=900)
    with connect(sky) as connection:
        with as_catalogues(connection, (str(tmp_path / "gaia"), "seen"), 40.0, max_rows=700) as sides:
            ours = crossmatch_hats(client, *sides, 2.0, nearest=False, left_epoch=2000, right_epoch=2016)
            nearest = crossmatch_hats(client, *sides, 2.0, left_epoch=2000, right_epoch=2016)
            still = crossmatch_hats(client, *sides, 2.0, output=tmp_path / "matches")
        assert still is None
        expected = crossmatch(connection, "gaia", "seen", 2.0, left_epoch=2000, right_epoch=2016, nearest=False)
        best = crossmatch(connection, "gaia", "seen", 2.0, left_epoch=2000, right_epoch=2016)
        unmoved = crossmatch(connection, "gaia", "seen", 2.0)
    assert expected.num_rows > 3500
    assert ours is not None
    assert nearest is not None
    assert in_order(ours).equals(in_order(expected))
    assert in_order(nearest).equals(in_order(best))
    assert nearest["candidates"].to_pylist().count(2) > 300
    assert ours.schema.equals(expected.schema, check_metadata=True)
    assert not list(sky.path.glob(".crossmatch-*"))
    written = lsdb.open_catalog(tmp_path / "matches")
    assert len(written) == unmoved.num_rows
    assert set(written.compute(progress_bar=False)["source_id"]) == set(unmoved["source_id"].to_pylist())
    tiles = sorted((tmp_path / "matches").rglob("Npix=*.parquet"))
    shared = list((tmp_path / "matches").rglob("_common_metadata"))
    assert len(tiles) > 1
    assert shared
    for path in (*tiles, *shared):
        schema = pq.read_schema(path)
        for field in expected.schema:
            assert schema.field(field.name).metadata == field.metadata, (path, field.name)
        assert schema.field("_healpix_29").metadata[b"ucd"] == b"pos.healpix"
    assert not list(tmp_path.glob(".matches*"))


def test_a_folder_that_is_taken_is_refused(sky: Atlas, client: Any, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note").write_text("keep me")
    with (
        connect(sky) as connection,
        as_catalogues(connection, ("gaia", "seen"), 3.0) as sides,
        pytest.raises(QueryError, match="mine already exists; a HATS catalogue needs a new folder"),
    ):
        crossmatch_hats(client, *sides, 2.0, output=tmp_path / "mine")
    assert (tmp_path / "mine" / "note").read_text() == "keep me"


def test_what_would_miss_pairs_is_refused(sky: Atlas, client: Any, tmp_path: Path) -> None:
    with connect(sky) as connection, as_catalogues(connection, ("gaia", "seen"), 3.0) as sides:
        with pytest.raises(QueryError, match="margin of 3 arcsec; a match within 4 arcsec would miss"):
            crossmatch_hats(client, *sides, 4.0)
        with pytest.raises(QueryError, match=r"moves .* arcsec; .* leaves the right catalogue's margin"):
            crossmatch_hats(client, *sides, 1.0, left_epoch=2000, right_epoch=2016)
        with pytest.raises(QueryError, match="cannot be opened as a HATS catalogue"):
            crossmatch_hats(client, sides[0], tmp_path, 1.0)


def double(number: int, by: int) -> int:
    if number == 13:
        raise QueryError("13 is not doubled.", "Ask for another.")
    if number == 99:
        raise ZeroDivisionError("99")
    return number * by


def test_cluster_map(client: Any) -> None:
    found = dict(cluster_map(client, double, list(range(12)), 2))
    assert found == {number: 2 * number for number in range(12)}
    with pytest.raises(QueryError, match="13 is not doubled") as caught:
        list(cluster_map(client, double, [1, 13, 2], 2))
    assert caught.value.hint == "Ask for another."
    with pytest.raises(QueryError, match=r"A task of the cluster failed .*ZeroDivisionError"):
        list(cluster_map(client, double, [99], 2))


def test_no_scheduler(lsdb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specclip_search.stages.cluster._CONNECT_S", "0.2s")
    with pytest.raises(QueryError, match="No Dask scheduler answers"), dask_client("tcp://127.0.0.1:9"):
        pass
