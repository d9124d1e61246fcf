"""The two instruments: their grids, windows, and the published preparation to the last digit that matters."""

import pickle

import numpy as np
import pytest

from specclip_search.errors import QueryError, Reason, SpectrumError
from specclip_search.surveys import GAIA_XP, LAMOST_LRS, MODALITIES, get_modality


@pytest.fixture(scope="module")
def golden(shared_data):
    return np.load(shared_data / "golden" / "preproc.npz")


def test_grids_are_those_of_the_published_models():
    i = np.arange(1462)
    assert np.abs(np.log10(LAMOST_LRS.wavelength) - (3.602 + 1e-4 * i)).max() < 1e-14
    assert np.array_equal(GAIA_XP.wavelength, np.arange(336.0, 1021.0, 2.0))
    assert (LAMOST_LRS.size, GAIA_XP.size) == (1462, 343)
    assert GAIA_XP.wavelength[107] == 550.0


@pytest.mark.parametrize("modality", list(MODALITIES.values()), ids=str)
def test_windows_lie_on_the_grid_and_are_told_apart(modality):
    names = [window.name for window in modality.windows]
    assert len(set(names)) == len(names) >= 25
    for window in modality.windows:
        assert modality.wavelength[0] - 0.1 <= window.lo < window.hi <= modality.wavelength[-1] + 0.1, window
        assert modality.window_mask(window).sum() >= 5, window
        assert window.unit == modality.unit
        assert window.note


def test_golden_lrs_inputs_come_out_equal(golden):
    prepared = LAMOST_LRS.prepare(golden["wavelength"], golden["raw"])
    assert prepared.shape == (32, 1462)
    assert np.abs(prepared - golden["lrs"]).max() < 1e-6


def test_a_row_does_not_depend_on_its_company(golden):
    together = LAMOST_LRS.prepare(golden["wavelength"], golden["raw"])
    alone = np.concatenate([LAMOST_LRS.prepare(golden["wavelength"], row) for row in golden["raw"]])
    assert np.allclose(together, alone, rtol=0, atol=1e-9)


def test_float32_and_big_endian_flux_give_the_same(golden):
    raw = golden["raw"].astype(np.float32)
    exact = LAMOST_LRS.prepare(golden["wavelength"], raw.astype(np.float64))
    for kind in ("<f4", ">f4", ">f8"):
        assert np.abs(LAMOST_LRS.prepare(golden["wavelength"], raw.astype(kind)) - exact).max() < 1e-6


def test_a_spectrum_is_normalised_once(golden):
    once = LAMOST_LRS.prepare(golden["wavelength"], golden["raw"])
    assert np.abs(once - golden["lrs_double"]).max() > 1e-2


def test_xp_is_interpolated_and_divided_by_the_flux_at_550_nm():
    wavelength = np.arange(330.0, 1031.0)
    flux = np.stack([wavelength**2, 5e-17 * wavelength])
    prepared = GAIA_XP.prepare(wavelength, flux)
    assert np.allclose(prepared, np.stack([(GAIA_XP.wavelength / 550) ** 2, GAIA_XP.wavelength / 550]), rtol=1e-12)
    on_grid = GAIA_XP.prepare(GAIA_XP.wavelength, flux[:, 6:-10:2])
    assert np.array_equal(on_grid[:, 107], [1.0, 1.0])
    assert np.array_equal(on_grid, flux[:, 6:-10:2] / flux[:, [220]])


def test_archive_samples_agree_with_the_published_formula(shared_data):
    from astropy.table import Table

    table = Table.read(shared_data / "gaia_xp" / "sampled" / "XP_SAMPLED_RAW_dr3int6.fits")
    flux = np.stack([np.asarray(row, np.float64) for row in table["flux"]])
    assert np.array_equal(GAIA_XP.prepare(GAIA_XP.wavelength, flux), flux / flux[:, [107]])


def reason(call):
    with pytest.raises(SpectrumError) as caught:
        call()
    return caught.value


def test_wavelengths_that_cannot_carry_the_grid_are_refused_with_numbers():
    good = 10 ** (3.5682 + 1e-4 * np.arange(3909))
    flux = np.ones(3909)
    assert reason(lambda: LAMOST_LRS.prepare(good[400:], flux[400:])).reason == Reason.NO_COVERAGE
    assert "4056.95" in reason(lambda: LAMOST_LRS.prepare(good[400:], flux[400:])).message
    assert reason(lambda: LAMOST_LRS.prepare(good[::-1], flux)).reason == Reason.NOT_MONOTONIC
    assert reason(lambda: LAMOST_LRS.prepare(good / 10, flux)).reason == Reason.NO_COVERAGE
    assert reason(lambda: LAMOST_LRS.prepare(np.where(good > 5000, np.nan, good), flux)).reason == Reason.NOT_FINITE
    assert reason(lambda: LAMOST_LRS.prepare(good, flux[:-1])).reason == Reason.LAYOUT_UNKNOWN
    assert reason(lambda: LAMOST_LRS.prepare(good, np.where(good > 5000, np.nan, 1))).reason == Reason.NOT_FINITE


def test_xp_without_flux_at_550_nm_is_refused():
    flux = np.ones(343)
    flux[107] = -1
    caught = reason(lambda: GAIA_XP.prepare(GAIA_XP.wavelength, flux))
    assert caught.reason == Reason.NO_FLUX_AT_550NM
    assert "-1" in caught.message


def test_unknown_modality_lists_the_choices():
    with pytest.raises(QueryError, match="lamost_lrs, gaia_xp"):
        get_modality("apogee")


def test_meta_columns_are_what_a_reader_fills(shared_data):
    from specclip_search.readers import read_spectrum

    file = next((shared_data / "lamost" / "matrix").glob("*.gz"))
    assert set(LAMOST_LRS.meta_columns) - {"source"} <= set(read_spectrum(file).meta)


def test_modalities_travel_to_workers_as_themselves():
    assert pickle.loads(pickle.dumps(LAMOST_LRS)) is LAMOST_LRS
