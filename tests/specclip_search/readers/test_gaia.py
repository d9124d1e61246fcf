"""Gaia XP: every form the archive has, against GaiaXPy itself."""

import contextlib
import csv
import gzip
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from specclip_search.errors import Reason, SpectrumError
from specclip_search.readers import gaia_bases, iter_spectra, read_spectrum
from specclip_search.readers.content import look
from specclip_search.readers.gaia_tables import iter_rows, parse_numbers
from specclip_search.readers.gaia_xp import iter_xp
from specclip_search.surveys import GAIA_XP

IDS = [5853498713190525696, 5762406957886626816]


@pytest.fixture(scope="module")
def xp(shared_data):
    return shared_data / "gaia_xp"


@pytest.fixture(scope="module")
def oracle(xp):
    """What GaiaXPy calibrates, by file."""
    from gaiaxpy import calibrate

    def calibrated(name):
        frame, sampling = calibrate(str(xp / "continuous" / name), save_file=False)
        assert np.array_equal(sampling, GAIA_XP.wavelength)
        return frame

    return calibrated


def whole(file):
    batches = list(iter_xp(look(file)))
    return {name: np.concatenate([getattr(batch, name) for batch in batches]) for name in ("spec_id", "flux", "error")}


@pytest.mark.parametrize("name", ["XP_CONTINUOUS_RAW.csv", "MeanSpectrumSolutionWithCov.avro"])
def test_calibration_agrees_with_gaiaxpy(xp, oracle, name):
    ours, theirs = whole(xp / "continuous" / name), oracle(name)
    assert ours["spec_id"].tolist() == theirs["source_id"].tolist() == IDS
    flux, error = (np.stack([np.asarray(row, np.float64) for row in theirs[name]]) for name in ("flux", "flux_error"))
    assert np.abs(ours["flux"] / flux - 1).max() < 1e-9
    assert np.abs(ours["error"] / error - 1).max() < 1e-9


@pytest.mark.parametrize("form", ["ecsv", "fits", "xml"])
def test_every_form_of_the_same_spectra_gives_the_same(xp, form):
    ours, reference = (whole(xp / "continuous" / f"XP_CONTINUOUS_RAW.{kind}") for kind in (form, "csv"))
    assert ours["spec_id"].tolist() == IDS
    assert np.abs(ours["flux"] / reference["flux"] - 1).max() < 1e-9
    assert np.abs(ours["error"] / reference["error"] - 1).max() < 1e-6  # errors are float32 in the FITS and VOTable


def test_calibration_agrees_with_the_stored_solution(xp):
    import pandas as pd

    stored = pd.read_csv(xp / "calibrated" / "calibrator_solution_default.csv")
    ours = whole(xp / "continuous" / "XP_CONTINUOUS_RAW.csv")
    for name, column in (("flux", "flux"), ("error", "flux_error")):
        expected = np.stack([parse_numbers(text[1:-1]) for text in stored[column]])
        assert np.abs(ours[name] / expected - 1).max() < 1e-7


def test_the_operator_is_linear_and_its_errors_are_those_of_drawn_coefficients(xp):
    rows = next(iter_rows(look(xp / "continuous" / "XP_CONTINUOUS_RAW.csv")))
    rng = np.random.default_rng(2)
    drawn, n = {}, 4000
    for band in ("bp", "rp"):
        errors = rows[0][f"{band}_coefficient_errors"]
        correlation = np.eye(55)
        correlation[np.tril_indices(55, -1)] = rows[0][f"{band}_coefficient_correlations"]
        full = correlation + correlation.T - np.eye(55)
        drawn[band] = rows[0][f"{band}_coefficients"] + rng.multivariate_normal(
            np.zeros(55), full * np.outer(errors, errors), size=n, method="eigh")
    nothing = np.zeros((n, 55)), np.zeros((n, 1485))
    bases = [(gaia_bases.choose(band, 55, release="dr3"), drawn[band], *nothing) for band in ("bp", "rp")]
    scatter = gaia_bases.calibrate(bases)[0].std(axis=0)
    error = whole(xp / "continuous" / "XP_CONTINUOUS_RAW.csv")["error"][0]
    assert np.abs(scatter / error - 1).max() < 0.06


@pytest.mark.parametrize("name", [
    "XP_SAMPLED_RAW_dr3int6.csv", "XP_SAMPLED_RAW_dr3int6.ecsv", "XP_SAMPLED_RAW_dr3int6.fits",
    "XP_SAMPLED_RAW_votable_dr3int6.xml", "XP_SAMPLED_RAW_votable_plain_dr3int6.xml"])
def test_sampled_spectra_in_every_form_are_the_same(xp, name):
    ours = whole(xp / "sampled" / name)
    reference = whole(xp / "sampled" / "XP_SAMPLED_RAW_dr3int6.csv")
    assert ours["spec_id"].tolist() == reference["spec_id"].tolist() == [6, 4]
    assert np.allclose(ours["flux"], reference["flux"], rtol=2e-7, atol=0)
    assert np.allclose(ours["error"], reference["error"], rtol=2e-7, atol=0)
    first = read_spectrum(f"{xp / 'sampled' / name}#0")
    assert first.meta["ra"] == pytest.approx(217.39232147)
    assert first.wavelength[107] == 550
    assert np.allclose(first.ivar**-0.5, reference["error"][0])


@pytest.mark.parametrize("form", ["csv", "ecsv", "fits"])
def test_a_row_without_bp_is_set_aside_and_the_others_stay(xp, form):
    batches = list(iter_xp(look(xp / "continuous" / f"XP_CONTINUOUS_RAW_with_missing_BP.{form}")))
    assert batches[0].spec_id.tolist() == IDS
    assert [(row, key, reason) for row, key, reason, _ in batches[0].rejected] == [
        (1, 5405570973190252288, Reason.MISSING_BP_OR_RP)]


@pytest.mark.parametrize(("name", "count", "why"), [("sources.avro", 51, Reason.NO_CALIBRATION),
                                                    ("regular_single_source_c04.avro", 48, Reason.LAYOUT_UNKNOWN)])
def test_coefficients_of_another_release_are_set_aside_with_their_number(xp, name, count, why):
    batch = next(iter_xp(look(xp / "continuous" / name)))
    assert not len(batch.spec_id)
    assert {reason for _, _, reason, _ in batch.rejected} == {why}
    assert all(f"{count} BP coefficients" in message for *_, message in batch.rejected)


def test_errors_do_not_need_the_standard_deviation_column(xp):
    spectrum = read_spectrum(xp / "continuous" / "18Sco-XP-spectra.csv")
    assert spectrum.spec_id == 4345775217221821312
    assert 0.0005 < np.median(spectrum.ivar**-0.5 / spectrum.flux) < 0.1


def test_a_file_of_many_gives_the_first_with_a_warning_and_any_by_its_row(xp):
    file = xp / "continuous" / "XP_CONTINUOUS_RAW.csv"
    with pytest.warns(UserWarning, match="more than one spectrum"):
        assert read_spectrum(file).spec_id == IDS[0]
    assert read_spectrum(f"{file}#1").spec_id == IDS[1]
    with pytest.raises(SpectrumError, match="row 9"):
        read_spectrum(f"{file}#9")
    with pytest.raises(SpectrumError, match="BP has no coefficients"):
        read_spectrum(f"{xp / 'continuous' / 'XP_CONTINUOUS_RAW_with_missing_BP.csv'}#1")


def test_the_bulk_form_gzipped_ecsv_with_nulls(xp, tmp_path):
    text = (xp / "continuous" / "XP_CONTINUOUS_RAW.ecsv").read_text()
    lines = text.splitlines()
    header = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    fields = next(csv.reader([lines[header + 1]]))
    names = lines[header].split(",")
    for name in names:
        if name.startswith("rp_coefficient"):
            fields[names.index(name)] = "null"
    target = tmp_path / "XpContinuousMeanSpectrum_000000-003111.csv.gz"
    with gzip.open(target, "wt", newline="") as stream:
        stream.write("\n".join(lines[: header + 1]) + "\n")
        csv.writer(stream).writerow(fields)
        stream.write(lines[header + 2] + "\n")
    batch = next(iter_xp(look(target)))
    assert batch.spec_id.tolist() == [IDS[1]]
    assert batch.rejected[0][2] == Reason.MISSING_BP_OR_RP
    assert "RP" in batch.rejected[0][3]


def test_parquet_with_lists(xp, tmp_path):
    rows = next(iter_rows(look(xp / "continuous" / "XP_CONTINUOUS_RAW.csv")))
    table = pa.table({
        "source_id": pa.array([int(row["source_id"]) for row in rows], pa.int64()),
        **{name: pa.array([row[name] for row in rows]) for name in rows[0]
           if name.endswith(("coefficients", "errors", "correlations"))}})
    pq.write_table(table, tmp_path / "Npix=1.parquet")
    ours, reference = whole(tmp_path / "Npix=1.parquet"), whole(xp / "continuous" / "XP_CONTINUOUS_RAW.csv")
    assert np.array_equal(ours["flux"], reference["flux"])
    assert ours["spec_id"].tolist() == IDS


def test_datalinks_table_of_one_star_takes_its_id_from_the_name(tmp_path):
    file = tmp_path / "XP_SAMPLED-Gaia DR3 5853498713190525697.csv"
    lines = [f"{w},{1e-16 * w},{1e-18}" for w in GAIA_XP.wavelength]
    file.write_text("wavelength,flux,flux_error\n" + "\n".join(lines) + "\n")
    spectrum = read_spectrum(file)
    assert spectrum.spec_id == 5853498713190525697
    assert spectrum.modality == "gaia_xp"
    assert np.allclose(spectrum.flux, 1e-16 * GAIA_XP.wavelength)


def sampled_csv(tmp_path, source_id="5853498713190525697", flux=None, name="s.csv"):
    flux = np.ones(343) if flux is None else flux
    values = "(" + ", ".join(map(str, flux)) + ")"
    errors = "(" + ", ".join(["0.01"] * 343) + ")"
    file = tmp_path / name
    with open(file, "w", newline="") as stream:
        csv.writer(stream).writerows([["source_id", "solution_id", "flux", "flux_error"],
                                      [source_id, "4545469030156206080", values, errors]])
    return file


def test_ids_never_go_through_floats(tmp_path):
    assert read_spectrum(sampled_csv(tmp_path)).spec_id == 5853498713190525697
    for bad in ("5.853498713190525697e18", "5853498713190525697.0", "-3", "", "9" * 25):
        batch = next(iter_xp(look(sampled_csv(tmp_path, bad))))
        assert batch.rejected[0][2] == Reason.LAYOUT_UNKNOWN
        assert "source_id" in batch.rejected[0][3]


def test_damaged_tables_are_unreadable_not_a_crash(xp, tmp_path):
    good = gzip.compress((xp / "continuous" / "XP_CONTINUOUS_RAW.csv").read_bytes())
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(good[: len(good) // 2])
    with pytest.raises(SpectrumError) as caught:
        list(iter_spectra(cut))
    assert caught.value.reason == Reason.UNREADABLE
    short = tmp_path / "short.csv"
    short.write_bytes((xp / "continuous" / "XP_CONTINUOUS_RAW.csv").read_bytes()[:30000])
    with pytest.raises(SpectrumError):
        list(iter_spectra(short))
    header = tmp_path / "header.csv"
    header.write_text("source_id,flux,flux_error\n")
    with pytest.raises(SpectrumError, match="no row"):
        list(iter_spectra(header))
    for name in ("XP_CONTINUOUS_RAW.fits", "XP_CONTINUOUS_RAW.xml", "MeanSpectrumSolutionWithCov.avro"):
        file = tmp_path / name
        file.write_bytes((xp / "continuous" / name).read_bytes()[:9000])
        with pytest.raises(SpectrumError):
            list(iter_spectra(file))


@settings(phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.data())
def test_no_damage_raises_anything_but_our_own_error(xp, tmp_path, data):
    name = data.draw(st.sampled_from([
        "continuous/XP_CONTINUOUS_RAW.csv", "sampled/XP_SAMPLED_RAW_dr3int6.csv",
        "sampled/XP_SAMPLED_RAW_votable_plain_dr3int6.xml", "sampled/XP_SAMPLED_RAW_dr3int6.fits",
        "continuous/MeanSpectrumSolutionWithCov.avro"]))
    content = bytearray((xp / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, min(len(content), 12000) - 1))] = data.draw(st.integers(0, 255))
    file = tmp_path / "damaged.dat"
    file.write_bytes(bytes(content))
    with contextlib.suppress(SpectrumError):
        for batch in iter_xp(look(file)):
            assert batch.flux.shape == (len(batch.spec_id), 343)


def test_gaiaxpy_is_not_loaded_for_sampled_spectra(xp):
    import subprocess

    file = f"{xp / 'sampled' / 'XP_SAMPLED_RAW_dr3int6.csv'}#0"
    code = (f"import sys; from specclip_search import read_spectrum; read_spectrum({file!r}); "
            "sys.exit(any(name.split('.')[0] == 'gaiaxpy' for name in sys.modules))")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
