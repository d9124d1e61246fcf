"""`sky_match` in SQL: astropy's pairs, the rows of `crossmatch`, and the tables it may read."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pyarrow as pa
import pytest
from astropy.coordinates import SkyCoord, search_around_sky
from astropy.time import Time

from specclip_search.atlas import Atlas
from specclip_search.catalogs.ingest import ingest_catalog_table
from specclip_search.errors import QueryError
from specclip_search.queries.sky.crossmatch import crossmatch
from specclip_search.queries.sql.ask import connect
from specclip_search.queries.sql.sandbox import Sandbox
from specclip_search.queries.views.connection import AtlasConnection

from ..small_atlas import star


@pytest.fixture
def known(atlas: Atlas) -> Atlas:
    """Beside stars 2 and 7; star 7 twice, one far away, one without position."""
    rows = {
        "name": ["two", "seven", "also seven", "none", "nowhere"],
        "ra": [2.0, 7.0, 7.0002, 100.0, None],
        "dec": [-3 + 1 / 3600, 2.0, 2.0, 0.0, None],
    }
    ingest_catalog_table(atlas, "known", pa.table(rows))
    return atlas


def _rows(connection: AtlasConnection, statement: str) -> pa.Table:
    rows = connection.run(statement)
    assert rows is not None
    return rows.arrow()


def _moving_fields(connection: AtlasConnection) -> tuple[pa.Table, pa.Table]:
    """Two tables of positions over a small field: the second holds the first's stars 16 years on, and others."""
    rng = np.random.default_rng(5)
    ra, dec = rng.uniform(10, 11, 3000), rng.uniform(79, 80, 3000)
    pmra, pmdec = rng.normal(0, 300, (2, 3000))
    now = SkyCoord(
        ra * u.deg, dec * u.deg, pm_ra_cosdec=pmra * u.mas / u.yr, pm_dec=pmdec * u.mas / u.yr, distance=10 * u.pc,
        obstime=Time(2000, format="jyear"), radial_velocity=0 * u.km / u.s,
    ).apply_space_motion(Time(2016, format="jyear"))  # fmt: skip
    ids = np.arange(3000) + (1 << 60)
    first = pa.table({"id": ids, "ra": ra, "dec": dec, "pmra": pmra, "pmdec": pmdec})
    second = pa.table(
        {
            "other": np.arange(4000),
            "ra": np.concatenate([now.ra.deg, rng.uniform(10, 11, 1000)]),
            "dec": np.concatenate([now.dec.deg, rng.uniform(79, 80, 1000)]),
        }
    )
    connection.duckdb.register("first", first)
    connection.duckdb.register("second", second)
    return first, second


def test_all_pairs_are_astropys(atlas: Atlas) -> None:
    with connect(atlas) as connection:
        first, second = _moving_fields(connection)
        found = connection.run(
            "SELECT id, other, separation_arcsec FROM sky_match(first, second, 20, nearest := false)"
        )
        assert found is not None
        ours = found.arrow()
    sides = [SkyCoord(t["ra"].to_numpy() * u.deg, t["dec"].to_numpy() * u.deg) for t in (first, second)]
    left, right, separation, _ = search_around_sky(*sides, 20 * u.arcsec)
    theirs = {(int(i) + (1 << 60), int(j)): s for i, j, s in zip(left, right, separation.arcsec, strict=True)}
    pairs = list(zip(ours["id"].to_pylist(), ours["other"].to_pylist(), strict=True))
    assert len(theirs) > 1000
    assert set(pairs) == set(theirs)
    np.testing.assert_allclose(ours["separation_arcsec"].to_numpy(), [theirs[pair] for pair in pairs], atol=1e-6)


def test_proper_motion_brings_each_star_to_itself(atlas: Atlas) -> None:
    asked = "SELECT id - 1152921504606846976 AS id, other FROM sky_match({}, 0.05, left_epoch := {}, right_epoch := {})"
    with connect(atlas) as connection:
        _moving_fields(connection)
        for sides, epochs in (("'first', 'second'", (2000, 2016)), ("second, first", (2016, 2000))):
            table = _rows(connection, asked.format(sides, *epochs))
            assert table.num_rows == 3000
            assert table["id"].to_pylist() == table["other"].to_pylist()


def test_the_rows_are_those_of_crossmatch(known: Atlas) -> None:
    side = "SELECT source_id, ra, dec FROM stars ORDER BY source_id"
    with connect(known) as connection:
        by_python = crossmatch(connection, side, "known", 2.0)
        table = _rows(connection, f"WITH s AS ({side}) SELECT * FROM sky_match(s, known, 2)")
    assert table.rename_columns(by_python.column_names).to_pylist() == by_python.to_pylist()
    assert table["source_id"].to_pylist() == [star(2), star(7)]
    assert table["candidates"].to_pylist() == [1, 2]
    assert table.schema.field("separation_arcsec").type == pa.float64()


def test_nothing_near_is_no_row(known: Atlas) -> None:
    with connect(known) as connection:
        for side in ("(SELECT * FROM known WHERE ra > 50)", "(SELECT * FROM known WHERE false)"):
            assert _rows(connection, f"WITH far AS {side} SELECT * FROM sky_match(far, stars)").num_rows == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("stars, known, 7200", "at most 3600 arcsec"),
        ("stars, known, left_epoch := 2016", "only the left one, 2016"),
        ("stars, known, left_epoch := 2016, right_epoch := 2000", "neither side has columns pmra"),
        ("stars, nothing", "nothing does not exist"),
        ("stars, bare", '"ra" not found'),
    ],
)
def test_what_cannot_be_matched(known: Atlas, arguments: str, message: str) -> None:
    with connect(known) as connection, pytest.raises(QueryError, match=message):
        _rows(connection, f"WITH bare AS (SELECT 1 AS one) SELECT * FROM sky_match({arguments})")


def test_strangers_match_views_and_nothing_else(known: Atlas) -> None:
    with Sandbox(known) as sandbox:
        answer = sandbox.run("WITH s AS (FROM stars) SELECT name FROM sky_match(s, 'known', radius_arcsec := 2)")
        assert set(answer.table["name"].to_pylist()) == {"two", "seven"}
        for arguments in (
            "'/etc/passwd', stars",
            "stars, pg_settings",
            "main.stars, stars",
            "'st' || 'ars', stars",
            "(SELECT 'duckdb_views'), stars",
            "left_table := 'sqlite_master', right_table := 'stars'",
            "['stars', 'pg_class'], stars",
        ):
            with pytest.raises(QueryError, match="not allowed"):
                sandbox.run(f"SELECT * FROM sky_match({arguments})")
