"""TAP: pyvo is a client, ADQL means what it says, and nothing gets around the sandbox."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import SkyCoord
from starlette.testclient import TestClient

from specclip_search.errors import QueryError

pytest.importorskip("sqlglot", reason="the extra 'web' is not installed")
from specclip_search.web.tap.adql import to_duckdb


@pytest.fixture(scope="module")
def service(shown: Any) -> Iterator[Any]:
    """The survey's TAP service as pyvo sees it."""
    pyvo = pytest.importorskip("pyvo", reason="pyvo is not installed")
    pytest.importorskip("uvicorn", reason="the extra 'web' is not installed")
    from .serving import Served

    served = Served(shown.atlas)
    yield pyvo.dal.TAPService(f"{served.url}/tap")
    served.stop()


def test_pyvo_asks_at_once(service: Any, shown: Any) -> None:
    rows = service.run_sync("SELECT TOP 7 source_id, ra, dec FROM stars ORDER BY source_id")
    assert rows["source_id"].tolist() == shown.source_id[:7].tolist()
    assert rows["source_id"].dtype == np.int64
    assert rows.fieldnames == ("source_id", "ra", "dec")
    assert str(rows.fielddescs[1].unit) == "deg"


def test_pyvo_asks_in_a_job(service: Any, shown: Any) -> None:
    job = service.submit_job("SELECT count(*) AS n FROM stars")
    assert job.phase == "PENDING"
    job.run()
    job.wait(timeout=60)
    assert job.phase == "COMPLETED"
    assert int(job.fetch_result()["n"][0]) == len(shown.source_id)
    job.delete()


def test_pyvo_is_told_what_is_wrong(service: Any) -> None:
    import pyvo

    with pytest.raises(pyvo.dal.DALQueryError, match="no view 'nothing'"):
        service.run_sync("SELECT * FROM nothing")
    job = service.submit_job("SELECT * FROM read_text('/etc/passwd')")
    job.run()
    job.wait(timeout=60)
    assert job.phase == "ERROR"


def test_pyvo_sees_the_tables_and_the_limits(service: Any) -> None:
    tables = service.tables
    assert {"stars", "anomalies", "emp", "map", "truth"} <= set(tables.keys())
    columns = {column.name: column for column in tables["stars"].columns}
    assert columns["ra"].unit == "deg"
    assert columns["source_id"].datatype.content == "long"
    assert service.maxrec == 10_000
    assert service.available


def test_positions_are_those_of_astropy(client: TestClient, shown: Any) -> None:
    place = SkyCoord(180.1, 10.1, unit="deg")
    stars = SkyCoord(
        180 + np.arange(len(shown.source_id)) * 1e-3, 10 + np.arange(len(shown.source_id)) * 1e-3, unit="deg"
    )
    expected = int((stars.separation(place).deg <= 0.05).sum())
    assert expected > 10
    for condition in (
        "1 = CONTAINS(POINT('ICRS', ra, dec), CIRCLE('ICRS', 180.1, 10.1, 0.05))",
        "CONTAINS(POINT(ra, dec), CIRCLE(POINT(180.1, 10.1), 0.05)) = 1",
        "DISTANCE(POINT(ra, dec), POINT(180.1, 10.1)) <= 0.05",
        "DISTANCE(ra, dec, 180.1, 10.1) <= 0.05",
    ):
        query = f"SELECT count(*) AS n FROM stars WHERE {condition}"
        answer = client.post("/tap/sync", data={"QUERY": query, "LANG": "ADQL", "FORMAT": "csv"})
        assert answer.text.split() == ["n", str(expected)], condition


def test_what_adql_means_otherwise() -> None:
    assert to_duckdb("SELECT LOG(x), LOG10(x) FROM t") == "SELECT LN(x), LOG(10, x) FROM t"
    assert to_duckdb("SELECT TOP 3 a FROM tap.t ORDER BY a DESC").startswith("SELECT a FROM t ORDER BY a DESC")
    assert to_duckdb('SELECT "a b" FROM t WHERE x <> 3').endswith("<> 3")
    inner = to_duckdb("SELECT * FROM (SELECT TOP 2 a FROM t) s")
    assert "LIMIT 2" in inner


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT 1; SELECT 2", "one SELECT"),
        ("DROP TABLE stars", "one SELECT"),
        ("DELETE FROM stars", "one SELECT"),
        ("SELECT * FROM t WHERE 1 = CONTAINS(POINT(a, b), BOX(1, 2, 3, 4))", "A CIRCLE was expected"),
        ("SELECT * FROM t WHERE 1 = INTERSECTS(CIRCLE(1, 2, 3), CIRCLE(1, 2, 3))", "INTERSECTS is not understood"),
        ("SELECT POINT(1, 2) FROM t", "POINT is not understood"),
        ("SELECT DISTANCE(1, 2, 3) FROM t", "DISTANCE takes"),
        ("x" * 30_000, "longer than"),
        ("SELECT " + "(" * 3000 + "1" + ")" * 3000, ""),
    ],
)
def test_what_is_no_adql(query: str, message: str) -> None:
    with pytest.raises(QueryError) as refused:
        to_duckdb(query)
    assert message in refused.value.message
    assert refused.value.hint


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"QUERY": ""},
        {"QUERY": "SELECT * FROM read_text('/etc/passwd')"},
        {"QUERY": "SELECT * FROM read_text('/etc/passwd')", "LANG": "SQL"},
        {"QUERY": "COPY stars TO '/tmp/x'", "LANG": "SQL"},
        {"QUERY": "SELECT 1", "LANG": "PQL"},
        {"QUERY": "SELECT 1", "FORMAT": "application/fits"},
        {"QUERY": "SELECT 1", "MAXREC": "-5"},
        {"QUERY": "SELECT 1", "UPLOAD": "t,http://evil.example/x"},
        {"QUERY": "SELECT 1", "REQUEST": "getCapabilities"},
        {"QUERY": "SELECT '\x00'"},
    ],
)
def test_refusals_are_votables(client: TestClient, parameters: dict[str, str]) -> None:
    for answer in (client.post("/tap/sync", data=parameters), client.get("/tap/sync", params=parameters)):
        assert answer.status_code == 400
        assert b'name="QUERY_STATUS" value="ERROR"' in answer.content
        assert b"root:" not in answer.content


def test_formats_and_overflow(client: TestClient, shown: Any) -> None:
    query = {"query": "SELECT source_id FROM stars ORDER BY source_id", "lang": "adql", "maxrec": "3"}
    answer = client.get("/tap/sync", params=query)
    assert b'value="OVERFLOW"' in answer.content
    table = pq.read_table(io.BytesIO(client.get("/tap/sync", params=query | {"responseformat": "parquet"}).content))
    assert table["source_id"].to_pylist() == shown.source_id[:3].tolist()


def test_jobs_belong_to_their_owner_and_end(client: TestClient, shown: Any) -> None:
    made = client.post("/tap/async", data={"QUERY": "SELECT 1 AS one", "PHASE": "RUN"})
    assert made.status_code == 303
    path = made.headers["location"].removeprefix("http://localhost")
    for _ in range(30):
        text = client.get(f"{path}?WAIT=5").text
        if "COMPLETED" in text:
            break
    assert "<uws:phase>COMPLETED</uws:phase>" in text
    assert client.get(f"{path}/results/result").status_code == 200
    assert client.get(f"{path}/owner").text == "owner"
    assert client.get(f"{path}/nothing").status_code == 400
    assert client.post(path, data={"ACTION": "DELETE"}).status_code == 204
    assert client.get(path).status_code == 404
    waiting = client.post("/tap/async", data={"QUERY": "SELECT 1"}).headers["location"].removeprefix("http://localhost")
    assert client.get(f"{waiting}/phase").text == "PENDING"
    assert client.get(f"{waiting}/results/result").status_code == 404
    assert client.post(f"{waiting}/phase", data={"PHASE": "ABORT"}).status_code == 303
    assert client.get(f"{waiting}/phase").text == "ABORTED"
    assert client.post(f"{waiting}/phase", data={"PHASE": "DANCE"}).status_code == 400
