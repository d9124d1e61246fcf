"""Broad-band shapes of raw spectra, against plain means and Gaia's own spectra."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from specclip_search.preparation.bands import BAND_CENTRES, BAND_EDGES, BANDS, band_levels, known_band_levels
from specclip_search.readers import read_spectrum
from specclip_search.spectrum import Spectrum
from specclip_search.surveys import GAIA_XP, LAMOST_LRS
from specclip_search.surveys.batch import prepare_arrays, prepare_batch

GRID = 10 ** (3.5682 + 1e-4 * np.arange(3909))


def plainly(wavelength: np.ndarray, flux: np.ndarray, good: np.ndarray) -> np.ndarray:
    inside = [(wavelength >= lo) & (wavelength < hi) & good for lo, hi in BAND_EDGES]
    level = np.array([np.log(flux[chosen].mean()) for chosen in inside])
    return level - level.mean()


def test_levels_are_plain_means_of_good_pixels() -> None:
    rng = np.random.default_rng(1)
    flux = rng.uniform(1, 3, (4, 3909)) * (GRID / 5000) ** 2
    ivar = np.ones_like(flux)
    ivar[:, rng.integers(0, 3909, 200)] = 0.0
    flux[ivar == 0] = 1e6
    flux[2, 100] = np.nan
    found = band_levels(GRID, flux, ivar)
    assert found.dtype == np.float32
    assert found.shape == (4, BANDS)
    for row in range(4):
        expected = plainly(GRID, flux[row], (ivar[row] > 0) & np.isfinite(flux[row]))
        np.testing.assert_allclose(found[row], expected, atol=1e-6)


def test_scale_does_not_matter_and_unknown_bands_are_nan() -> None:
    flux = (GRID / 5000.0)[None] ** -1
    ivar = np.ones_like(flux)
    np.testing.assert_allclose(band_levels(GRID, flux * 1e-17, ivar), band_levels(GRID, flux, ivar), atol=1e-6)
    ivar[:, (GRID > 4500) & (GRID < 4600)] = 0.0
    holed = band_levels(GRID, flux, ivar)[0]
    assert np.flatnonzero(np.isnan(holed)).tolist() == [2]
    whole = band_levels(GRID, flux, np.ones_like(flux))[0]
    np.testing.assert_allclose(np.diff(holed[5:]), np.diff(whole[5:]), atol=1e-6)
    blue = GRID < 5600
    short = band_levels(GRID[blue], flux[:, blue], np.ones((1, blue.sum())))[0]
    assert np.isfinite(short[:6]).all()
    assert np.isnan(short[6:]).all()
    assert np.isnan(band_levels(GRID, -flux, np.ones_like(flux))).all()
    assert np.isnan(band_levels(GRID[:50], flux[:, :50], ivar[:, :50])).all()


def test_a_batch_gives_each_spectrum_its_own_whatever_it_is_prepared_with() -> None:
    rng = np.random.default_rng(2)
    flux = rng.uniform(0.9, 1.1, (3, 3909)) * np.exp(np.linspace(0, 1, 3909)) * np.array([1, 2, 3])[:, None]
    lengths = (3909, 3700, 3909)
    spectra = [
        Spectrum(GRID[:n], row[:n], np.full(n, 1e4), LAMOST_LRS.name, number, {})
        for number, (row, n) in enumerate(zip(flux, lengths, strict=True))
    ]
    together = prepare_batch(LAMOST_LRS, spectra).sed
    for row, (_, n) in enumerate(zip(spectra, lengths, strict=True)):
        alone = prepare_arrays(LAMOST_LRS, GRID[:n], flux[row : row + 1, :n], np.full((1, n), 1e4)).sed[0]
        np.testing.assert_array_equal(together[row], alone)
        assert np.isnan(together[row]).any() == (n == 3700)
    assert np.isnan(prepare_batch(GAIA_XP, []).sed).all()


def test_both_instruments_agree_on_a_smooth_spectrum() -> None:
    """The same blackbody on both grids gives the same levels to a thousandth."""
    xp_a = 10 * np.asarray(GAIA_XP.wavelength)
    body = [1e18 / wave**5 / np.expm1(1.4388e8 / (wave * 5500.0)) for wave in (GRID, xp_a)]
    lrs = band_levels(GRID, body[0][None], np.ones((1, 3909)))
    np.testing.assert_allclose(lrs, known_band_levels(xp_a, body[1][None], 0.01 * body[1][None]), atol=4e-3)


def test_bands_of_large_error_are_unknown() -> None:
    wave = 10 * np.asarray(GAIA_XP.wavelength)
    flux = np.ones((2, len(wave)))
    error = np.full_like(flux, 0.05)
    error[1, wave < 5000] = 0.2
    assert np.isfinite(known_band_levels(wave, flux, error)[0]).all()
    assert np.flatnonzero(np.isnan(known_band_levels(wave, flux, error)[1])).tolist() == [0, 1, 2, 3]
    assert np.isnan(known_band_levels(wave, flux, np.full_like(flux, np.inf))).all()


def test_real_spectra_have_smooth_shapes(shared_data: Path) -> None:
    """The two layouts of one exposure agree; levels of a star run smoothly through the bands."""
    files = sorted((shared_data / "lamost").glob("*/*.fits*"))
    spectra = [read_spectrum(file) for file in files]
    sed = prepare_batch(LAMOST_LRS, spectra).sed
    known = np.isfinite(sed).all(axis=1)
    assert known.mean() > 0.9
    curve = np.polynomial.polynomial.polyfit(BAND_CENTRES / 5000, sed[known].T, 4)
    left = sed[known] - np.polynomial.polynomial.polyval(BAND_CENTRES / 5000, curve)
    assert np.median(np.abs(left)) < 0.05
