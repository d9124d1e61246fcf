"""Gaia RVS spectra in the archive's layouts: DR3's mean spectra, DR4's transits."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from specclip_search.errors import Reason
from specclip_search.readers import read_spectrum
from specclip_search.readers.containers.archive_member import iter_members
from specclip_search.readers.registry import iter_rows, reader_for

STAR = 249375804190613120


def _flux(size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    wave = np.linspace(846, 870, size)
    flux = 1 - 0.5 * np.exp(-0.5 * ((wave - 854.44) / 0.15) ** 2) + rng.normal(0, 0.01, size)
    flux[:3] = np.nan
    return flux, np.full(size, 0.01)


def _mean(count: int = 1) -> Table:
    flux, error = zip(*(_flux(2401, row) for row in range(count)), strict=True)
    return Table(
        {
            "source_id": np.arange(count) + STAR,
            "ra": np.full(count, 70.0),
            "dec": np.full(count, 50.0),
            "flux": np.array(flux),
            "flux_error": np.array(error),
            "combined_transits": np.full(count, 12),
            "combined_ccds": np.full(count, 30),
        }
    )


@pytest.mark.parametrize("form", ["fits", "votable", "ecsv", "parquet"])
def test_mean_spectra_in_every_format(tmp_path: Path, form: str) -> None:
    ending = {"fits": "fits", "votable": "xml", "ecsv": "ecsv", "parquet": "parquet"}[form]
    file = tmp_path / f"RVS-Gaia DR3 {STAR}.{ending}"
    table = _mean(2)
    if form == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {
            name: list(table[name]) if table[name].ndim > 1 else np.asarray(table[name]) for name in table.colnames
        }
        pq.write_table(pa.table(columns), file)
    else:
        table.write(file, format={"ecsv": "ascii.ecsv"}.get(form, form))
    rows = list(iter_rows(file))
    assert [row.spec_id for row in rows] == [STAR, STAR + 1]
    one = rows[0]
    assert (one.modality, one.frame, one.epoch, one.meta["release"]) == ("gaia_rvs", "rest", None, "dr3")
    np.testing.assert_allclose(one.wavelength, 8460 + 0.1 * np.arange(2401))
    assert np.flatnonzero(one.ivar == 0).tolist() == [0, 1, 2]
    np.testing.assert_allclose(one.flux[3:], table["flux"][0][3:])


def test_transits_of_dr4_keep_whole_nanoseconds(tmp_path: Path) -> None:
    flux, error = _flux(961)
    nanoseconds = 2_345_678 * 86_400_000_000 + 123_456_789  # int64, beyond what a double holds to a nanosecond
    table = Table(
        {
            "SOURCE_ID": [STAR] * 2,
            "TRANSIT_ID": [10**17 + 1, 10**17 + 2],
            "FLUX": [flux, flux],
            "FLUX_ERROR": [error, error],
            "OBS_TIME_TCB": [nanoseconds] * 2,
            "OBS_TIME_BARY_CORR": [-86_400_000_000_000 / 864, np.nan],
            "NORMALISATION_METHOD": [3, 0],
        }
    )
    file = tmp_path / "EPOCH_SPECTRUM_RVS-Gaia DR4.fits"
    table.write(file)
    first, second = iter_rows(file)
    assert (first.spec_id, first.epoch, first.frame) == (STAR, 10**17 + 1, "barycentric")
    assert (first.meta["release"], first.meta["normalised"], second.meta["normalised"]) == ("dr4", True, False)
    assert first.meta["time_scale"] == "BMJD_TCB"
    assert second.meta["time_scale"] == "MJD_TCB at Gaia"
    assert (second.meta["time"] - first.meta["time"]) * 86400 == pytest.approx(100.0, abs=1e-4)
    assert second.meta["time"] == pytest.approx(55197.0 + nanoseconds / 86_400_000_000_000, abs=1e-9)
    np.testing.assert_allclose(np.diff(first.wavelength), 0.25)


def test_a_row_a_wavelength_as_datalink_gives_it_inside_a_zip(tmp_path: Path) -> None:
    flux, error = _flux(2401)
    wave = 846 + 0.01 * np.arange(2401)
    lines = [f"{w:.2f},{'' if np.isnan(f) else repr(float(f))},{e}" for w, f, e in zip(wave, flux, error, strict=True)]
    archive = tmp_path / "datalink_output.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for star in (STAR, STAR + 1):
            opened.writestr(f"RVS-Gaia DR3 {star}.csv", "wavelength,flux,flux_error\n" + "\n".join(lines) + "\n")
    one = read_spectrum(f"{archive}!RVS-Gaia DR3 {STAR + 1}.csv")
    assert (one.spec_id, one.modality) == (STAR + 1, "gaia_rvs")
    assert np.flatnonzero(one.ivar == 0).tolist() == [0, 1, 2]
    assert [reader_for(content).name for content in iter_members(archive)] == ["gaia_rvs"] * 2


def test_another_number_of_samples_is_refused_with_both(tmp_path: Path) -> None:
    file = tmp_path / "RVS.fits"
    Table({"source_id": [STAR], "flux": [np.ones(100)], "flux_error": [np.ones(100)], "combined_ccds": [3]}).write(file)
    row = next(iter_rows(file))
    assert (row.reason, row.spec_id) == (Reason.LAYOUT_UNKNOWN, STAR)
    assert "2401 or 961" in row.message
    assert "100" in row.message


def test_xp_files_are_not_taken_for_rvs(shared_data: Path) -> None:
    from specclip_search.readers.content import look

    for file in sorted((shared_data / "gaia_xp").glob("*/XP_*")):
        assert reader_for(look(file)).name == "gaia_xp", file
