"""The SQL page: answers, limits, and no way out."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from .conftest import as_table

WAYS_OUT = [
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_blob('/proc/self/environ')",
    "SELECT * FROM glob('/**')",
    "SELECT * FROM '/etc/passwd'",
    'SELECT * FROM "https://example.org/x.parquet"',
    "SELECT (SELECT content FROM read_text('/etc/passwd'))",
    "WITH x AS (SELECT * FROM read_text('/etc/passwd')) SELECT * FROM x",
    "SELECT * FROM similar('/etc/passwd', 3)",
    "SELECT * FROM translate('/etc/passwd')",
    "COPY (SELECT 1) TO '/tmp/out.csv'",
    "ATTACH '/tmp/x.db' AS x",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "PRAGMA database_list",
    "CREATE TABLE x AS SELECT 1",
    "SELECT 1; SELECT 2",
    "SELECT getenv('HOME')",
    "SELECT current_setting('temp_directory')",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM query('SELECT 1')",
    "SELECT * FROM query_table('/etc/passwd')",
    "DELETE FROM stars",
    "EXPLAIN ANALYZE SELECT * FROM read_text('/etc/passwd')",
    "SELECT '\x00'",
    "SELECT " + "(" * 4000 + "1" + ")" * 4000,
    "x" * 25_000,
]


@pytest.mark.parametrize("statement", WAYS_OUT, ids=range(len(WAYS_OUT)))
def test_every_way_out_is_refused(client: TestClient, shown: Any, statement: str) -> None:
    answer = client.get("/sql.json", params={"q": statement})
    assert answer.status_code == 400
    said = answer.json()
    assert said["error"]
    assert "root:" not in answer.text
    assert str(shown.atlas.path) not in answer.text


def test_the_server_lives_on(client: TestClient, shown: Any) -> None:
    answer = client.get("/sql.json", params={"q": "SELECT count(*) AS n FROM stars"}).json()
    assert answer["rows"] == [[len(shown.source_id)]]


def test_rows_beyond_the_limit_are_told(client: TestClient) -> None:
    answer = client.get("/sql.json", params={"q": "SELECT range AS n FROM range(20000)"}).json()
    assert (len(answer["rows"]), answer["truncated"]) == (10_000, True)


def test_a_search_is_a_table(client: TestClient, shown: Any) -> None:
    key = f"gaia:{shown.source_id[7]}"
    q = f"SELECT h.spec_id, s.feh FROM similar('{key}', 5, within := 'gaia_xp') h JOIN stars s USING (source_id)"
    table = as_table(client.get("/sql.json", params={"q": q}).json())
    near = as_table(client.get(f"/star/{key}/neighbours.json?k=5&within=gaia_xp").json())
    assert set(near["spec_id"].to_pylist()[:4]) <= set(table["spec_id"].to_pylist()) | {str(shown.source_id[7])}


def test_values_that_json_does_not_know(client: TestClient) -> None:
    q = (
        "SELECT 'nan'::DOUBLE AS a, 'inf'::FLOAT AS b, 9007199254740993::BIGINT AS c, NULL AS d, [1, 2] AS e, "
        "{'x': 9223372036854775807} AS f, '\\xAA'::BLOB AS g, DATE '2026-01-02' AS h, true AS i, "
        "1.5::DECIMAL(4,2) AS j, "
        "170141183460469231731687303715884105727::HUGEINT AS k"
    )
    row = client.get("/sql.json", params={"q": q}).json()["rows"][0]
    assert row[:5] == [None, None, "9007199254740993", None, [1, 2]]
    assert row[5] == {"x": "9223372036854775807"}
    assert row[6:9] == ["aa", "2026-01-02", True]


def test_the_schema_tells_what_there_is(client: TestClient, shown: Any) -> None:
    content = client.get("/sql/schema.json").json()
    views = {view["name"]: view for view in content["views"]}
    assert {"stars", "spectra_gaia_xp", "anomalies", "emp", "map", "truth"} <= set(views)
    ra = next(column for column in views["stars"]["columns"] if column["name"] == "ra")
    assert (ra["unit"], ra["type"]) == ("deg", "double")
    for example in content["examples"]:
        answer = client.get("/sql.json", params={"q": example["q"]})
        assert answer.status_code == 200, example
        assert answer.json()["rows"], example
