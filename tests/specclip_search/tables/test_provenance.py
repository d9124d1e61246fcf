"""Provenance of results in every output format."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from specclip_search.tables import write_rows
from specclip_search.tables.provenance import about_of

ABOUT = {
    "query": "similar",
    "version": "1.2",
    "options": {"k": 12, "where": "teff > 4500", "within": None, "targets": ["gaia:5", "gaia:6"]},
    "model": "mini",
    "model_digest": "sha256:" + "ab" * 32,
}
FLAT = {"query": "similar", "version": "1.2", "options.k": "12", "options.where": "teff > 4500",
        "options.targets": "gaia:5, gaia:6", "model": "mini", "model_digest": ABOUT["model_digest"]}  # fmt: skip


@pytest.fixture
def frame() -> pd.DataFrame:
    frame = pd.DataFrame({"source_id": [2**62 + 1, 2**62 + 3], "similarity": [0.5, 0.25]})
    frame.attrs = {**ABOUT, "columns": {"similarity": {"description": "cosine"}}}
    return frame


def test_parquet_keeps_it(frame: pd.DataFrame, tmp_path: Path) -> None:
    write_rows(frame, output=tmp_path / "rows.parquet")
    table = pq.read_table(tmp_path / "rows.parquet")
    assert about_of(table) == ABOUT
    assert table.schema.field("similarity").metadata[b"description"] == b"cosine"
    assert not list(tmp_path.glob("*.json"))


def test_votable_says_it_in_info(frame: pd.DataFrame, tmp_path: Path) -> None:
    from astropy.io.votable import parse

    write_rows(frame, output=tmp_path / "rows.vot")
    votable = parse(tmp_path / "rows.vot")
    assert {info.name: info.value for info in votable.infos} == FLAT
    assert votable.get_first_table().to_table()["source_id"].tolist() == [2**62 + 1, 2**62 + 3]


def test_fits_says_it_in_its_history(frame: pd.DataFrame, tmp_path: Path) -> None:
    from astropy.io import fits

    write_rows(frame, output=tmp_path / "rows.fits")
    with fits.open(tmp_path / "rows.fits") as file:
        history = "".join(str(line) for line in file[1].header["HISTORY"])
        assert file[1].data["source_id"].tolist() == [2**62 + 1, 2**62 + 3]
    for name, text in FLAT.items():
        assert f"{name}: {text}" in history


@pytest.mark.parametrize("suffix", ["csv", "json", "txt"])
def test_beside_other_files_stands_one_of_its_own(frame: pd.DataFrame, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows.{suffix}"
    write_rows(frame, output=path)
    beside = tmp_path / f"rows.{suffix}.about.json"
    assert json.loads(beside.read_text()) == ABOUT
    first = path.read_bytes(), beside.read_bytes()
    write_rows(frame, output=path)
    assert (path.read_bytes(), beside.read_bytes()) == first
    write_rows(pa.table({"n": [1]}), output=path)
    assert not beside.exists()
