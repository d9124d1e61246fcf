"""Units, descriptions and UCDs given by columns' names, read back from files by astropy."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from astropy.io import fits
from astropy.io.votable import parse_single_table
from astropy.io.votable.ucd import check_ucd
from astropy.table import Table

from specclip_search.atlas.schemas import described, estimates_schema
from specclip_search.tables import to_qtable, write_rows
from specclip_search.tables.meanings import _known, meaning_of, with_known

ID = 2**61 + 1


@pytest.fixture
def result() -> pd.DataFrame:
    """Rows as a search gives them, with nothing said of the columns."""
    return pd.DataFrame(
        {
            "rank": [1, 2],
            "spec_id": [ID, 101],
            "source_id": pd.array([ID, None], dtype="Int64"),
            "similarity": np.array([0.99, 0.5], np.float32),
            "ra": [1.5, np.nan],
            "ra_right": [1.5, 2.5],
            "teff_err": [80.0, 90.0],
            "snr_lrs": [20.0, np.nan],
            "rv_estimated": [1.5, -3.0],
            "my_column": [1.0, 2.0],
        }
    )


EXPECTED = {
    "rank": ("", "meta.number"),
    "spec_id": ("", "meta.id;meta.main"),
    "source_id": ("", "meta.id"),
    "similarity": ("", "stat.correlation"),
    "ra": ("deg", "pos.eq.ra;meta.main"),
    "ra_right": ("deg", "pos.eq.ra"),
    "teff_err": ("K", "stat.error;phys.temperature.effective"),
    "snr_lrs": ("", "stat.snr"),
    "rv_estimated": ("km s-1", "spect.dopplerVeloc.opt"),
    "my_column": ("", ""),
}


def test_votable(result: pd.DataFrame, tmp_path: Path) -> None:
    write_rows(result, None, tmp_path / "rows.vot")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = parse_single_table(str(tmp_path / "rows.vot"), verify="exception")
    found = {f.name: (f.unit.to_string("fits") if f.unit else "", f.ucd or "") for f in table.fields}
    assert found == EXPECTED
    assert {f.name for f in table.fields if not f.description} == {"my_column"}
    assert table.array["spec_id"].tolist() == [ID, 101]
    assert table.array["source_id"].mask.tolist() == [False, True]
    assert int(table.array["source_id"][0]) == ID


def test_fits(result: pd.DataFrame, tmp_path: Path) -> None:
    write_rows(result, None, tmp_path / "rows.fits")
    with fits.open(tmp_path / "rows.fits") as hdus:
        hdus.verify("exception")
        header, columns = hdus[1].header, hdus[1].columns.names
        found = {
            name: (header.get(f"TUNIT{i}", ""), header.get(f"TUCD{i}", "")) for i, name in enumerate(columns, 1)
        }
        comments = [header.get(f"TCOMM{i}", "") for i in range(1, len(columns) + 1)]
    assert found == EXPECTED
    assert comments[0] == "place in the list, from 1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = Table.read(tmp_path / "rows.fits")
    assert table["source_id"].mask.tolist() == [False, True]
    assert int(table["source_id"][0]) == ID


def test_parquet_and_qtable(result: pd.DataFrame, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    write_rows(result, None, tmp_path / "rows.parquet")
    table = pq.read_table(tmp_path / "rows.parquet")
    found = {
        f.name: tuple((f.metadata or {}).get(key, b"").decode() for key in (b"unit", b"ucd")) for f in table.schema
    }
    assert found == EXPECTED
    assert table["source_id"].to_pylist() == [ID, None]
    assert to_qtable(table)["teff_err"].unit == "K"


def test_what_a_column_says_of_itself_stays() -> None:
    own = described("rv", pa.float64(), "barycentric velocity", "m/s")
    schema = pa.schema([own, pa.field("teff", pa.string())])
    table = with_known(pa.table([pa.array([1.0]), pa.array(["x"])], schema=schema))
    assert table.schema.field("rv").metadata == own.metadata
    assert b"unit" not in table.schema.field("teff").metadata


def test_every_ucd_is_of_the_vocabulary() -> None:
    named = {name: said["ucd"] for name, said in _known().items() if "ucd" in said}
    named |= {f.name: f.metadata[b"ucd"].decode() for f in estimates_schema() if b"ucd" in f.metadata}
    wrong = {name: ucd for name, ucd in named.items() if not check_ucd(ucd, check_controlled_vocabulary=True)}
    assert wrong == {}
    assert meaning_of("lrs_snr")["ucd"] == "stat.snr"
    assert meaning_of("no such column") == {}
