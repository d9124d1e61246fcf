"""Ways out of the sandbox: each is refused in one clear line, and the server lives on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from specclip_search.atlas import Atlas
from specclip_search.errors import QueryError
from specclip_search.queries.sql.sandbox import Limits, Sandbox, _deadline, run_untrusted

from ..small_atlas import star

secret_table = [1, 2, 3]

ESCAPES = {
    # reading files
    "SELECT * FROM read_text('/etc/passwd')": "read_text",
    "SELECT * FROM read_blob('/etc/passwd')": "read_blob",
    "SELECT * FROM read_csv('/etc/passwd')": "read_csv",
    "SELECT * FROM read_csv_auto('/etc/passwd')": "read_csv_auto",
    "SELECT * FROM sniff_csv('/etc/passwd')": "sniff_csv",
    "SELECT * FROM read_json('/proc/self/environ')": "read_json",
    "SELECT * FROM read_ndjson_objects('/proc/self/environ')": "read_ndjson_objects",
    "SELECT * FROM read_parquet('{atlas}/spectra/gaia_xp/part-000000.parquet')": "read_parquet",
    "SELECT * FROM parquet_scan(['{atlas}/spectra/gaia_xp/*.parquet'])": "parquet_scan",
    "SELECT * FROM parquet_metadata('{atlas}/spectra/gaia_xp/part-000000.parquet')": "parquet_metadata",
    "SELECT * FROM parquet_kv_metadata('x.parquet')": "parquet_kv_metadata",
    "SELECT * FROM read_duckdb('x.db')": "read_duckdb",
    "SELECT * FROM glob('/**')": "glob",
    "SELECT * FROM '/etc/passwd'": "no view '/etc/passwd'",
    "SELECT * FROM '{atlas}/atlas.toml'": "no view",
    'SELECT * FROM "https://example.org/x.parquet"': "no view",
    "SELECT * FROM 's3://bucket/x.parquet'": "no view",
    "SELECT (SELECT content FROM read_text('/etc/passwd'))": "read_text",
    "SELECT * FROM stars WHERE ra IN (SELECT file FROM glob('/*'))": "glob",
    "SELECT * FROM stars s, LATERAL (SELECT * FROM read_text('/etc/' || s.source_id))": "read_text",
    "WITH x AS (SELECT * FROM read_text('/etc/passwd')) SELECT * FROM x": "read_text",
    'WITH "/etc/passwd" AS (SELECT 1) SELECT * FROM stars': "no plain word",
    "SELECT 1 UNION ALL SELECT content FROM read_text('/etc/passwd')": "read_text",
    "SELECT 1 ORDER BY (SELECT max(content) FROM read_text('/etc/passwd'))": "read_text",
    "SELECT count(*) FILTER (WHERE (SELECT true FROM glob('/*') LIMIT 1)) FROM stars": "glob",
    "VALUES ((SELECT content FROM read_text('/etc/passwd')))": "read_text",
    "SELECT * FROM similar('/etc/passwd', 3)": "not a spectrum key",
    "SELECT * FROM similar('../../secret.fits', 3)": "not a spectrum key",
    # writing, changing, other statements
    "COPY (SELECT 1) TO '/tmp/out.csv'": "COPY statement",
    "COPY stars TO '{atlas}/out.parquet'": "COPY statement",
    "EXPORT DATABASE '/tmp/out'": "EXPORT statement",
    "IMPORT DATABASE '/tmp/out'": "PRAGMA statement",
    "ATTACH '/tmp/x.db' AS x": "ATTACH statement",
    "DETACH memory": "DETACH statement",
    "USE memory": "SET statement",
    "INSTALL httpfs": "LOAD statement",
    "LOAD httpfs": "LOAD statement",
    "SET enable_external_access = true": "SET statement",
    "RESET lock_configuration": "SET statement",
    "PRAGMA database_list": "PRAGMA statement",
    "CALL pragma_version()": "CALL statement",
    "CHECKPOINT": "CALL statement",
    "VACUUM": "VACUUM statement",
    "DROP VIEW stars": "DROP statement",
    "CREATE TABLE x AS SELECT 1": "CREATE statement",
    "CREATE OR REPLACE MACRO cosine(a, b) AS 1": "CREATE statement",
    'CREATE OR REPLACE MACRO "similar"(a) AS TABLE SELECT 1': "CREATE statement",
    "CREATE SECRET x (TYPE s3, KEY_ID 'a', SECRET 'b')": "CREATE statement",
    "INSERT INTO stars VALUES (1)": "INSERT statement",
    "UPDATE stars SET ra = 1": "UPDATE statement",
    "DELETE FROM stars": "DELETE statement",
    "ALTER VIEW stars RENAME TO x": "ALTER statement",
    "COMMENT ON VIEW stars IS 'mine'": "ALTER statement",
    "PREPARE x AS SELECT 1": "PREPARE statement",
    "EXECUTE x": "EXECUTE statement",
    "BEGIN": "TRANSACTION statement",
    "EXPLAIN ANALYZE SELECT * FROM read_text('/etc/passwd')": "EXPLAIN statement",
    "PIVOT stars ON release": "statement",
    # several statements, comments, odd letters
    "SELECT 1; DROP VIEW stars": "2 statements",
    "SELECT 1; SELECT * FROM read_text('/etc/passwd')": "2 statements",
    "SELECT 1 /* ; */ ; -- \n COPY (SELECT 1) TO '/tmp/x'": "2 statements",
    "/* SELECT */ COPY (SELECT 1) TO '/tmp/x'": "COPY statement",
    "SELECT * FROM read_text/**/('/etc/passwd')": "read_text",
    "SELECT * FROM \"read_text\"('/etc/passwd')": "read_text",
    "SELECT * FROM READ_TEXT('/etc/passwd')": "read_text",
    "SELECT * FROM system.main.read_text('/etc/passwd')": "another schema|read_text",
    "SELECT * FROM ｒｅａｄ_ｔｅｘｔ('/etc/passwd')": "may not be called",
    "SELECT * FROM read_text\u200b('/etc/passwd')": "may not be called|not SQL",
    "SELECT 1\x00; COPY (SELECT 1) TO '/tmp/x'": "NUL character",
    "SELECT 1 FROM stars WHERE '\\'; DROP VIEW stars; --'": "statements",
    "": "0 statements",
    "-- nothing": "0 statements",
    "SELEC 1": "not SQL",
    "SELECT '" + "x" * 30_000 + "'": "longer than",
    "SELECT " + "(" * 3000 + "1" + ")" * 3000: "not SQL",
    # looking around
    "SELECT * FROM duckdb_settings()": "duckdb_settings",
    "SELECT * FROM duckdb_secrets()": "duckdb_secrets",
    "SELECT * FROM duckdb_views()": "duckdb_views",
    "SELECT sql FROM sqlite_master": "no view 'sqlite_master'",
    "SELECT * FROM information_schema.tables": "another schema",
    "SELECT * FROM pg_catalog.pg_class": "another schema",
    "SELECT * FROM memory.main.stars": "another schema",
    "SELECT current_setting('temp_directory')": "current_setting",
    "SELECT getenv('HOME')": "getenv",
    "SELECT getvariable('x')": "getvariable",
    "SELECT current_query()": "current_query",
    "SELECT version()": "version",
    "SELECT pg_get_viewdef(1)": "pg_get_viewdef",
    "SELECT write_log('x')": "write_log",
    "SHOW ALL TABLES": "reads from show",
    "SUMMARIZE stars": "reads from show",
    "SELECT * FROM (DESCRIBE stars)": "reads from show",
    # text run as SQL
    "SELECT * FROM query('SELECT 1')": "'query'",
    "SELECT * FROM query_table('stars')": "query_table",
    "SELECT * FROM json_execute_serialized_sql('x')": "json_execute_serialized_sql",
    "FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))": "json_",
    # Python's objects
    "SELECT * FROM secret_table": "no view 'secret_table'",
    "SELECT * FROM atlas": "no view 'atlas'",
    "SELECT * FROM python_map_function(1)": "python_map_function",
    "SELECT * FROM pandas_scan(140234)": "pandas_scan",
    "SELECT * FROM arrow_scan(1, 2, 3)": "arrow_scan",
    "SELECT _similar('/etc/passwd', 1, NULL, NULL)": "_similar",
    # a name of WITH, meant for DuckDB's own views outside of it
    "SELECT * FROM (WITH duckdb_views AS (SELECT 1) SELECT 1) x, duckdb_views": "DuckDB's own",
    "WITH a AS (SELECT sql FROM duckdb_views), duckdb_views AS (SELECT 1) SELECT * FROM a": "DuckDB's own",
    "SELECT * FROM pg_settings WHERE 1 IN (WITH pg_settings AS (SELECT 1) FROM pg_settings)": "DuckDB's own",
    "WITH sqlite_master AS (SELECT * FROM sqlite_master) SELECT * FROM sqlite_master": "DuckDB's own",
    "WITH RECURSIVE Duckdb_Logs(n) AS (SELECT 1 UNION ALL FROM duckdb_logs) FROM duckdb_logs": "DuckDB's own",
    "SELECT 1 WHERE 1 IN (WITH pragma_database_list AS (SELECT 1) SELECT 1)": "DuckDB's own",
    # changes inside WITH
    "WITH x AS (INSERT INTO stars VALUES (1) RETURNING *) SELECT * FROM x": "insert",
    "WITH x AS (DELETE FROM stars RETURNING *) SELECT * FROM x": "delete",
    "WITH x AS (COPY (SELECT 1) TO '/tmp/out.csv') SELECT * FROM x": "copy",
    "WITH x AS (SELECT 1) INSERT INTO stars SELECT * FROM x": "INSERT statement",
    "WITH x AS MATERIALIZED (SELECT * FROM read_text('/etc/passwd')) SELECT 1": "read_text",
    "MERGE INTO stars USING stars ON true WHEN MATCHED THEN DELETE": "MERGE_INTO statement",
    "SET VARIABLE x = 1": "SET statement",
    "UPDATE EXTENSIONS": "unknown statement",
    # calls in odd places
    "SELECT ('/etc/passwd').read_text()": "read_text",
    "SELECT list_transform(['HOME'], lambda x: getenv(x))": "getenv",
    "SELECT invoke(lambda x: getenv(x), 'HOME')": "getenv",
    "SELECT COLUMNS(lambda c: getenv(c) IS NULL) FROM stars": "getenv",
    "SELECT * REPLACE (getenv('HOME') AS ra) FROM stars": "getenv",
    "SELECT 1 LIMIT (SELECT count(*) FROM glob('/*'))": "glob",
    "SELECT 1 OFFSET (SELECT length(content) FROM read_text('/etc/passwd'))": "read_text",
    "SELECT sum(ra) OVER (ORDER BY ra ROWS (SELECT count(*) FROM glob('/*')) PRECEDING) FROM stars": "glob",
    "SELECT ra FROM stars QUALIFY row_number() OVER (ORDER BY getenv('HOME')) = 1": "getenv",
    "SELECT DISTINCT ON (getenv('HOME')) ra FROM stars": "getenv",
    "SELECT 1 GROUP BY GROUPING SETS ((getenv('HOME')))": "getenv",
    "SELECT * FROM stars AT (TIMESTAMP => getenv('HOME')::TIMESTAMP)": "getenv",
    "SELECT * FROM stars POSITIONAL JOIN glob('/*')": "glob",
    "SELECT TRY(getenv('HOME'))": "getenv",
    "FROM (PIVOT (SELECT 1 a) ON a USING sum(getenv('HOME')::INT))": "statement",
    "UNPIVOT stars ON ra INTO NAME n VALUE v": "pivot",
    "SELECT list_aggregate(['a'], 'read_text')": "does not exist",
    # states of aggregates made of one's own bytes, and inner functions
    "SELECT finalize(to_aggregate_state('\\xff'::BLOB, 'string_agg', ['VARCHAR']))": "may not be called",
    "SELECT sum(ra) EXPORT_STATE FROM stars": "internal state",
    "SELECT bitstring_byte_comparable('01'::BIT)": "byte_comparable",
    "SELECT format_type(1, 1)": "format_type",
    "SELECT * FROM seq_scan('x')": "seq_scan",
    "SELECT * FROM create_external_resource('x')": "create_external_resource",
    "SELECT * FROM truncate_duckdb_logs()": "truncate_duckdb_logs",
    "SELECT * FROM translate('gaia:1')": "translate",
    "SELECT _translate('gaia:1', NULL)": "_translate",
    "SELECT 'a'::INET": "not in the catalog|does not exist",
    "SELECT 1 AS '\ud800'": "half of a Unicode character",
    "SELECT strptime('x', repeat('%Y', 1000000))": "Could not parse",
    # holding the server
    "SELECT sleep_ms(100000)": "sleep_ms",
    "SELECT pg_sleep(100)": "pg_sleep",
    "SELECT nextval('x')": "nextval",
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    from ..small_atlas import write_spectra

    atlas = Atlas.create(tmp_path_factory.mktemp("sandbox") / "atlas")
    write_spectra(atlas, "gaia_xp", [star(0), star(1)], source_id=[star(0), star(1)], ra=[1.0, 2.0], dec=[3.0, 4.0])
    with Sandbox(atlas, Limits(seconds=20, rows=100)) as made:
        yield made


def test_there_are_enough_ways_out() -> None:
    assert len(ESCAPES) >= 140


@pytest.mark.parametrize("statement", ESCAPES, ids=[str(number) for number in range(len(ESCAPES))])
def test_way_out_is_refused_in_one_line(shared: Sandbox, statement: str) -> None:
    with pytest.raises(QueryError, match=ESCAPES[statement]) as caught:
        shared.run(statement.replace("{atlas}", str(shared.atlas.path)))
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 400
    assert str(shared.atlas.path) not in str(caught.value).replace(statement, "")


def test_the_same_process_answered_and_still_does(shared: Sandbox, tmp_path: Path) -> None:
    assert shared.run("SELECT count(*) AS n FROM stars").table.to_pylist() == [{"n": 2}]
    before = shared._worker
    for statement in list(ESCAPES)[:5]:
        with pytest.raises(QueryError):
            shared.run(statement)
    assert shared.run("SELECT 1 AS one").table.to_pylist() == [{"one": 1}]
    assert shared._worker is before


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT modality, count(*), median(snr) FROM spectra WHERE ra BETWEEN 0 AND 5 GROUP BY ALL HAVING count(*) > 1",
        "WITH near AS (SELECT * FROM cone(1, 3, 1)) SELECT n.source_id, s.ra + 1 FROM near n JOIN stars s USING (ra)",
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 9) SELECT sum(n) FROM t",
        "SELECT list_transform([1, 2], lambda x: x * 2), CASE WHEN 1 IN (1, 2) THEN 'a' LIKE 'A%' ELSE NOT true END",
        "SELECT row_number() OVER (PARTITION BY simulated_xp ORDER BY ra), lag(ra) OVER (ORDER BY ra) FROM stars",
        "FROM stars SELECT * EXCLUDE (ra) LIMIT 1",
        "SELECT separation_arcsec(ra, dec, 0, 0), cosine([1.0, 2.0], [2.0, 1.0]) FROM stars",
        "SELECT * FROM range(5) r, unnest([1, 2]) u EXCEPT SELECT 1, 2",
        "VALUES (1, 'a')",
        "DESCRIBE stars",
        "SHOW TABLES",
    ],
)
def test_honest_statements_run(shared: Sandbox, statement: str) -> None:
    assert shared.run(statement).table.num_rows > 0


def test_parameters_ids_and_units(shared: Sandbox) -> None:
    table = shared.run("SELECT source_id, ra FROM stars WHERE source_id = ?", [star(1)]).table
    assert table.to_pylist() == [{"source_id": star(1), "ra": 2.0}]
    assert table.schema.field("ra").metadata[b"unit"] == b"deg"
    with pytest.raises(QueryError, match="Parameters must be"):
        shared.run("SELECT ?", [object()])


def test_rows_are_capped_and_said_to_be(shared: Sandbox) -> None:
    answer = shared.run("SELECT * FROM range(1000000000)")
    assert (answer.table.num_rows, answer.truncated) == (100, True)
    assert not shared.run("SELECT * FROM range(100)").truncated


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT count(*) FROM range(10000000000000)",
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t",
        "SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b",
    ],
)
def test_endless_statements_are_stopped(atlas: Atlas, statement: str) -> None:
    with Sandbox(atlas, Limits(seconds=1.0)) as small:
        with pytest.raises(QueryError, match=r"did not end within 1 s|more memory"):
            small.run(statement)
        small.limits = Limits()
        assert small.run("SELECT 1 AS one").table.num_rows == 1


def test_one_stranger_does_not_use_up_the_memory_of_the_next(shared: Sandbox) -> None:
    """A process that has little left is replaced, not left to fail for others."""
    with Sandbox(shared.atlas, Limits(seconds=8, memory_mb=128)) as small:
        for size in (3 * 10**7, 10**8, 3 * 10**8, 10**9):
            with pytest.raises(QueryError, match=r"memory|did not end"):
                small.run(f"SELECT length(array_agg(range ORDER BY hash(range))::VARCHAR) FROM range({size})")
            assert small.run("SELECT count(*) AS n FROM stars").table.to_pylist() == [{"n": 2}]


def test_a_slow_statement_is_not_given_the_time_of_the_start(shared: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    def deadline(worker: Any, seconds: float) -> Any:
        given.append(seconds)
        return _deadline(worker, seconds)

    monkeypatch.setattr("specclip_search.queries.sql.sandbox._deadline", deadline)
    with Sandbox(shared.atlas, Limits(seconds=0.5)) as fresh, pytest.raises(QueryError, match=r"within 0\.5 s"):
        fresh.run("SELECT levenshtein(repeat('a', 500000), repeat('b', 500000))")
    start, before, statement = given
    assert statement < 5 < min(start, before)


def test_a_process_that_does_not_start_is_told(shared: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with Sandbox(shared.atlas) as none, pytest.raises(QueryError, match="did not start"):
        none.run("SELECT 1")


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT repeat('x', 2000000000)",
        "SELECT length(list(range)::VARCHAR) FROM range(300000000)",
        "SELECT range(2000000000)",
        pytest.param("SELECT lpad('x', 2000000000, 'y')", marks=pytest.mark.slow),
        "SELECT string_agg(repeat('x', 1000000), '') FROM range(100000)",
        "SELECT array_agg(a.range) FROM range(100000) a, range(100000) b GROUP BY a.range % 1000",
        "SELECT NULL::INT[100000][100000]",
        "SELECT damerau_levenshtein(repeat('a', 100000), repeat('b', 100000))",
        "SELECT regexp_replace(repeat('a', 50000000), 'a', repeat('b', 1000), 'g')",
        "SELECT from_json('[1]', repeat('[', 100000) || '\"INT\"' || repeat(']', 100000))",
        "SELECT * FROM range(300000000) ORDER BY hash(range)",
    ],
)
def test_memory_bombs_hit_their_cap(atlas: Atlas, statement: str) -> None:
    with Sandbox(atlas, Limits(seconds=4, memory_mb=128)) as small:
        with pytest.raises(QueryError, match=r"[Mm]emory|larger|did not end|size|too large"):
            small.run(statement)
        assert small.run("SELECT 1 AS one").table.num_rows == 1


def test_a_killed_worker_is_replaced(shared: Sandbox) -> None:
    shared.run("SELECT 1")
    assert shared._worker is not None
    shared._worker.kill()
    shared._worker.wait()
    assert shared.run("SELECT 2 AS two").table.to_pylist() == [{"two": 2}]


def test_worker_gets_no_secrets(shared: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "secret")
    with Sandbox(shared.atlas) as made:
        made.run("SELECT 1")
        assert made._worker is not None
        environment = Path(f"/proc/{made._worker.pid}/environ")
        if not environment.exists():
            pytest.skip("this system has no /proc")
        assert b"MY_TOKEN" not in environment.read_bytes()


def test_modules_of_the_working_folder_are_not_run(
    shared: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    assert run_untrusted(shared.atlas, "SELECT 1 AS one").table.num_rows == 1


def test_one_call(atlas: Atlas) -> None:
    assert run_untrusted(atlas, "SELECT count(*) AS n FROM stars").table.to_pylist() == [{"n": 11}]
