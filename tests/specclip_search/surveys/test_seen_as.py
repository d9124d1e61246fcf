"""Spectra of other surveys seen as LAMOST LRS and Gaia XP: known lines, real stars, honest errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from specclip_search.errors import Reason, SpectrumError
from specclip_search.preparation.line_spread import (
    LAMOST_GRID,
    degrading_matrix,
    lrs_resolution,
    sigma_of_power,
    xp_fwhm,
)
from specclip_search.readers import read_spectrum
from specclip_search.spectrum import Spectrum
from specclip_search.surveys import GAIA_XP, LAMOST_LRS
from specclip_search.surveys.batch import prepare_batch
from specclip_search.surveys.seen_as import best_seen_as, partial_lrs_input, seen_as

UNIT = "1e-17 erg s-1 cm-2 Angstrom-1"


def _lines(
    power: float, step: float = 0.25, low: float = 3300.0, high: float = 10400.0, snr: float = 0.0, seed: int = 0
) -> Spectrum:
    """Absorption lines of no width of their own at a resolving power, on a sloping continuum."""
    wave = np.arange(low, high, step)
    flux = 10.0 + (wave - 6000.0) / 1000.0
    for centre in range(3600, 9900, 150):
        sigma = sigma_of_power(np.float64(centre), power)
        flux -= 8.0 * 0.5 / sigma * np.exp(-0.5 * ((wave - centre) / sigma) ** 2)
    error = np.full(len(wave), 1.0 / snr if snr else 1e-3)
    noise = np.random.default_rng(seed).normal(0.0, error) if snr else 0.0
    return Spectrum(wave, flux + noise, error**-2.0, "made", 1, {"flux_unit": UNIT}, None, "barycentric", power)


def test_lines_get_the_instruments_width_and_keep_their_strength() -> None:
    sharp = _lines(10000.0, step=0.05)
    seen = seen_as(sharp, "lamost_lrs").spectrum
    for centre in (4050.0, 4800.0, 5400.0, 7200.0):
        near = np.abs(LAMOST_GRID - centre) < 15
        wave, lost = LAMOST_GRID[near], 10.0 + (LAMOST_GRID[near] - 6000.0) / 1000.0 - seen.flux[near]
        step = np.gradient(wave)
        area = (lost * step).sum()
        middle = (lost * wave * step).sum() / area
        sigma = np.sqrt((lost * (wave - middle) ** 2 * step).sum() / area)
        assert area == pytest.approx(8.0 * 0.5 * np.sqrt(2 * np.pi), rel=0.01)
        assert middle == pytest.approx(centre, abs=0.02)
        assert sigma == pytest.approx(sigma_of_power(np.float64(centre), lrs_resolution(np.float64(centre))), rel=0.02)


def test_a_spectrum_through_a_middle_resolution_ends_the_same() -> None:
    """Degraded by the file's own resolution: R = 10000 and R = 4000 give the same LAMOST spectrum."""
    high, middle = (seen_as(_lines(power, step=0.05), "lamost_lrs").spectrum for power in (10000.0, 4000.0))
    used = (LAMOST_GRID > 3800) & (LAMOST_GRID < 8900)
    assert np.abs(high.flux - middle.flux)[used].max() < 0.02 * 2.0


def test_errors_and_covariances_are_those_of_repeated_noise() -> None:
    truth = seen_as(_lines(20000.0), "lamost_lrs")
    many = [seen_as(_lines(20000.0, snr=2.0, seed=seed), "lamost_lrs") for seed in range(200)]
    off = np.array([one.spectrum.flux - truth.spectrum.flux for one in many])[:, 500:3500]
    pull = off * np.sqrt(many[0].spectrum.ivar[500:3500])
    assert pull.std() == pytest.approx(1.0, abs=0.01)
    covariance = many[0].covariance(4)[:, 500:3500]
    np.testing.assert_allclose(covariance[0], 1 / many[0].spectrum.ivar[500:3500], rtol=1e-9)
    for lag in (1, 2, 3):
        measured = (off[:, :-lag] * off[:, lag:]).mean()
        assert measured == pytest.approx(np.nanmean(covariance[lag][:-lag]), abs=0.02 * covariance[0].mean())
    # a bin of 20 pixels is less certain than independent errors say, by what the covariance says
    wide = off[:, :3000].reshape(200, 150, 20).mean(axis=2).std()
    lags = many[0].covariance(20)[:, 500:3500]
    expected = np.sqrt((lags[0].mean() + 2 * sum((1 - lag / 20) * np.nanmean(lags[lag]) for lag in range(1, 20))) / 20)
    assert wide == pytest.approx(expected, rel=0.05)
    assert expected > 1.3 * np.sqrt(lags[0].mean() / 20)


def test_gaps_and_masks_are_not_bridged() -> None:
    one = _lines(7500.0)
    one.ivar[(one.wavelength > 5000) & (one.wavelength < 5100)] = 0.0
    keep = (one.wavelength < 4500) | (one.wavelength > 4700)
    one.wavelength, one.flux, one.ivar = one.wavelength[keep], one.flux[keep], one.ivar[keep]
    found = seen_as(one, "lamost_lrs")
    for low, high in ((4503, 4697), (5003, 5097)):
        inside = (low < LAMOST_GRID) & (high > LAMOST_GRID)
        assert not found.spectrum.ivar[inside].any()
        assert np.isnan(found.spectrum.flux[inside]).all()
    measured = (LAMOST_GRID > 4000) & (LAMOST_GRID < 4490)
    assert (found.spectrum.ivar[measured] > 0).all()
    assert found.share == pytest.approx(1 - (200 + 100) / 1600, abs=0.04)


def test_boss_is_seen_whole_as_lamost_and_almost_whole_as_xp(shared_data: Path) -> None:
    star = read_spectrum(shared_data / "surveys" / "boss" / "spec-3586-55181-0500.fits.gz")
    lamost, xp = seen_as(star, "lamost_lrs"), seen_as(star, "gaia_xp")
    assert lamost.share == 1.0
    rows = prepare_batch(LAMOST_LRS, [lamost.spectrum])
    assert rows.keep.all()
    assert rows.snr[0] == pytest.approx(star.meta["snr"], rel=0.1)
    assert rows.good_fraction[0] > 0.995
    assert xp.share == pytest.approx(0.968, abs=0.005)  # it begins at 356 nm
    assert xp.spectrum.wavelength[0] == 336.0
    assert not xp.spectrum.ivar[xp.spectrum.wavelength < 354].any()
    rows = prepare_batch(GAIA_XP, [xp.spectrum])
    assert rows.keep.all()
    # r = 17.6 by the survey's own photometry of this fibre: 550 nm within a tenth of a magnitude
    near = (star.wavelength > 5400) & (star.wavelength < 5600)
    assert rows.scale[0] == pytest.approx(1e-19 * star.flux[near].mean(), rel=0.02)
    assert best_seen_as(star, ("lamost_lrs", "gaia_xp")).spectrum.modality == "lamost_lrs"


def test_the_mrs_nights_of_a_star_look_like_its_lrs_spectrum_and_another_star_does_not(shared_data: Path) -> None:
    folder = shared_data / "lamost" / "matrix"
    known = prepare_batch(
        LAMOST_LRS, [read_spectrum(next(folder.glob("spec-57287-KP193637N444141V03_sp10-161*")))]
    ).flux[0]
    grid = LAMOST_LRS.wavelength

    def differs(file: Path) -> float:
        """rms of the ratio of the normalised spectra over what the night covers, at the best shift."""
        seen = seen_as(read_spectrum(file), "lamost_lrs")
        flux, error = partial_lrs_input(seen)
        inside = np.isfinite(error)
        assert 4890 < grid[inside][0] < 4920
        assert 5370 < grid[inside][-1] < 5400
        assert seen.share == pytest.approx(inside.mean(), abs=0.02)
        assert (flux[~inside] == 1.0).all()
        found = []
        for velocity in range(-100, 101, 5):
            ratio = np.interp(grid[inside], grid * (1 - velocity / 299792.458), known) / flux[inside]
            x = np.linspace(-1, 1, len(ratio))
            found.append(float((ratio - np.polyval(np.polyfit(x, ratio, 2), x)).std()))
        return min(found)

    same = [
        differs(next((shared_data / "surveys" / "lamost_mrs").glob(f"med-{night}*"))) for night in (58270, 58625, 58649)
    ]
    other = differs(next((shared_data / "surveys" / "lamost_mrs").glob("med-58408*")))
    assert max(same) < 0.025
    assert other > 2 * max(same)


def test_xp_of_a_flat_spectrum_is_flat_and_of_a_line_as_wide_as_xp() -> None:
    one = _lines(20000.0)
    one.flux = np.full_like(one.flux, 3.0)
    seen = seen_as(one, "gaia_xp").spectrum
    good = seen.ivar > 0
    np.testing.assert_allclose(seen.flux[good], 3e-19, rtol=1e-9)
    one.flux += 50.0 * np.exp(-0.5 * ((one.wavelength - 7600.0) / 2.0) ** 2)
    line = seen_as(one, "gaia_xp").spectrum.flux / 1e-19 - 3.0
    near = (seen.wavelength > 730) & (seen.wavelength < 790)
    middle = (line * seen.wavelength)[near].sum() / line[near].sum()
    sigma = np.sqrt((line * (seen.wavelength - middle) ** 2)[near].sum() / line[near].sum())
    assert middle == pytest.approx(760.0, abs=0.15)  # the width grows with wavelength
    assert sigma * 2.3548 == pytest.approx(xp_fwhm(np.float64(760.0)), rel=0.02)


def test_what_cannot_be_seen_says_what_is_needed_and_what_can_be_typed() -> None:
    infrared = _lines(22500.0, low=15100.0, high=17000.0)
    with pytest.raises(SpectrumError, match="0% of what LAMOST LRS input needs") as raised:
        seen_as(infrared, "lamost_lrs")
    assert raised.value.reason is Reason.NO_COVERAGE
    relative = _lines(7500.0)
    relative.meta = {"flux_unit": "relative"}
    with pytest.raises(SpectrumError, match="relative flux") as raised:
        seen_as(relative, "gaia_xp")
    assert "--as lamost_lrs" in raised.value.hint
    with pytest.raises(SpectrumError, match="No spectrum can be seen as 'jwst'"):
        seen_as(relative, "jwst")


def test_an_observed_frame_is_brought_to_the_barycentre() -> None:
    one = _lines(20000.0)
    moved = _lines(20000.0)
    moved.wavelength = moved.wavelength / (1 + 25.0 / 299792.458)
    moved.frame, moved.meta = "observed", {**moved.meta, "barycentric_correction": 25.0}
    a, b = (seen_as(x, "lamost_lrs").spectrum.flux for x in (one, moved))
    good = np.isfinite(a) & np.isfinite(b)
    assert np.abs(a - b)[good].max() < 0.02


def test_nothing_is_sharpened() -> None:
    wave = np.arange(4000.0, 5000.0, 1.0)
    blurred = sigma_of_power(wave, 500.0)
    matrix = degrading_matrix(wave, blurred, wave[10:-10] + 0.5, sigma_of_power(wave[10:-10], 1800.0))
    rows = matrix.toarray()
    np.testing.assert_allclose(rows.sum(axis=1), 1.0)
    assert (np.count_nonzero(rows, axis=1) <= 2).all()
    assert rows.min() >= 0
