"""The batched continuum against the published one, written plainly, step by step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import medfilt

from specclip_search.preparation.continuum import continuum, continuum_grid, median_of_seven, positive
from specclip_search.readers.lamost import read_lamost
from specclip_search.surveys import LAMOST_LRS

from .published_continuum import published_continuum, published_lrs_input

GRID = 10 ** (3.5682 + 1e-4 * np.arange(3909))


def star(wavelength, temperature, snr, seed, depth=0.4):
    rng = np.random.default_rng(seed)
    x = 1.438777e8 / (wavelength * temperature)
    flux = (wavelength / 5000) ** -5 / np.expm1(x)
    flux /= np.interp(5000, wavelength, flux) / 300
    for centre in (3933.7, 3968.5, 4101.7, 4340.5, 4861.3, 5172.7):
        flux *= 1 - depth * np.exp(-0.5 * ((wavelength - centre) / 8) ** 2)
    return flux + rng.normal(size=wavelength.size) * np.abs(flux).mean() / snr


def test_the_plain_version_is_the_published_one(shared_data):
    golden = np.load(shared_data / "golden" / "preproc.npz")
    wavelength = golden["wavelength"]
    for row in range(0, 32, 4):
        assert np.abs(published_lrs_input(wavelength, golden["raw"][row]) - golden["lrs"][row]).max() < 1e-8
        expected = golden["continuum"][row]
        assert np.abs(published_continuum(wavelength, golden["raw"][row]) / expected - 1).max() < 1e-7
    for row, smoothed in enumerate(golden["cont_snr20"]):
        assert np.abs(published_continuum(wavelength, golden["raw"][row], snr=20) / smoothed - 1).max() < 1e-7


def test_golden_continua_come_out_equal(shared_data):
    golden = np.load(shared_data / "golden" / "preproc.npz")
    grid = continuum_grid(golden["wavelength"])
    levels = positive(continuum(grid, golden["raw"][:, grid.used]))[:, grid.fitted]
    expected = golden["continuum"][:, grid.used][:, grid.fitted]
    assert np.abs(levels / expected - 1).max() < 1e-6


def test_real_spectra_agree_with_the_plain_version(shared_data):
    files = sorted((shared_data / "lamost").rglob("*.fits.gz"))
    assert len(files) >= 119
    for file in files[::4]:
        spectrum = read_lamost(file)
        expected = published_lrs_input(spectrum.wavelength, spectrum.flux)
        assert np.abs(LAMOST_LRS.prepare(spectrum.wavelength, spectrum.flux)[0] - expected).max() < 1e-6, file.name


@pytest.mark.parametrize(("temperature", "snr"), [(4000, 5), (5500, 30), (9000, 60), (20000, 8), (35000, 100)])
@pytest.mark.parametrize("start", [3.5682, 3.5840, 3.5683])
def test_hot_and_cool_stars_on_grids_of_different_beginning(temperature, snr, start):
    wavelength = 10 ** (start + 1e-4 * np.arange(3750))
    flux = star(wavelength, temperature, snr, seed=int(temperature * snr))
    expected = published_lrs_input(wavelength, flux)
    assert np.abs(LAMOST_LRS.prepare(wavelength, flux)[0] - expected).max() < 1e-6


def test_a_hot_star_keeps_the_published_offset_of_one_pixel():
    """Without the offset the bridge over a Balmer line would end one pixel elsewhere."""
    flux = star(GRID, 15000, 200, seed=3, depth=0.6)
    grid = continuum_grid(GRID)
    assert grid.fitted.start == 1
    line = grid.bridges[0]
    assert GRID[grid.used][line.inside.start] >= 4030 > GRID[grid.used][line.inside.start - 1]
    assert np.abs(LAMOST_LRS.prepare(GRID, flux)[0] - published_lrs_input(GRID, flux)).max() < 1e-9


def test_a_blue_extended_spectrum_is_cut_to_where_lamost_begins():
    """The published code would shift its hot branch by the number of extra pixels, or fail."""
    extended = 10 ** (3.5 + 1e-4 * np.arange(4591))
    flux = star(extended, 15000, 100, seed=5)
    cut = slice(682, None)
    assert abs(extended[682] / GRID[0] - 1) < 1e-9
    expected = LAMOST_LRS.prepare(extended[cut], flux[cut])
    assert np.array_equal(LAMOST_LRS.prepare(extended, flux), expected)


def test_pixels_redder_than_the_fit_do_not_matter():
    flux = star(GRID, 6000, 30, seed=8)
    other = flux.copy()
    other[GRID > 5705] *= -7
    assert np.array_equal(LAMOST_LRS.prepare(GRID, flux), LAMOST_LRS.prepare(GRID, other))


def test_a_coarse_spectrum_without_a_fit_is_divided_by_its_median():
    wavelength = np.arange(3680.0, 5800.0, 25.0)
    flux = 50 + np.sin(wavelength / 40)
    expected = published_lrs_input(wavelength, flux)
    assert np.abs(LAMOST_LRS.prepare(wavelength, flux)[0] - expected).max() < 1e-9


def test_zero_flux_gives_zero_not_nan():
    assert np.array_equal(LAMOST_LRS.prepare(GRID, np.zeros(3909)), np.zeros((1, 1462)))


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.sampled_from([np.float32, np.float64]), st.booleans())
def test_median_equals_scipys_to_the_bit(seed, pixels, kind, ties):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(3, pixels)) * 10
    rows = (np.round(rows) if ties else rows).astype(kind)
    padded = np.pad(rows, ((0, 0), (3, 3)))  # what scipy does, of any length
    windows = np.stack([padded[:, i:i + pixels] for i in range(7)])
    assert np.array_equal(median_of_seven(rows), np.median(windows, axis=0))
    if pixels < 7:
        return
    expected = np.stack([medfilt(row.astype(np.float64), 7) for row in rows])
    assert np.array_equal(median_of_seven(rows).astype(np.float64), expected)


@given(st.integers(0, 2**32 - 1), st.floats(3500, 40000), st.floats(1, 300), st.floats(-1.2, 1.2), st.floats(-6, 6))
def test_any_star_agrees_with_the_plain_version(seed, temperature, snr, offset, scale):
    flux = star(GRID, temperature, snr, seed)
    flux = (flux + offset * np.abs(flux).mean()) * 10.0**scale
    expected = published_lrs_input(GRID, flux)
    size = np.maximum(1.0, np.abs(expected))
    # where the continuum crosses zero the division magnifies the fit's rounding
    assert np.quantile(np.abs(LAMOST_LRS.prepare(GRID, flux)[0] - expected) / size, 0.99) < 1e-6
