"""Preparation with quality: nothing changed where nothing is wrong, every fault its reason."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from specclip_search.errors import Reason
from specclip_search.readers.lamost import read_lamost
from specclip_search.spectrum import Spectrum
from specclip_search.surveys import GAIA_XP, LAMOST_LRS
from specclip_search.surveys.batch import prepare_arrays, prepare_batch

GRID = 10 ** (3.5682 + 1e-4 * np.arange(3909))
WINDOW = (LAMOST_LRS.wavelength[0] <= GRID) & (LAMOST_LRS.wavelength[-1] >= GRID)


def lrs(flux=None, ivar=None, wavelength=GRID, **more):
    rng = np.random.default_rng(1)
    flux = 100 + 10 * np.sin(wavelength / 300) + rng.normal(size=wavelength.size) if flux is None else flux
    return Spectrum(wavelength, flux, np.ones_like(flux) if ivar is None else ivar, "lamost_lrs", 1, more)


def xp(flux=None, error=0.01):
    flux = np.linspace(0.5, 1.5, 343) if flux is None else flux
    return Spectrum(GAIA_XP.wavelength, flux, np.full(343, error**-2.0), "gaia_xp", 1, {})


def one(spectrum, modality=LAMOST_LRS):
    prepared = prepare_batch(modality, [spectrum])
    return prepared, prepared.reasons[0], prepared.messages[0]


def test_real_spectra_without_a_bad_pixel_have_exactly_the_published_input(shared_data):
    spectra = [read_lamost(file) for file in sorted((shared_data / "lamost").rglob("*.fits.gz"))]
    prepared = prepare_batch(LAMOST_LRS, spectra)
    assert prepared.keep.sum() == 119  # even that of S/N 0.67, and that with a lost stretch of 362 pixels
    whole = 0
    for row, spectrum in enumerate(spectra):
        if (spectrum.ivar[spectrum.wavelength < 5710] > 0).all():
            expected = LAMOST_LRS.prepare(spectrum.wavelength, spectrum.flux)[0].astype(np.float32)
            assert np.abs(prepared.flux[row] - expected).max() < 1e-6
            assert prepared.n_repaired[row] == 0
            whole += 1
    assert whole > 90
    header = np.array([spectrum.meta["snrg"] for spectrum in spectra])
    strong = header > 10
    assert np.abs(prepared.snr[strong] / header[strong] - 1).max() < 0.25


def test_masked_pixels_of_a_real_spectrum_are_interpolated_over_and_counted(shared_data):
    spectrum = read_lamost(shared_data / "lamost" / "matrix" / "spec-55859-F5902_sp08-171.fits.gz")
    bad = spectrum.ivar <= 0
    inside = (spectrum.wavelength >= LAMOST_LRS.wavelength[0]) & (spectrum.wavelength <= LAMOST_LRS.wavelength[-1])
    prepared = prepare_batch(LAMOST_LRS, [spectrum])
    assert prepared.n_repaired[0] == (bad & inside).sum() > 300
    repaired = spectrum.flux.copy()
    repaired[bad] = np.interp(spectrum.wavelength[bad], spectrum.wavelength[~bad], spectrum.flux[~bad])
    assert np.allclose(prepared.flux[0], LAMOST_LRS.prepare(spectrum.wavelength, repaired)[0], atol=1e-5)
    touched = np.interp(LAMOST_LRS.wavelength, spectrum.wavelength, bad.astype(float)) > 0.05
    assert np.array_equal(np.isinf(prepared.error[0]), touched)


def test_errors_are_those_of_repeated_observations():
    rng = np.random.default_rng(7)
    flux = 100 + 20 * np.sin(GRID / 500)
    sigma = 2 + np.cos(GRID / 200)
    many = flux + sigma * rng.normal(size=(400, GRID.size))
    prepared = prepare_arrays(LAMOST_LRS, GRID, many, np.broadcast_to(sigma**-2.0, many.shape))
    ratio = prepared.flux.std(axis=0) / np.median(prepared.error, axis=0)
    assert abs(np.median(ratio) - 1) < 0.03


def test_interpolated_errors_add_in_squares():
    spectrum = lrs(flux=np.full(3909, 50.0) + np.arange(3909) % 2 * 1e-9, ivar=np.full(3909, 4.0),
                   wavelength=10 ** (3.56815 + 1e-4 * np.arange(3909)))
    prepared, reason, _ = one(spectrum)
    assert reason is None
    assert np.allclose(prepared.error[0], 0.5 / 50 * np.sqrt(0.5), rtol=1e-3)  # half way between two pixels


@pytest.mark.parametrize(("spectrum", "reason", "words"), [
    (lrs(flux=np.zeros(3909)), Reason.FLAT_OR_ZERO, "0 at every"),
    (lrs(flux=np.full(3909, 7.5)), Reason.FLAT_OR_ZERO, "7.5"),
    (lrs(flux=np.zeros(3909), ivar=np.zeros(3909)), Reason.FLAT_OR_ZERO, "zero"),
    (lrs(flux=np.full(3909, np.nan)), Reason.NOT_FINITE, "100%"),
    (lrs(ivar=np.where(GRID < 5000, 0.0, 1.0)), Reason.TOO_FEW_GOOD_PIXELS, "70%"),
    (lrs(ivar=np.full(3909, np.nan)), Reason.TOO_FEW_GOOD_PIXELS, "found 0%"),
    (lrs(flux=-100 - np.sin(GRID / 50)), Reason.CONTINUUM_NOT_POSITIVE, "found 1462"),
    (lrs(wavelength=GRID[::-1].copy()), Reason.NOT_MONOTONIC, "increase"),
    (lrs(wavelength=np.where(GRID > 8000, np.nan, GRID)), Reason.NOT_FINITE, "finite"),
    (lrs(wavelength=GRID * 1.2), Reason.NO_COVERAGE, "4439.98-10918.96"),
    (lrs(wavelength=GRID[:1], flux=np.ones(1)), Reason.NO_COVERAGE, "1 pixels"),
    (Spectrum(GRID, np.ones(10), np.ones(10), "lamost_lrs"), Reason.LAYOUT_UNKNOWN, "equal length"),
    (xp(), Reason.LAYOUT_UNKNOWN, "found gaia_xp"),
])
def test_every_fault_has_its_reason(spectrum, reason, words):
    prepared, found, message = one(spectrum)
    assert found == reason
    assert words in message
    assert not prepared.keep[0]
    assert np.isnan(prepared.flux).all()


@pytest.mark.parametrize(("spectrum", "reason", "words"), [
    (xp(flux=np.where(GAIA_XP.wavelength == 550, -1.0, np.linspace(0.5, 1.5, 343))), Reason.NO_FLUX_AT_550NM, "-1"),
    (xp(flux=np.where(GAIA_XP.wavelength < 640, np.nan, 1.0)), Reason.MISSING_BP_OR_RP, "BP has no"),
    (xp(flux=np.where(GAIA_XP.wavelength > 640, np.nan, 1.0)), Reason.MISSING_BP_OR_RP, "RP has no"),
    (xp(flux=np.zeros(343)), Reason.FLAT_OR_ZERO, "0 at every"),
    (xp(flux=np.full(343, np.nan)), Reason.NOT_FINITE, "100%"),
])
def test_xp_faults(spectrum, reason, words):
    _, found, message = one(spectrum, GAIA_XP)
    assert found == reason
    assert words in message


def test_a_noisy_star_with_a_few_negative_pixels_stays():
    rng = np.random.default_rng(0)
    flux = 100 + rng.normal(size=3909) * 20
    flux[1000:1006] = -5
    _, reason, _ = one(lrs(flux=flux, ivar=np.full(3909, 1 / 400)))
    assert reason is None


def test_pixels_without_continuum_are_counted_and_say_nothing():
    flux = 100 * np.clip((GRID - 4006) / 500, -1, None)  # the blue end lies below zero
    prepared, reason, _ = one(lrs(flux=flux))
    assert reason is None
    assert 0 < prepared.n_clipped[0] <= 29
    assert np.isinf(prepared.error[0, :3]).all()


def test_a_bad_spectrum_does_not_change_its_neighbours():
    good = [lrs(), lrs(flux=200 + np.cos(GRID / 90))]
    bad = [lrs(flux=np.full(3909, np.inf)), lrs(wavelength=GRID * 2)]
    mixed = prepare_batch(LAMOST_LRS, [bad[0], good[0], bad[1], good[1], bad[0]])
    assert mixed.keep.tolist() == [False, True, False, True, False]
    alone = prepare_batch(LAMOST_LRS, good)
    assert np.array_equal(mixed.flux[[1, 3]], alone.flux)
    assert np.array_equal(mixed.error[[1, 3]], alone.error)


def test_files_of_different_length_are_prepared_together_and_alike():
    long, short = lrs(), lrs()
    short.wavelength, short.flux, short.ivar = (values[:3890] for values in (short.wavelength, short.flux, short.ivar))
    prepared = prepare_batch(LAMOST_LRS, [long, short])
    assert np.array_equal(prepared.flux[0], prepared.flux[1])


@pytest.mark.parametrize(("scale", "reason"), [(1e-30, None), (1e30, None), (1e308, Reason.NOT_FINITE)])
def test_flux_of_any_unit(scale, reason):
    """Flux in W m-2 or in counts is the same input; only what no number can hold is set aside."""
    plain, scaled = lrs(), lrs()
    with np.errstate(over="ignore"):
        scaled.flux = scaled.flux * scale
        scaled.ivar = scaled.ivar / scale / scale
    prepared = prepare_batch(LAMOST_LRS, [plain, scaled])
    assert prepared.reasons == [None, reason]
    if reason is None:
        assert np.allclose(prepared.flux[0], prepared.flux[1], rtol=1e-5)
        assert np.allclose(prepared.error[0], prepared.error[1], rtol=1e-5)


def test_errors_too_large_for_their_column_say_nothing():
    prepared = prepare_batch(LAMOST_LRS, [lrs(ivar=np.full(3909, 1e-20))])
    assert np.isinf(prepared.error).all()
    prepared.error.astype(np.float16)


def test_no_spectra_give_no_rows():
    assert len(prepare_batch(LAMOST_LRS, [])) == 0
    assert prepare_batch(LAMOST_LRS, []).keep.shape == (0,)


numbers = st.floats(allow_nan=True, allow_infinity=True, width=32)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float32, 400, elements=numbers, fill=st.just(1.0)),
       hnp.arrays(np.float32, 400, elements=numbers, fill=st.just(1.0)),
       st.sampled_from(["lamost_lrs", "gaia_xp"]), st.booleans(), st.integers(0, 4))
def test_no_numbers_can_crash_it(flux, ivar, name, sane_grid, damage):
    modality = {"lamost_lrs": LAMOST_LRS, "gaia_xp": GAIA_XP}[name]
    low, high = modality.wavelength[0] - 300 / (1 + 9 * (name == "gaia_xp")), modality.wavelength[-1] + 200
    wavelength = np.linspace(low, high, 400) if sane_grid else np.asarray(flux, np.float64)
    if damage:
        wavelength = wavelength[:-damage]
    spectrum = Spectrum(wavelength, flux[: 400 - damage], ivar[: 400 - damage], name, 1, {})
    prepared = prepare_batch(modality, [spectrum])
    if prepared.keep[0]:
        assert np.isfinite(prepared.flux).all()
        assert not np.isnan(prepared.error).any()
        assert (prepared.error >= 0).all()
    else:
        assert prepared.messages[0]
