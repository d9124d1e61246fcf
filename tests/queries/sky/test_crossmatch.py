"""Tables of an atlas matched by position."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from specclip_search.atlas import Atlas
from specclip_search.catalogs.ingest import ingest_catalog_table
from specclip_search.errors import QueryError
from specclip_search.queries.sky.crossmatch import crossmatch
from specclip_search.queries.views.connection import connect

from ..small_atlas import star


@pytest.fixture
def known(atlas: Atlas) -> Atlas:
    """Stars 2 and 7, an arcsecond off; star 7 twice; one far away."""
    rows = {
        "name": ["two", "seven", "also seven", "none"],
        "ra": [2.0, 7.0, 7.0002, 100.0],
        "dec": [-3 + 1 / 3600, 2.0, 2.0, 0.0],
        "feh": [-3.5, -2.0, -2.1, -4.0],
    }
    ingest_catalog_table(atlas, "known", pa.table(rows))
    return atlas


def test_nearest_with_its_ambiguity(known: Atlas) -> None:
    with connect(known) as connection:
        table = crossmatch(connection, "SELECT source_id, ra, dec FROM stars ORDER BY source_id", "known", 2.0)
    assert table.column_names == [
        "source_id",
        "ra",
        "dec",
        "name",
        "ra_right",
        "dec_right",
        "feh",
        "separation_arcsec",
        "candidates",
    ]
    assert table["source_id"].to_pylist() == [star(2), star(7)]
    assert table["name"].to_pylist() == ["two", "seven"]
    assert table["candidates"].to_pylist() == [1, 2]
    np.testing.assert_allclose(table["separation_arcsec"].to_numpy(), [1.0, 0.0], atol=1e-6)


def test_all_pairs_and_proper_motion(known: Atlas) -> None:
    ingest_catalog_table(
        known, "moving", pa.table({"source_id": [1], "ra": [2.0], "dec": [-3.0], "pmra": [0.0], "pmdec": [1000.0]})
    )
    with connect(known) as connection:
        assert crossmatch(connection, "stars", "known", 2.0, nearest=False).num_rows == 3
        near = crossmatch(connection, "moving", "known", 0.1, left_epoch=2000, right_epoch=2001)
        assert near["name"].to_pylist() == ["two"]
        back = crossmatch(connection, "known", "moving", 0.1, left_epoch=2001, right_epoch=2000)
        assert back["name"].to_pylist() == ["two"]
        assert crossmatch(connection, "moving", "known", 0.1).num_rows == 0


def test_what_cannot_be_matched(known: Atlas) -> None:
    with connect(known) as connection:
        with pytest.raises(QueryError, match="has no columns ra and dec"):
            crossmatch(connection, "stellar", "known")
        with pytest.raises(QueryError, match="neither side has columns pmra"):
            crossmatch(connection, "stars", "known", left_epoch=2000, right_epoch=2016)
