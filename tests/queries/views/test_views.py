"""What the views say, row by row."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from specclip_search.atlas import Atlas
from specclip_search.atlas.schemas import described
from specclip_search.catalogs.ingest import MANIFEST, ingest_catalog_table
from specclip_search.errors import AtlasError, QueryError
from specclip_search.queries.views.connection import connect
from specclip_search.queries.views.views import AtlasViews

from ..small_atlas import DIM, star, write_spectra, write_vectors


def records(atlas: Atlas, statement: str) -> list[dict]:
    return atlas.sql(statement).arrow().to_pylist()


def test_stars_has_one_row_a_star_with_both_spectra(atlas: Atlas) -> None:
    rows = records(atlas, "SELECT * FROM stars ORDER BY source_id NULLS LAST")
    assert len(rows) == 11
    first = rows[0]
    assert (first["source_id"], first["gaia_spec_id"]) == (star(0), star(0))
    # NaN is not the best S/N
    assert (first["lamost_spec_id"], first["n_lamost"], first["snr_lrs"]) == (101, 2, 3.0)
    unknown = rows[-1]
    assert (unknown["source_id"], unknown["lamost_spec_id"], unknown["n_lamost"]) == (None, 104, 2)
    assert rows[3]["simulated_lrs"] is True
    assert rows[3]["simulated_xp"] is False


def test_catalogue_links_a_spectrum_to_its_star(atlas: Atlas) -> None:
    (row,) = records(atlas, f"SELECT lamost_spec_id, gaia_spec_id FROM stars WHERE source_id = {star(8)}")
    assert row == {"lamost_spec_id": 106, "gaia_spec_id": star(8)}
    assert records(atlas, "SELECT source_id FROM spectra WHERE spec_id = 106") == [{"source_id": star(8)}]


def test_obsid_with_two_stars_in_a_catalogue_links_to_neither(new_atlas: Callable[[], Atlas]) -> None:
    made = new_atlas()
    write_spectra(made, "lamost_lrs", [7])
    ingest_catalog_table(made, "twice", pa.table({"obsid": [7, 7], "source_id": [star(1), star(2)]}))
    assert records(made, "SELECT source_id, lamost_spec_id FROM stars") == [{"source_id": None, "lamost_spec_id": 7}]


def test_labels_of_the_spectrum_go_before_those_of_the_star_and_errors_follow_their_value(atlas: Atlas) -> None:
    row = records(atlas, "SELECT * FROM spectra WHERE spec_id = 101")[0]
    # alphabetical: 'stellar' gives teff and feh of the star, with the error of its own feh and not the 9.0 of 'visits'
    assert (row["teff"], row["feh"], row["feh_err"], row["label_source"]) == (5000.0, -1.0, 0.1, "stellar")
    row = records(atlas, "SELECT * FROM spectra WHERE spec_id = 103")[0]
    assert (row["teff"], row["feh"], row["feh_err"], row["label_source"]) == (4100.0, None, None, "visits")


def test_labels_by_obsid_are_not_given_to_simulated_spectra(atlas: Atlas) -> None:
    assert records(atlas, "SELECT teff FROM spectra WHERE spec_id = 105") == [{"teff": None}]


def test_repeated_rows_of_a_catalogue_repeat_no_star(atlas: Atlas) -> None:
    assert records(atlas, "SELECT count(*) AS n FROM spectra") == [{"n": 16}]
    # the first row in the file is taken
    assert records(atlas, f"SELECT teff FROM stars WHERE source_id = {star(0)}") == [{"teff": 5000.0}]


def test_position_comes_from_a_catalogue_where_the_spectrum_has_none(new_atlas: Callable[[], Atlas]) -> None:
    made = new_atlas()
    write_spectra(made, "gaia_xp", [star(0), star(1)], source_id=[star(0), star(1)], ra=[1.5, None], dec=[2.5, None])
    positions = {"source_id": [star(0), star(1)], "ra": [9.0, 10.0], "dec": [9.0, 11.0]}
    ingest_catalog_table(made, "gaia", pa.table(positions))
    for view in ("stars", "spectra"):
        assert records(made, f"SELECT ra, dec FROM {view} ORDER BY ra") == [
            {"ra": 1.5, "dec": 2.5},
            {"ra": 10.0, "dec": 11.0},
        ]


def test_vectors_are_fixed_arrays_and_cosine_is_exact(atlas: Atlas) -> None:
    vectors = write_vectors(atlas, "gaia_xp", [star(i) for i in range(10)], [star(i) for i in range(10)], seed=3)
    rows = atlas.sql(
        "SELECT a.spec_id, cosine(a.vector, b.vector) AS c, array_cosine_similarity(a.vector, b.vector) AS d "
        f"FROM vectors_gaia_xp a, vectors_gaia_xp b WHERE b.spec_id = {star(4)} ORDER BY a.spec_id"
    ).df()
    exact = vectors.astype(float)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    np.testing.assert_allclose(rows["c"], exact @ exact[4], atol=2e-6)
    np.testing.assert_allclose(rows["d"], rows["c"], atol=2e-6)
    kinds = {row["column_name"]: row["column_type"] for row in records(atlas, "DESCRIBE vectors_gaia_xp")}
    assert kinds["vector"] == f"FLOAT[{DIM}]"
    assert kinds["spec_id"] == kinds["source_id"] == "BIGINT"


def test_describe_tells_unit_and_meaning(atlas: Atlas) -> None:
    rows = {row["column_name"]: row for row in records(atlas, "DESCRIBE stars")}
    assert rows["ra"]["meaning"].endswith("[deg]")
    assert rows["teff"]["meaning"] == "effective temperature [K]"
    assert {rows[name]["column_type"] for name in ("source_id", "gaia_spec_id", "lamost_spec_id")} == {"BIGINT"}
    assert all(row["meaning"] for row in rows.values())


def test_only_committed_shards_and_finished_catalogues_are_seen(atlas: Atlas) -> None:
    write_spectra(atlas, "gaia_xp", [star(20)], part=1, source_id=[star(20)])
    assert records(atlas, "SELECT count(*) AS n FROM spectra_gaia_xp") == [{"n": 11}]
    atlas.spectra("gaia_xp").parquet_path(1).with_suffix(".json").unlink()
    with pytest.raises(AtlasError, match="part-000001 missing"):
        records(atlas, "SELECT count(*) AS n FROM spectra_gaia_xp")
    with pytest.warns(UserWarning, match="part-000001"), atlas.spectra("gaia_xp").lock():
        atlas.spectra("gaia_xp").forget_missing()
    assert records(atlas, "SELECT count(*) AS n FROM spectra_gaia_xp") == [{"n": 10}]
    (atlas.catalog("stellar").folder / MANIFEST).unlink()
    assert "stellar" not in AtlasViews(atlas).all
    with pytest.raises(QueryError, match="Table with name stellar does not exist"):
        atlas.sql("SELECT * FROM stellar")


def test_scores_stand_beside_the_star(atlas: Atlas) -> None:
    schema = pa.schema(
        [
            described("source_id", pa.int64(), "star"),
            described("score", pa.float64(), "odd"),
            described("p_value", pa.float64(), "chance"),
            described("kind", pa.string(), "kind"),
        ]
    )
    rows = {
        "source_id": [star(3), star(3), None],
        "score": [2.0, 7.0, 1.0],
        "p_value": [0.5, 0.01, 1.0],
        "kind": ["", "odd", ""],
    }
    stage = atlas.results("anomalies")
    with stage.lock():
        stage.write(0, pa.table(rows, schema=schema), schema=schema, inputs="x")
    (row,) = records(atlas, "SELECT * FROM stars WHERE anomaly_score IS NOT NULL")
    assert (row["source_id"], row["anomaly_score"], row["anomaly_p_value"], row["anomaly_kind"]) == (
        star(3),
        7.0,
        0.01,
        "odd",
    )
    assert records(atlas, "SELECT count(*) AS n FROM anomalies") == [{"n": 3}]


def test_an_atlas_of_one_instrument_has_the_same_columns(new_atlas: Callable[[], Atlas]) -> None:
    made = new_atlas()
    write_spectra(made, "lamost_lrs", [1, 2], source_id=[star(0), None], snr=[1.0, 2.0])
    rows = records(made, "SELECT * FROM stars ORDER BY lamost_spec_id")
    assert [(row["source_id"], row["gaia_spec_id"], row["snr_xp"]) for row in rows] == [
        (star(0), None, None),
        (None, None, None),
    ]


def test_views_are_made_when_named(atlas: Atlas) -> None:
    with connect(atlas) as connection:
        made = "SELECT count(*) FROM duckdb_views() WHERE NOT internal"
        assert connection.duckdb.execute(made).fetchall() == [(0,)]
        connection.execute("SELECT count(*) FROM spectra_gaia_xp")
        assert connection.duckdb.execute(made).fetchall() == [(1,)]
        assert {row[0] for row in connection.execute("SHOW TABLES").fetchall()} == {
            "stars",
            "spectra",
            "epochs",
            "spectra_gaia_xp",
            "spectra_lamost_lrs",
            "stellar",
            "visits",
        }
        assert math.isclose(
            connection.sql("SELECT separation_arcsec(10, 0, 11, 0) AS s").fetchall()[0][0], 3600, rel_tol=1e-12
        )
