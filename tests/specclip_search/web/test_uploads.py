"""Files of others: read in memory by a process with limits, searched with, kept nowhere."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from specclip_search.surveys import LAMOST_LRS
from specclip_search.web import read_worker

from .conftest import as_table

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="files in memory need Linux")


def csv_of(wave: np.ndarray, flux: np.ndarray) -> bytes:
    lines = ["wavelength,flux,ivar", *(f"{w:.4f},{f:.6f},10000" for w, f in zip(wave, flux, strict=True))]
    return "\n".join(lines).encode()


@pytest.fixture(scope="module")
def toy_csv(shown: Any) -> bytes:
    wave = np.linspace(3800, 7000, 4000)
    lines = [(4102, 0.3), (4341, 0.4), (4862, 0.4), (5175, 0.2)]
    flux = 1000 * (1 - sum(d * np.exp(-0.5 * ((wave - c) / 8) ** 2) for c, d in lines))
    return csv_of(wave, flux)


def test_a_table_of_numbers_is_searched_with(client: TestClient, toy_csv: bytes) -> None:
    answer = client.post("/upload?name=mine.csv&modality=lamost_lrs&medium=vacuum&unit=Angstrom", content=toy_csv)
    assert answer.status_code == 200, answer.text
    content = answer.json()
    table = as_table(content)
    assert (content["modality"], content["name"]) == ("lamost_lrs", "mine.csv")
    assert set(table["modality"].to_pylist()) == {"lamost_lrs", "gaia_xp"}
    assert content["keys"][0].endswith(table["spec_id"].to_pylist()[0])
    assert answer.headers["cache-control"] == "no-store"


def test_a_real_lamost_file_finds_what_similar_finds(
    client: TestClient, shown: Any, shared_data: Path, tmp_path: Path
) -> None:
    from specclip_search.queries.similar.similar import similar

    files = sorted(p for p in shared_data.rglob("spec-*.fits*") if p.stat().st_size < 5_000_000)
    if not files:
        pytest.skip(f"no LAMOST spectrum lies below {shared_data}")
    payload = files[0].read_bytes()
    before = {p for p in (tmp_path, Path(os.environ.get("TMPDIR", "/tmp"))) for p in p.iterdir()}
    answer = client.post(f"/upload?name={files[0].name}", content=payload)
    assert answer.status_code == 200, answer.text
    content = answer.json()
    expected = similar(shown.atlas, files[0], 20, "lamost_lrs")
    found = [
        row
        for row, m in zip(content["keys"], as_table(content)["modality"].to_pylist(), strict=True)
        if m == "lamost_lrs"
    ]
    assert found == [f"lamost:{i}" for i in expected.spec_id]
    new = {p for p in (tmp_path, Path(os.environ.get("TMPDIR", "/tmp"))) for p in p.iterdir()} - before
    assert not [p for p in new if p.is_file() and p.stat().st_size == len(payload)]


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "is empty (0 bytes)"),
        (b"<html><title>Log in</title></html>", "is a web page"),
        (b"SIMPLE  =                    T" + b" " * 5000, "damaged or truncated"),
        (b"PAR1" + b"\0" * 500, "cannot be read as PARQUET"),
        (b"\x00\x01\x02" * 100, "none of FITS"),
        (gzip.compress(b"SIMPLE", mtime=0)[:-4], "damaged or truncated"),
        (b"a,b\n1,2\n", ""),
    ],
)
def test_bad_files_are_refused_in_words(client: TestClient, payload: bytes, message: str) -> None:
    answer = client.post("/upload?name=../../bad file.fits", content=payload)
    assert answer.status_code == 400
    said = answer.json()
    assert message in said["error"]
    assert said["hint"]
    assert "/proc/" not in answer.text
    assert "/fd/" not in answer.text


def test_options_are_words_that_are_known(client: TestClient, toy_csv: bytes) -> None:
    answer = client.post("/upload?modality=hubble", content=toy_csv)
    assert answer.json()["error"] == "modality must be one of lamost_lrs, gaia_xp; found 'hubble'."


def test_a_reader_that_dies_is_told(client: TestClient, monkeypatch: pytest.MonkeyPatch, toy_csv: bytes) -> None:
    monkeypatch.setattr("specclip_search.web.pages.uploads.sys.executable", "/bin/false")
    answer = client.post("/upload?name=x.csv", content=toy_csv)
    assert answer.status_code == 400
    assert "ended without an answer" in answer.json()["error"]


def test_a_small_gzip_of_endless_zeros_ends(client: TestClient) -> None:
    header = b"SIMPLE  =                    T".ljust(80) + b"BITPIX  =                  -64".ljust(80)
    bomb = gzip.compress(header + b" " * 2720 + b"\0" * 50_000_000, 9)
    answer = client.post("/upload?name=bomb.fits.gz", content=bomb)
    assert answer.status_code == 400


def test_the_worker_may_write_nothing(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = "from specclip_search.web import read_worker as w; w._limit(); open('out', 'wb').write(b'x' * 10_000)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).resolve().parents[3]), *sys.path])},
    )  # fmt: skip
    assert done.returncode != 0
    assert (tmp_path / "out").stat().st_size == 0
    assert read_worker.SECONDS <= 60
    assert LAMOST_LRS.size == 1462
