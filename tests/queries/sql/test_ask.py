"""Statements, parameters, forms of the answer, and errors in words."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from specclip_search.atlas import Atlas
from specclip_search.errors import QueryError
from specclip_search.queries.views import connection as sql

from ..small_atlas import star


def test_ids_stay_whole_in_every_form_also_beside_nulls(atlas: Atlas) -> None:
    rows = atlas.sql("SELECT source_id, lamost_spec_id FROM stars ORDER BY source_id NULLS LAST")
    frame = rows.df()
    assert str(frame["source_id"].dtype) == "Int64"
    assert frame["source_id"][0] == star(0)
    assert rows.arrow()["source_id"].type == pa.int64()
    assert rows.fetchall()[0] == (star(0), 101)
    table = rows.qtable()
    assert table["source_id"].dtype == np.int64
    assert int(table["source_id"][0]) == star(0)
    assert bool(table["source_id"].mask[-1])


def test_answer_carries_units_and_ucds(atlas: Atlas) -> None:
    table = atlas.sql("SELECT ra, feh, teff + 1 AS warmer FROM stars").arrow()
    assert table.schema.field("ra").metadata[b"unit"] == b"deg"
    assert table.schema.field("feh").metadata[b"ucd"] == b"phys.abund.Fe"
    assert table.schema.field("warmer").metadata is None
    assert atlas.sql("SELECT ra FROM stars").qtable()["ra"].unit == "deg"


def test_parameters_by_place_and_name(atlas: Atlas) -> None:
    assert atlas.sql("SELECT n_lamost FROM stars WHERE source_id = ?", [star(0)]).fetchall() == [(2,)]
    assert atlas.sql("SELECT n_lamost FROM stars WHERE source_id = $star", {"star": star(3)}).fetchall() == [(1,)]


def test_relation_outlives_the_call_and_goes_on(atlas: Atlas) -> None:
    relation = atlas.sql("SELECT source_id, teff FROM stars").filter("teff > 4500")
    assert sorted(relation.df()["teff"]) == [5000.0, 6000.0]
    assert len(relation) == 2


@pytest.mark.parametrize(
    ("statement", "message", "hint"),
    [
        ("SELECT * FROM starz", "Table with name starz does not exist", "There are: stars, spectra"),
        ("SELECT * FROM anomalies", "Table with name anomalies", r"anomalies \(`specclip-search anomalies`\)"),
        ("SELECT tefff FROM stars", 'Referenced column "tefff" not found', "Candidate bindings: .*teff"),
        ("SELEC 1", "syntax error at or near", "LINE 1: SELEC 1"),
        ("SELECT * FROM stars WHERE source_id = 'x'", "Could not convert string 'x' to INT64", "DESCRIBE"),
        ("SELECT error('no'), teff FROM stars", "no", ""),
        ("SELECT * FROM no_such_variable", "does not exist", "There are"),
    ],
)
def test_errors_say_what_and_what_to_do(atlas: Atlas, statement: str, message: str, hint: str) -> None:
    no_such_variable = pa.table({"x": [1]})  # noqa: F841  a statement must not see Python's variables
    with pytest.raises(QueryError, match=message) as caught:
        atlas.sql(statement).df()
    assert "\n" not in caught.value.message
    import re

    assert re.search(hint, caught.value.hint)


def test_similar_is_a_table_that_joins_and_correlates(atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the search itself finds is its own tests' matter; here it is replaced."""
    asked = []

    def search_hits(atlas: Atlas, target: str, k: int, within: str | None) -> list[tuple]:
        asked.append((target, k, within))
        return [("gaia_xp", star(i), star(i) if i else None, i + 1, 1 - i / 8) for i in range(k)]

    monkeypatch.setattr("specclip_search.queries.sql.search_functions.search_hits", search_hits)
    rows = (
        atlas.sql(
            "SELECT source_id, rank, similarity, teff FROM similar('lamost:101', 6, within := 'gaia_xp') "
            "JOIN stellar USING (source_id) ORDER BY rank"
        )
        .arrow()
        .to_pylist()
    )
    assert rows == [{"source_id": star(5), "rank": 6, "similarity": 0.375, "teff": 6000.0}]
    assert asked[-1] == ("lamost:101", 6, "gaia_xp")
    pairs = atlas.sql("SELECT t.id, s.spec_id FROM (VALUES ('lamost:101'), ('lamost:102')) t(id), similar(t.id, 2) s")
    assert sorted(pairs.fetchall()) == sorted((f"lamost:{n}", star(i)) for n in (101, 102) for i in (0, 1))
    assert len(atlas.sql("SELECT * FROM similar(?, ?)", ["gaia:1", 3]).df()) == 3


def test_similar_without_an_index_fails_only_when_it_runs_and_in_our_words(atlas: Atlas) -> None:
    assert atlas.sql("SELECT 1 AS one").fetchall() == [(1,)]
    with pytest.raises(Exception, match="no vectors yet"):
        atlas.sql("SELECT * FROM similar('lamost:101')").df()


def test_cone_agrees_with_astropy(atlas: Atlas) -> None:
    from astropy.coordinates import SkyCoord

    rows = atlas.sql("SELECT ra, dec, separation_arcsec FROM cone(3.2, -1.7, 2.0) ORDER BY ra").df()
    center = SkyCoord(3.2, -1.7, unit="deg")
    stars = SkyCoord(np.arange(10.0), np.arange(10.0) - 5, unit="deg")
    distance = stars.separation(center).arcsec
    np.testing.assert_allclose(rows["separation_arcsec"], distance[distance <= 7200], rtol=1e-9)
    assert len(rows) == 3


def test_an_empty_atlas_can_be_asked(new_atlas: Callable[[], Atlas]) -> None:
    made = new_atlas()
    assert made.sql("SHOW TABLES").fetchall() == []
    with pytest.raises(QueryError, match="stars does not exist") as caught:
        made.sql("SELECT * FROM stars")
    assert "ingest" in caught.value.hint


def test_process_ends_quietly(atlas: Atlas, tmp_path: Path) -> None:
    code = f"""
from specclip_search import Atlas
rows = Atlas({str(atlas.path)!r}).sql("SELECT source_id FROM stars")
print(len(rows.df()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "11"
    assert done.stderr == ""


def test_read_only_connection_reads_the_atlas_alone(atlas: Atlas, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("a\n1\n")
    with sql.connect(atlas, read_only=True) as connection:
        assert connection.sql("SELECT count(*) FROM stars").fetchall() == [(11,)]
        with pytest.raises(QueryError, match="disabled"):
            connection.sql(f"SELECT * FROM read_csv('{tmp_path}/other.csv')")
        with pytest.raises(QueryError, match="locked"):
            connection.execute("SET enable_external_access = true")
