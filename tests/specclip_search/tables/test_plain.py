"""Every type of SQL goes into every format: numbers exact, nothing fails, nulls are nulls."""

from __future__ import annotations

import csv
import json
import warnings
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table

from specclip_search.tables import write_rows

BIG = 123456789012345678901234567890123456789012
# type -> two values in SQL, and what a reader gets of the first two rows: text, or a number
TYPES: dict[str, tuple[str, str, Any, Any]] = {
    "BOOLEAN": ("true", "false", True, False),
    "TINYINT": ["(-128)", "127", "-128", "127"],
    "SMALLINT": ["(-32768)", "32767", "-32768", "32767"],
    "INTEGER": ["(-2147483648)", "5", "-2147483648", "5"],
    "BIGINT": ["(-9223372036854775808)", "9223372036854775807", "-9223372036854775808", "9223372036854775807"],
    "HUGEINT": ["(-9223372036854775808)", "7", "-9223372036854775808", "7"],
    "UTINYINT": ["255", "0", "255", "0"],
    "USMALLINT": ["65535", "0", "65535", "0"],
    "UINTEGER": ["4294967295", "0", "4294967295", "0"],
    "UBIGINT": ["9223372036854775807", "0", "9223372036854775807", "0"],
    "UHUGEINT": ["5", "0", "5", "0"],
    "DECIMAL(9,2)": ("1.10", "-3.25", 1.1, -3.25),
    "DECIMAL(18,0)": ["123456789012345678", "-1", "123456789012345678", "-1"],
    "FLOAT": ("0.5", "-2.25", 0.5, -2.25),
    "DOUBLE": ("0.1", "1e300", 0.1, 1e300),
    "VARCHAR": ("'a,\"b\"'", "'é'", 'a,"b"', "é"),
    "UUID": ("'123e4567-e89b-12d3-a456-426614174000'",) * 2 + ("123e4567-e89b-12d3-a456-426614174000",) * 2,
    "DATE": ("'2020-01-02'", "'1582-10-15'", "2020-01-02", "1582-10-15"),
    "ENUM('x', 'yy')": ("'x'", "'yy'", "x", "yy"),
    "JSON": ("'{\"a\": 1}'", "'[]'", '{"a": 1}', "[]"),
    # too large for 64 bits: digits as text, never rounded
    "HUGEINT /* large */": (str(2**127 - 1), "1", str(2**127 - 1), "1"),
    "UBIGINT /* large */": ("18446744073709551615", "1", "18446744073709551615", "1"),
    "DECIMAL(38,4)": ("12345678901234567890.1234", "1.5", "12345678901234567890.1234", "1.5000"),
    "BIGNUM": (f"'{BIG}'", f"'-{BIG}'", str(BIG), str(-BIG)),
    "INTERVAL": ("'1 month 2 days 3.5 seconds'", "'1 hour'", "P1M2DT3.5S", "PT3600S"),
}
# what has no one right spelling in text; it must go through, with its nulls
OTHERS = {
    "TIMESTAMP": "'2020-01-02 03:04:05.123456'",
    "TIMESTAMPTZ": "'2020-01-02 03:04:05+02'",
    "TIMESTAMP_NS": "'2020-01-02 03:04:05.123456789'",
    "TIMESTAMP_S": "'2020-01-02 03:04:05'",
    "TIMESTAMP_MS": "'2020-01-02 03:04:05'",
    "TIME": "'03:04:05.5'",
    "TIMETZ": "'03:04:05+02'",
    "TIME_NS": "'03:04:05.5'",
    "BLOB": "'\\xAA\\x00'",
    "BIT": "'10101'",
    "INTEGER[]": "[1, NULL]",
    "DECIMAL(4, 1)[]": "[1.5]",
    "HUGEINT[]": "[170141183460469231731687303715884105727]",
    "INTERVAL[]": "['1 day']",
    "FLOAT[2]": "[1, 2]",
    "STRUCT(a INTEGER, b BLOB)": "{'a': 1, 'b': '\\xAA'::BLOB}",
    "MAP(VARCHAR, INTEGER)": "MAP {'k': 1}",
    "UNION(n INTEGER, s VARCHAR)": "5",
    "VARIANT": "5",
    "INTEGER[][]": "[[1], [2]]",
}
FORMATS = ("table", "csv", "json", "parquet", "votable", "fits")


def column(kind: str, values: list[str]) -> pa.Table:
    rows = " UNION ALL ".join(f"SELECT {n} AS n, {value}::{kind} AS v" for n, value in enumerate(values))
    with duckdb.connect() as connection:
        return connection.sql(f"SELECT v FROM ({rows}) ORDER BY n").to_arrow_table()


def read_back(path: Path) -> list[Any]:
    if path.suffix == ".csv":
        with open(path, encoding="utf-8", newline="") as handle:
            return [row["v"] or None for row in csv.DictReader(handle)]
    if path.suffix == ".json":
        return [row["v"] for row in json.loads(path.read_text(encoding="utf-8"))]
    if path.suffix == ".parquet":
        return pq.read_table(path)["v"].to_pylist()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = Table.read(path)["v"]
    masked = getattr(values, "mask", [False] * len(values))
    found = [None if hidden else value for value, hidden in zip(values.tolist(), masked, strict=True)]
    return [value.decode() if isinstance(value, bytes) else value for value in found]


@pytest.mark.parametrize("format", FORMATS[1:])
@pytest.mark.parametrize("kind", TYPES)
def test_values_come_back_exactly(tmp_path: Path, kind: str, format: str) -> None:
    *literals, first, second = TYPES[kind]
    path = tmp_path / f"rows.{'vot' if format == 'votable' else format}"
    write_rows(column(kind, [*literals, "NULL"]), format, path)
    found = read_back(path)
    wanted = [first, second]
    if format == "fits":
        wanted = [w.replace("é", "?").replace("\u0301", "") if isinstance(w, str) else w for w in wanted]
        found = [v.replace("e", "?") if kind == "VARCHAR" and v == "e" else v for v in found]
    assert [plain(value) for value in found[:2]] == [plain(value) for value in wanted]
    assert found[2] in (None, "") or found[2] != found[2]


def plain(value: Any) -> str:
    """Numbers by value, everything else by its text."""
    text = str(value)
    if text in ("True", "False"):
        return text.lower().replace("true", "1").replace("false", "0")
    try:
        return str(int(text))
    except ValueError:
        pass
    try:
        return repr(float(text)) if len(text) < 20 else text
    except ValueError:
        return {"true": "1", "false": "0"}.get(text, text)


@pytest.mark.parametrize("format", FORMATS)
def test_every_type_goes_into_every_format(tmp_path: Path, format: str) -> None:
    columns = {f"c{n}": column(kind, [value, "NULL"])["v"] for n, (kind, value) in enumerate(OTHERS.items())}
    columns |= {f"d{n}": column(kind, [row[0], "NULL"])["v"] for n, (kind, row) in enumerate(TYPES.items())}
    columns["nothing"] = pa.chunked_array([pa.nulls(2)])
    table = pa.table(columns)
    path = tmp_path / "rows.out"
    write_rows(table, format, path)
    assert path.stat().st_size > 100
    # empty tables have the same columns
    write_rows(table.slice(0, 0), format, path)


def test_the_smallest_integer_is_no_null(tmp_path: Path) -> None:
    table = pa.table({"v": pa.array([-(2**63), None, -(2**63) + 1, 2**63 - 1], pa.int64())})
    for name in ("rows.fits", "rows.vot"):
        write_rows(table, None, tmp_path / name)
        assert read_back(tmp_path / name) == [-(2**63), None, -(2**63) + 1, 2**63 - 1]
