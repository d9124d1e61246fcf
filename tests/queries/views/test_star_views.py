"""Labels appended to hits, and conditions turned into keys."""

from __future__ import annotations

import pyarrow as pa
import pytest

from specclip_search.atlas import Atlas
from specclip_search.errors import QueryError
from specclip_search.queries.views.annotate import annotate
from specclip_search.queries.views.connection import connect
from specclip_search.queries.views.where import where_to_keys

from ..small_atlas import star, write_spectra

HITS = pa.table(
    {
        "rank": [1, 2, 3, 4, 5],
        "modality": ["gaia_xp", "lamost_lrs", "gaia_xp", "lamost_lrs", "lamost_lrs"],
        "release": ["dr3", "dr7", "dr3", "dr9", "dr7"],
        "spec_id": [star(5), 106, star(0), 104, 101],
    }
)


def test_annotate_keeps_rows_and_order(atlas: Atlas) -> None:
    with connect(atlas) as connection:
        table = annotate(connection, HITS)
    assert table.select(HITS.column_names).equals(HITS)
    assert table["source_id"].to_pylist() == [star(5), star(8), star(0), None, star(0)]
    assert table["teff"].to_pylist() == [6000.0, 4300.0, 5000.0, None, 5000.0]
    # obsid 104 of another release is not our 104
    assert table["snr"].to_pylist() == [50.0, 8.0, 50.0, None, 3.0]
    assert table["label_source"].to_pylist() == ["stellar", "visits", "stellar", None, "stellar"]
    assert table.schema.field("teff").metadata[b"unit"] == b"K"


def test_annotate_says_what_the_view_says(atlas: Atlas) -> None:
    with connect(atlas) as connection:
        view = connection.sql("SELECT * FROM spectra ORDER BY modality, spec_id").arrow()
        table = annotate(connection, view.select(["modality", "release", "spec_id"]))
        assert table.select(view.column_names).to_pylist() == view.to_pylist()


def test_annotate_leaves_columns_that_are_there(atlas: Atlas) -> None:
    hits = HITS.append_column("source_id", pa.array([1, 2, 3, 4, 5], pa.int64()))
    with connect(atlas) as connection:
        assert annotate(connection, hits)["source_id"].to_pylist() == [1, 2, 3, 4, 5]
        assert annotate(connection, hits.slice(0, 0)).num_rows == 0


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("teff > 4500", [101, 102]),
        ("snr >= 7 AND NOT simulated", [106]),  # not 102, whose S/N is NaN, the largest number for SQL
        ("modality = 'gaia_xp'", []),
        ("source_id IS NULL -- of no known star", [103, 104]),
        (f"source_id IN (SELECT source_id FROM stellar) OR source_id = {star(8)}", [101, 102, 106]),
        ("label_source = 'visits'", [103, 106]),
        ("Teff < 4200 AND spectra.snr > 0", [103]),
    ],
)
def test_where_admits(atlas: Atlas, where: str, expected: list[int]) -> None:
    with connect(atlas) as connection:
        keys = where_to_keys(connection, where, "lamost_lrs")
        view = connection.sql(f"SELECT spec_id FROM spectra WHERE modality = 'lamost_lrs' AND ({where}\n)").arrow()
    assert sorted(keys["spec_id"].to_pylist()) == sorted(view["spec_id"].to_pylist())
    assert sorted(keys["spec_id"].to_pylist()) == expected
    assert set(keys["release"].to_pylist()) <= {"dr7"}


@pytest.mark.parametrize(
    "where",
    [
        "teff >",
        "1) UNION SELECT 1 FROM (SELECT 1",
        "true; DROP VIEW spectra",
        "1 ORDER BY 1",
        "x FROM y",
        "true) ORDER BY (1",
        "",
    ],
)
def test_where_must_be_one_expression(atlas: Atlas, where: str) -> None:
    with connect(atlas) as connection, pytest.raises(QueryError, match="must be one SQL expression") as caught:
        where_to_keys(connection, where, "gaia_xp")
    assert "modality, release, spec_id, source_id, ra, dec, snr, simulated, teff" in caught.value.hint


@pytest.mark.parametrize(
    ("where", "message"), [("tefff > 1", "tefff"), ("sum(teff) > 1", "aggregates"), ("ra = 'x'", "convert")]
)
def test_where_that_cannot_be_used(atlas: Atlas, where: str, message: str) -> None:
    with connect(atlas) as connection, pytest.raises(QueryError, match=message) as caught:
        where_to_keys(connection, where, "gaia_xp")
    assert "Columns: modality" in caught.value.hint


def test_where_without_spectra_of_that_instrument(atlas: Atlas) -> None:
    with connect(atlas) as connection, pytest.raises(QueryError, match="holds no apogee spectra"):
        where_to_keys(connection, "true", "apogee")


def test_releases_of_one_id_are_kept_apart(atlas: Atlas) -> None:
    write_spectra(atlas, "lamost_lrs", [101], part=1, release=["dr10"], snr=[99.0], source_id=[star(0)])
    with connect(atlas) as connection:
        keys = where_to_keys(connection, "snr = 99", "lamost_lrs")
        assert keys.to_pylist() == [{"release": "dr10", "spec_id": 101}]
        both = pa.table({"modality": ["lamost_lrs"] * 2, "release": ["dr7", "dr10"], "spec_id": [101, 101]})
        assert annotate(connection, both)["snr"].to_pylist() == [3.0, 99.0]
