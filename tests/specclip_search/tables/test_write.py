"""Rows in every format, read back by someone else's reader."""

from __future__ import annotations

import csv
import io
import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.io.votable import parse, parse_single_table
from astropy.table import Table
from astropy.units import Unit

from specclip_search.atlas.schemas import described
from specclip_search.errors import QueryError
from specclip_search.tables import FORMATS, format_of, require_writable, to_qtable, write_rows
from specclip_search.tables.provenance import to_frame, with_about
from specclip_search.tables.text import write_table

ID = 5853418002145112704
SCHEMA = pa.schema(
    [
        described("source_id", pa.int64(), "the star – its id", ucd="meta.id;meta.main"),
        described("ra", pa.float64(), "right ascension", "deg", "pos.eq.ra"),
        described("feh", pa.float32(), "[Fe/H]", "dex", "phys.abund.Fe"),
        described("rv", pa.float32(), "radial velocity", "km s-1"),
        pa.field("simulated", pa.bool_()),
        pa.field("name", pa.string()),
        pa.field("vector", pa.list_(pa.float16(), 2)),
        pa.field("windows", pa.list_(pa.string())),
        pa.field("n", pa.int16()),
    ]
)
COLUMNS = [
    [ID, None, 2**63 - 1],
    [1.123456789012, float("nan"), None],
    [0.1, -2.5, float("inf")],
    [1.5, None, -3.0],
    [True, None, False],
    ['a,"q"\nx', None, "é"],
    [np.array([1, 0.5], np.float16)] * 3,
    [["H-beta"], None, []],
    [None, -5, 2],
]
ROWS = pa.table(COLUMNS, schema=SCHEMA)


def text_of(format: str | None, table: pa.Table | pd.DataFrame = ROWS) -> str:
    stream = io.StringIO()
    write_rows(table, format, None, stream)
    return stream.getvalue()


def test_json_is_records_with_whole_ids_and_null_for_what_is_no_number() -> None:
    rows = json.loads(text_of("json"))
    assert [row["source_id"] for row in rows] == [ID, None, 2**63 - 1]
    assert [row["ra"] for row in rows] == [1.123456789012, None, None]
    assert [row["feh"] for row in rows] == [0.1, -2.5, None]
    assert '"feh": 0.1,' in text_of("json")
    assert rows[0]["name"] == 'a,"q"\nx'
    assert rows[0]["vector"] == [1.0, 0.5]
    assert json.loads(text_of("json", ROWS.slice(0, 0))) == []


def test_csv_is_read_back_by_the_standard_library() -> None:
    rows = list(csv.DictReader(io.StringIO(text_of("csv"))))
    assert [row["source_id"] for row in rows] == [str(ID), "", str(2**63 - 1)]
    assert [row["ra"] for row in rows] == ["1.123456789012", "", ""]
    assert [row["feh"] for row in rows] == ["0.1", "-2.5", "inf"]
    assert rows[0]["name"] == 'a,"q"\nx'
    assert json.loads(rows[0]["windows"]) == ["H-beta"]
    assert text_of("csv", ROWS.slice(0, 0)) == ",".join(ROWS.column_names) + "\n"


def test_csv_of_many_rows_has_one_header() -> None:
    table = pa.table({"obsid": np.arange(25_001)})
    lines = text_of("csv", table).splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("obsid", "25000", 25_002)


def test_table_shows_ids_whole_and_commands_for_terminals_not_at_all() -> None:
    table = pa.table(
        {"spec_id": [ID], "similarity": [0.987654], "name": ["\x1b[31mred\nline"], "missing": pa.nulls(1, pa.float64())}
    )
    lines = text_of("table", table).splitlines()
    assert lines[0].split() == ["spec_id", "similarity", "name", "missing"]
    assert lines[1].split() == [str(ID), "0.9877", "?[31mred", "line"]
    assert len(lines) == 2


def test_table_fits_the_terminal_and_names_what_it_leaves_out() -> None:
    stream = io.StringIO()
    write_table(ROWS, stream, width=43)
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines[:-1])) <= 43
    assert lines[-1].endswith("more: simulated, name, vector, windows, n; --format csv shows all)")


def test_what_matters_most_comes_first_where_not_all_fits() -> None:
    table = pa.table(
        {
            "rank": [1, 2],
            "lrs_spec_id": [ID, ID + 2],
            "reason": ["hydrogen lines filled in by emission, +31 sigma", "short"],
            "score": [2.5, 1.5],
            "empty": pa.nulls(2, pa.float64()),
            "feh": [-3.0, -2.0],
        }
    )
    stream = io.StringIO()
    write_table(table, stream, width=40, first=("rank", "score", "empty", "reason"))
    lines = stream.getvalue().splitlines()
    assert lines[0].split() == ["rank", "score", "reason"]
    assert lines[1].endswith("hydrogen lines filled in by")
    assert lines[2].strip() == "emission, +31 sigma"
    assert lines[-1] == "(3 more: lrs_spec_id, empty, feh; --format csv shows all)"
    stream = io.StringIO()
    write_table(table, stream, width=34, first=("rank", "feh"))
    assert stream.getvalue().splitlines()[0].split() == ["rank", "feh", "lrs_spec_id"]
    # a file or a pipe has all columns, in their own order
    assert text_of("table", table).splitlines()[0].split() == table.column_names


def test_the_last_column_is_shown_whole() -> None:
    """A column's meaning ends in its unit; cut off it would not be told."""
    meaning = "right ascension, ICRS; the spectrum's own, else a catalogue's of the same star [deg]"
    table = pa.table({"name": ["ra", "n"], "first": [meaning, None], "meaning": [meaning, "number"]})
    assert text_of("table", table).splitlines()[1].endswith("... " + " " * 1 + meaning)
    stream = io.StringIO()
    write_table(table.select(["name", "meaning"]), stream, width=40)
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 40
    assert " ".join(line[6:] for line in lines[1:-1]) == meaning
    assert lines[-1].split() == ["n", "number"]
    stream = io.StringIO()
    write_table(table, stream, width=80)
    assert stream.getvalue().splitlines()[-1] == "(1 more: meaning; --format csv shows all)"


def test_fits_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "rows.fits"
    write_rows(ROWS, None, path)
    with fits.open(path) as hdus:
        hdus.verify("exception")
        header, data = hdus[1].header, hdus[1].data
        assert header["TNULL1"] == -(2**63)
        assert data["source_id"].dtype.kind == "i"
        assert data["source_id"].tolist() == [ID, -(2**63), 2**63 - 1]
        number = data.names.index("feh") + 1
        assert (header[f"TUNIT{number}"], header[f"TUCD{number}"], header[f"TCOMM{number}"]) == (
            "dex",
            "phys.abund.Fe",
            "[Fe/H]",
        )
        assert header["TUNIT4"] == "km s-1"
        assert header["TCOMM1"] == "the star ? its id"
        assert data["vector"].tolist() == [[1.0, 0.5]] * 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = Table.read(path)
    assert table["source_id"].mask.tolist() == [False, True, False]
    assert table["simulated"].tolist() == [1, None, 0]
    assert table["n"].tolist() == [None, -5, 2]


def test_fits_by_an_independent_reader(tmp_path: Path) -> None:
    fitsio = pytest.importorskip("fitsio")
    write_rows(ROWS, "fits", tmp_path / "rows.fits")
    rows = fitsio.read(str(tmp_path / "rows.fits"))
    assert rows["source_id"].tolist() == [ID, -(2**63), 2**63 - 1]
    np.testing.assert_array_equal(rows["feh"], np.array([0.1, -2.5, np.inf], np.float32))
    np.testing.assert_array_equal(np.isnan(rows["ra"]), [False, True, True])


def test_votable_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "rows.vot"
    write_rows(ROWS, None, path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        votable = parse_single_table(str(path), verify="exception")
    fields = {field.name: field for field in votable.fields}
    assert (fields["feh"].ucd, str(fields["feh"].unit), fields["ra"].description.strip()) == (
        "phys.abund.Fe",
        "dex",
        "right ascension",
    )
    assert (fields["source_id"].datatype, fields["simulated"].datatype) == ("long", "short")
    assert votable.array["source_id"].mask.tolist() == [False, True, False]
    assert votable.array["source_id"].data[[0, 2]].tolist() == [ID, 2**63 - 1]
    assert votable.array["n"].mask.tolist() == [True, False, False]
    assert votable.array["name"][2] == "é"


def test_votable_is_what_the_standard_says(tmp_path: Path) -> None:
    from xml.etree import ElementTree

    write_rows(ROWS, "votable", tmp_path / "rows.xml")
    root = ElementTree.parse(tmp_path / "rows.xml").getroot()
    space = root.tag.split("}")[0] + "}"
    cells = [[cell.text for cell in row] for row in root.iter(f"{space}TR")]
    # an empty cell is null since VOTable 1.3
    assert [row[0] for row in cells] == [str(ID), None, str(2**63 - 1)]


def test_parquet_keeps_types_and_meaning(tmp_path: Path) -> None:
    write_rows(ROWS, None, tmp_path / "rows.parquet")
    table = pq.read_table(tmp_path / "rows.parquet")
    assert table.to_pylist() == ROWS.to_pylist() or np.isnan(table["ra"][1].as_py())
    assert [f.type for f in table.schema][:7] == SCHEMA.types[:7]
    assert table.schema.field("rv").metadata[b"unit"] == b"km s-1"


def test_qtable_has_units_and_integer_ids() -> None:
    table = to_qtable(ROWS)
    assert table["ra"].unit == "deg"
    assert table["rv"].to_value("m/s")[0] == 1500
    assert int(table["source_id"][0]) == ID
    assert table["source_id"].mask.tolist() == [False, True, False]
    assert table["source_id"].info.meta["ucd"] == "meta.id;meta.main"


def test_astropy_reads_units_and_whole_ids_from_parquet(tmp_path: Path) -> None:
    """VOParquet, through the reader of astropy, which has no nulls of its own."""
    path = tmp_path / "rows.parquet"
    rows = with_about(ROWS.drop(["windows"]), {"query": "similar", "version": "1"})
    write_rows(rows, None, path)
    table = Table.read(path, format="parquet.votable")
    assert (str(table["ra"].unit), str(table["rv"].unit)) == ("deg", "km / s")
    assert table["feh"].description == "[Fe/H]"
    assert table["feh"].meta["ucd"] == "phys.abund.Fe"
    assert table["simulated"].tolist() == [True, None, False]
    assert table["name"][[0, 2]].tolist() == ['a,"q"\nx', "é"]
    write_rows(rows.slice(2), None, path)
    table = Table.read(path, format="parquet.votable")
    assert (table["source_id"].dtype, int(table["source_id"][0])) == (np.dtype(np.int64), 2**63 - 1)
    held = pq.ParquetFile(path).metadata.metadata
    assert held[b"IVOA.VOTable-Parquet.version"] == b"1.0"
    votable = parse(io.BytesIO(held[b"IVOA.VOTable-Parquet.content"]))
    assert [field.name for field in votable.get_first_table().fields] == rows.column_names
    assert {info.name: info.value for info in votable.infos} == {"query": "similar", "version": "1"}
    assert b"<DATA>" not in held[b"IVOA.VOTable-Parquet.content"]


def test_qtable_of_a_search_and_of_its_file(tmp_path: Path) -> None:
    frame = to_frame(with_about(ROWS, {"query": "similar"}))
    write_rows(frame, None, tmp_path / "rows.parquet")
    for table in (to_qtable(frame), to_qtable(tmp_path / "rows.parquet")):
        assert table["source_id"].tolist() == [ID, None, 2**63 - 1]
        assert table["rv"].to_value("m/s")[0] == 1500
        assert table.meta["query"] == "similar"
    (tmp_path / "no.parquet").write_text("source_id,ra")
    with pytest.raises(QueryError, match="Expected a Parquet file"):
        to_qtable(tmp_path / "no.parquet")


def test_fits_units_are_those_of_the_standard(tmp_path: Path) -> None:
    units = ["1e-17 erg s-1 cm-2 Angstrom-1", "W m-2 nm-1", "dex"]
    schema = pa.schema([described(f"c{i}", pa.float64(), "a flux", unit) for i, unit in enumerate(units)])
    write_rows(pa.table([[1.0]] * 3, schema=schema), None, tmp_path / "rows.fits")
    table = Table.read(tmp_path / "rows.fits")
    assert table["c0"].unit == Unit(units[0])
    assert table["c1"].unit == Unit(units[1])
    assert str(table["c2"].unit) == "dex"


def test_dataframe_with_nullable_ids() -> None:
    frame = pd.DataFrame({"source_id": pd.array([ID, None], dtype="Int64"), "teff": [5000.0, float("nan")]})
    assert json.loads(text_of("json", frame)) == [{"source_id": ID, "teff": 5000.0}, {"source_id": None, "teff": None}]


@pytest.mark.parametrize("format", ["parquet", "votable", "fits"])
def test_binary_formats_need_a_file(format: str) -> None:
    with pytest.raises(QueryError, match="none was given"):
        text_of(format)


def test_format_is_told_by_name_or_suffix() -> None:
    assert format_of(None, None) == "table"
    assert format_of("FITS", "rows.csv") == "fits"
    assert [format_of(None, f"x{s}") for s in (".csv", ".json", ".vot", ".xml", ".FITS", ".parquet", ".txt")] == [
        "csv",
        "json",
        "votable",
        "votable",
        "fits",
        "parquet",
        "table",
    ]
    with pytest.raises(QueryError, match="does not determine the file format"):
        format_of(None, "rows.xlsx")
    with pytest.raises(QueryError, match="no format 'excel'"):
        format_of("excel", None)


def test_a_file_that_cannot_be_written_is_refused_before_the_search(tmp_path: Path) -> None:
    assert require_writable(None, tmp_path / "new" / "rows.csv") == "csv"
    assert not (tmp_path / "new").exists()
    (tmp_path / "plain").write_text("a file")
    with pytest.raises(QueryError, match="plain is a file"):
        require_writable(None, tmp_path / "plain" / "rows.csv")
    with pytest.raises(QueryError, match="is a folder"):
        require_writable("csv", tmp_path)
    with pytest.raises(QueryError, match="none was given"):
        require_writable("parquet")


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_is_whole_or_not_there(tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows"
    path.write_text("what was there")
    from specclip_search.tables import binary, text, voparquet

    module = {"parquet": voparquet, "votable": binary, "fits": binary}.get(format, text)
    honest = getattr(module, f"write_{format}")

    def broken(table: pa.Table, target: object) -> None:
        honest(table, target)
        raise OSError("No space left on device")

    monkeypatch.setattr(module, f"write_{format}", broken)
    with pytest.raises(OSError, match="No space left"):
        write_rows(ROWS, format, path)
    assert path.read_text() == "what was there"
    assert [p.name for p in tmp_path.iterdir()] == ["rows"]
    monkeypatch.undo()
    write_rows(ROWS, format, path)
    assert path.stat().st_size > 20


@pytest.mark.parametrize("format", FORMATS)
def test_no_rows_and_odd_names(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"rows of {format}"
    write_rows(ROWS.slice(0, 0), format, path)
    assert path.exists()
    with pytest.raises(QueryError, match="is a folder"):
        write_rows(ROWS, format, tmp_path)
