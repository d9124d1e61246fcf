"""XP calibration chosen by release, basis and number of coefficients."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from specclip_search.errors import Reason, SpectrumError
from specclip_search.readers import gaia_bases, read_spectrum
from specclip_search.readers.gaia_bases import (
    BasesNotInstalled,
    choose,
    epoch_of,
    product_of,
    release_named,
    release_of,
)
from specclip_search.surveys.gaia_xp import GRID

from ... import dr4_files


def _solutions(shared_data: Path, count: int = 200) -> tuple[np.ndarray, np.ndarray]:
    with np.load(shared_data / "xp_real" / "xp_continuous_2000.npz") as stored:
        return stored["coeff"][:count].astype(float), stored["coeff_error"][:count].astype(float)


def _matrices() -> dict[str, np.ndarray]:
    """GaiaXPy's own DR3 matrices, (55, 343) by band, BP/RP weight included."""
    import matplotlib as mpl

    with mpl.rc_context():
        from gaiaxpy.core.config import load_xpmerge_from_xml, load_xpsampling_from_xml

    _, merge = load_xpmerge_from_xml(bp_model="v375wi")
    design = load_xpsampling_from_xml(bp_model="v375wi")
    return {band: np.asarray(design[band], float) * np.asarray(merge[band], float) for band in ("bp", "rp")}


def _by_gaiaxpy(bp: np.ndarray, rp: np.ndarray) -> np.ndarray:
    matrices = _matrices()
    return bp @ matrices["bp"] + rp @ matrices["rp"]


def test_dr3_solutions_are_calibrated_with_gaiaxpys_matrices(shared_data: Path) -> None:
    coefficients, errors = _solutions(shared_data)
    below = np.random.default_rng(1).uniform(-0.01, 0.01, (len(errors), 1485))
    bp, rp = choose("bp", 55, function_id=56), choose("rp", 55, function_id=57)
    parts = [(bp, coefficients[:, :55], errors[:, :55], below), (rp, coefficients[:, 55:], errors[:, 55:], below)]
    flux, error = gaia_bases.calibrate(parts)
    np.testing.assert_allclose(flux, _by_gaiaxpy(coefficients[:, :55], coefficients[:, 55:]), rtol=1e-9, atol=1e-25)
    correlation = np.eye(55)
    correlation[np.tril_indices(55, -1)] = below[0]
    correlation += np.tril(correlation, -1).T
    matrices, variance = _matrices(), np.zeros(len(GRID))
    for band, part in (("bp", errors[0, :55]), ("rp", errors[0, 55:])):
        variance += np.diag(matrices[band].T @ (correlation * np.outer(part, part)) @ matrices[band])
    np.testing.assert_allclose(error[0], np.sqrt(variance), rtol=1e-9)


def test_a_truncated_solution_is_one_whose_last_coefficients_are_zero(shared_data: Path) -> None:
    coefficients, errors = _solutions(shared_data, 50)
    bp, rp = choose("bp", 48, function_id=56), choose("rp", 44, function_id=57)
    assert (bp.size, rp.size) == (55, 55)
    short = [
        (basis, part[:, :size], error[:, :size], np.zeros((50, size * (size - 1) // 2)))
        for basis, part, error, size in (
            (bp, coefficients[:, :55], errors[:, :55], 48),
            (rp, coefficients[:, 55:], errors[:, 55:], 44),
        )
    ]
    flux, _ = gaia_bases.calibrate(short)
    zeroed = coefficients.copy()
    zeroed[:, 48:55] = zeroed[:, 55 + 44 :] = 0.0
    np.testing.assert_allclose(flux, _by_gaiaxpy(zeroed[:, :55], zeroed[:, 55:]), rtol=1e-9, atol=1e-25)


@pytest.fixture
def dr4() -> Iterator[list[np.ndarray]]:
    """A made DR4 basis of 51 BP functions, in the table."""
    with dr4_files.installed():
        yield dr4_files.designs()


def test_a_row_in_the_table_is_all_that_a_release_needs(shared_data: Path, dr4: list[np.ndarray]) -> None:
    """51 BP coefficients by least squares to DR3's fluxes give these fluxes back, in a batch mixed with DR3."""
    coefficients, errors = _solutions(shared_data, 20)
    truth = _by_gaiaxpy(coefficients[:, :55], coefficients[:, 55:])
    both = np.concatenate(dr4)
    fit, *_ = np.linalg.lstsq(both.T / 1e-17, truth.T / 1e-17, rcond=None)
    rows = []
    for star, solution in enumerate(fit.T):
        rows.append({"bp_coefficients": solution[:51], "rp_coefficients": solution[51:]})
        for band, part in (("bp", errors[star, :51]), ("rp", errors[star, 55:])):
            rows[-1] |= {
                f"{band}_coefficient_errors": part,
                f"{band}_coefficient_correlations": np.zeros(len(part) * (len(part) - 1) // 2),
            }
    old = {
        "bp_coefficients": coefficients[0, :55],
        "rp_coefficients": coefficients[0, 55:],
        "bp_basis_function_id": 56,
        "rp_basis_function_id": 57,
    }
    for band, part in (("bp", errors[0, :55]), ("rp", errors[0, 55:])):
        old |= {f"{band}_coefficient_errors": part, f"{band}_coefficient_correlations": np.zeros(1485)}
    rows.insert(7, old)
    bases = [gaia_bases.row_bases(row, "dr4" if row is not old else None) for row in rows]
    assert [pair[0].release for pair in bases] == ["dr4"] * 7 + ["dr3"] + ["dr4"] * 13
    flux, error = gaia_bases.calibrate_rows(rows, bases)
    np.testing.assert_allclose(flux[7], truth[0], rtol=1e-12)
    others = np.delete(flux, 7, axis=0)
    scale = np.abs(truth).max(axis=1, keepdims=True)
    assert np.median(np.abs(others - truth) / scale) < 0.01
    assert (error > 0).all()


def test_what_the_table_lacks_is_refused_and_what_is_not_installed_names_the_package() -> None:
    with pytest.raises(SpectrumError, match="48 BP coefficients of basis 0") as raised:
        choose("bp", 48, function_id=0)
    assert "51 of DR4" in raised.value.message
    with pytest.raises(SpectrumError, match="55 BP coefficients in dr4"):
        choose("bp", 55, release="dr4")
    basis = choose("bp", 51)
    assert basis.release == "dr4"
    with pytest.raises(BasesNotInstalled, match="DR4's 51 BP coefficients") as missing:
        gaia_bases.operator(basis)
    assert "come with the GaiaXPy release for DR4" in missing.value.message
    assert "pip install --upgrade gaiaxpy" in missing.value.hint
    assert "--recalibrate" in missing.value.hint


def test_names_of_releases_products_and_epochs() -> None:
    assert [release_of(name) for name in ("Gaia DR4_RC3", "gaiadr3", "DR3", "lamost", None)] == [
        "dr4",
        "dr3",
        "dr3",
        None,
        None,
    ]
    assert [epoch_of(name) for name in ("dr2", "Gaia DR3", "dr4", None)] == [2015.5, 2016.0, 2017.5, 2016.0]
    assert (
        product_of("x.zip!XP_CONTINUOUS-Gaia DR3 5.fits")
        == product_of("MEAN_SPECTRUM_XP-Gaia DR4 5.csv")
        == product_of("a/XP_MEAN_SPECTRUM_RAW.xml")
        == "XP_CONTINUOUS"
    )
    assert product_of("XP_SAMPLED_MEAN_SPECTRUM-Gaia DR4.csv") == "XP_SAMPLED"
    assert product_of("EPOCH_SPECTRUM_XP_CROWDING-Gaia DR4.fits") == "XP_EPOCH"
    assert product_of("MCMC_MSC-Gaia DR3.fits") is None
    assert [release_named(name) for name in ("MEAN_SPECTRUM_XP-Gaia DR4 5.csv", "gaiadr3.gaia_source", "dr4.csv")] == [
        "dr4",
        "dr3",
        None,
    ]


def test_the_cases_that_astroquery_and_astropy_leave(shared_data: Path) -> None:
    cases = shared_data.parent / "cases"
    if not cases.is_dir():
        pytest.skip(f"{cases} is not there")
    capital = read_spectrum(cases / "xp-capital-source-id" / "one.fits")
    assert capital.spec_id == 5853498713190525696
    whole = read_spectrum(shared_data / "gaia_xp" / "continuous" / "XP_CONTINUOUS_RAW.csv#0")
    if whole.spec_id == capital.spec_id:
        np.testing.assert_allclose(capital.flux, whole.flux, rtol=1e-5)
    from specclip_search.readers import iter_spectra

    blank = list(iter_spectra(cases / "xp-ecsv-blank" / "two.ecsv"))
    assert len(blank) == 2
    assert all(len(one.flux) == 343 and one.spec_id is not None for one in blank)
    assert read_spectrum(cases / "datalink-zip" / "datalink_output.zip").spec_id == 5853498713190525696


def test_sampled_csv_in_capitals(shared_data: Path, tmp_path: Path) -> None:
    file = shared_data / "gaia_xp" / "sampled" / "XP_SAMPLED_RAW_dr3int6.csv"
    heading, _, rest = file.read_text("utf-8").partition("\n")
    loud = tmp_path / "loud.csv"
    loud.write_text(f"{heading.upper()}\n{rest}", "utf-8")
    old, new = (read_spectrum(f"{path}#0") for path in (file, loud))
    assert old.spec_id == new.spec_id
    np.testing.assert_array_equal(old.flux, new.flux)


def test_a_solution_without_its_errors_or_with_nan_is_refused_with_its_reason() -> None:
    row = {"bp_coefficients": np.ones(55), "rp_coefficients": np.ones(55)}
    with pytest.raises(SpectrumError, match="neither 55 errors with their 1485 correlations"):
        gaia_bases.row_bases(row, "dr3")
    for band in ("bp", "rp"):
        row |= {f"{band}_coefficient_errors": np.ones(55), f"{band}_coefficient_correlations": np.zeros(1485)}
    row["rp_coefficients"] = np.full(55, np.nan)
    with pytest.raises(SpectrumError) as raised:
        gaia_bases.row_bases(row, "dr3")
    assert raised.value.reason is Reason.NOT_FINITE
    row["rp_coefficients"] = None
    with pytest.raises(SpectrumError) as raised:
        gaia_bases.row_bases(row, "dr3")
    assert raised.value.reason is Reason.MISSING_BP_OR_RP
