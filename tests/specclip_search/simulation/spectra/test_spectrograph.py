"""The simulated spectrographs: noise that means what it says, stars that do not depend on their batch."""

import astropy.units as u
import numpy as np
import pytest

from specclip_search import LAMOST_LRS, read_spectrum
from specclip_search.simulation.spectra.emulator import Emulator
from specclip_search.simulation.spectra.labels import SimulationError
from specclip_search.simulation.spectra.observe import observe_stars
from specclip_search.simulation.spectra.spectrograph import WAVELENGTH, band_snr, noise_curves, observe_lrs
from specclip_search.surveys.batch import prepare_batch

from ..lamost_files import write_lamost_fits

SUN = [5772.0, 4.44, 0.0, 0.0, 0.0]
POOR = [4900.0, 1.8, -2.5, 0.35, 0.1]
BIG = 2**62 + 12345


@pytest.fixture(scope="module")
def flux():
    return Emulator.load().lrs(np.array([SUN, POOR]))


def observe(flux, snr=30.0, rv=0.0, ids=None, **options):
    count = len(flux)
    ids = np.arange(count) + BIG if ids is None else ids
    return observe_lrs(flux, np.full(count, snr), np.full(count, rv), ids, **options)


def test_the_noise_is_what_the_inverse_variance_says(flux):
    """Two exposures that differ by their noise alone: their scaled difference is a unit normal deviate."""
    repeats = np.repeat(flux[:1], 60, axis=0)
    raw = observe(repeats, snr=25.0)
    smooth = ~noise_curves().sky_line & (WAVELENGTH > 4000) & (WAVELENGTH < 5500)
    scaled = raw.flux[:, smooth] / np.median(raw.flux[:, smooth], axis=1)[:, None]
    error = 1 / np.sqrt(np.where(raw.ivar > 0, raw.ivar, np.nan))[:, smooth]
    error = error / np.median(raw.flux[:, smooth], axis=1)[:, None]
    # neighbouring pixels share the star, so second differences leave little but noise
    second = scaled[:, 2:] - 2 * scaled[:, 1:-1] + scaled[:, :-2]
    star = np.nanmedian(second, axis=0)
    sigma = np.sqrt(error[:, 2:] ** 2 + 4 * error[:, 1:-1] ** 2 + error[:, :-2] ** 2)
    pull = ((second - star) / sigma)[np.isfinite(sigma)]
    assert np.percentile(np.abs(pull), 68.27) == pytest.approx(1.0, abs=0.04)
    assert np.median(pull) == pytest.approx(0.0, abs=0.02)


def test_the_noise_is_true_in_sky_lines_too(flux):
    """Against the same exposures with no noise to speak of: same seed and ids, so the same calibration and blur."""
    repeats = np.repeat(flux[:1], 300, axis=0)
    raw, clean = observe(repeats, snr=40.0), observe(repeats, snr=4e5)
    scale = np.median(raw.flux[:, 1000:2000] / clean.flux[:, 1000:2000], axis=1)[:, None]
    pull = np.where(raw.ormask == 0, (raw.flux - clean.flux * scale) * np.sqrt(raw.ivar), np.nan)
    pull[np.abs(pull) > 5] = np.nan  # cosmic rays that went unnoticed
    assert np.nanstd(pull[:, noise_curves().sky_line]) == pytest.approx(1.0, abs=0.05)
    assert np.nanstd(pull[:, ~noise_curves().sky_line]) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(("band", "tolerance"), [("u", 2e-3), ("g", 5e-4), ("r", 5e-4), ("i", 5e-4), ("z", 1e-3)])
def test_signal_to_noise_is_defined_as_in_real_headers(shared_data, band, tolerance):
    ratios = []
    for path in sorted((shared_data / "lamost" / "matrix").glob("*.fits.gz"))[::4]:
        spectrum = read_spectrum(path)
        header = spectrum.meta.get(f"snr{band}")
        if header and header > 2:
            value = band_snr(spectrum.wavelength, spectrum.flux[None], spectrum.ivar[None])[band][0]
            ratios.append(abs(value / header - 1))
    assert len(ratios) > 15
    assert np.median(ratios) < tolerance


@pytest.mark.parametrize("snr", [10.0, 40.0, 150.0])
def test_the_signal_to_noise_is_the_one_asked_for(flux, snr):
    raw = observe(flux, snr=snr)
    assert raw.snr["g"] == pytest.approx([snr, snr], rel=0.05)
    assert raw.snr["r"][1] > raw.snr["u"][1]


def test_a_star_does_not_depend_on_its_batch_but_on_its_id_and_the_seed(flux):
    ids = np.array([BIG, BIG + 1])
    whole, alone = observe(flux, ids=ids), observe(flux[1:], ids=ids[1:])
    np.testing.assert_array_equal(whole.flux[1], alone.flux[0])
    np.testing.assert_array_equal(whole.ivar[1], alone.ivar[0])
    assert not np.array_equal(observe(flux, ids=ids, seed=1).flux, whole.flux)
    assert not np.array_equal(observe(flux, ids=ids + 1).flux[1], whole.flux[1])


@pytest.mark.parametrize("rv", [-250.0, 120.0])
def test_lines_move_by_the_radial_velocity(flux, rv):
    rest, moved = (observe(flux[:1], snr=2000.0, rv=v).flux[0].astype(float) for v in (0.0, rv))
    window = (WAVELENGTH > 5100) & (WAVELENGTH < 5400)
    a, b = (
        f[window] / np.polyval(np.polyfit(np.arange(window.sum()), f[window], 3), np.arange(window.sum()))
        for f in (rest, moved)
    )
    shifts = np.arange(-15, 16)
    match = [np.corrcoef(np.roll(a, s)[20:-20], b[20:-20])[0, 1] for s in shifts]
    expected = np.log10(1 + rv / 299792.458) / 1e-4
    assert shifts[int(np.argmax(match))] == pytest.approx(expected, abs=0.6)


def test_reddening_dims_the_blue(flux):
    law = pytest.importorskip("dust_extinction.parameter_averages").G23(Rv=3.1)
    clear, dusty = observe(flux, snr=500.0), observe(flux, snr=500.0, ebv=np.array([0.5, 0.5]))
    blue, red = (WAVELENGTH > 4000) & (WAVELENGTH < 4500), (WAVELENGTH > 7000) & (WAVELENGTH < 7500)

    def color(raw):
        return np.median(raw.flux[:, blue], axis=1) / np.median(raw.flux[:, red], axis=1)

    expected = 0.5 * 3.1 * float(law(4250 * u.AA) - law(7250 * u.AA))
    assert -2.5 * np.log10(color(dusty) / color(clear)) == pytest.approx([expected, expected], abs=0.1)


def test_masked_pixels_have_no_weight(flux):
    raw = observe(np.repeat(flux, 50, axis=0))
    assert (raw.ormask > 0).any()
    assert ((raw.ivar == 0) == (raw.ormask > 0)).all()
    assert np.isfinite(raw.flux).all()


@pytest.mark.parametrize("layout", ["table", "image"])
def test_a_simulated_file_is_read_and_prepared_as_the_spectrum_in_memory(tmp_path, layout):
    from specclip_search.simulation.spectra.spectrograph import RawLrs

    labels = np.array([SUN, POOR])
    spectra = observe_stars(Emulator.load(), labels, np.array([BIG, BIG + 7]), np.zeros(2), seed=3)
    raw = RawLrs(
        WAVELENGTH,
        *(np.stack([getattr(s, n) for s in spectra]) for n in ("flux", "ivar")),
        *np.zeros((2, 2, len(WAVELENGTH)), np.int16),
        {},
        np.zeros(2),
    )
    path = tmp_path / "spec.fits.gz"
    write_lamost_fits(path, raw, 1, {"OBSID": BIG + 7, "RA": 10.0, "DEC": -5.0}, layout)
    first = path.read_bytes()
    write_lamost_fits(path, raw, 1, {"OBSID": BIG + 7, "RA": 10.0, "DEC": -5.0}, layout)
    assert path.read_bytes() == first
    read = read_spectrum(path)
    assert read.spec_id == BIG + 7
    assert (read.meta["ra"], read.meta["dec"]) == (10.0, -5.0)
    from_file, in_memory = prepare_batch(LAMOST_LRS, [read]), prepare_batch(LAMOST_LRS, [spectra[1]])
    # the survey's files hold float32 wavelengths
    np.testing.assert_allclose(from_file.flux, in_memory.flux, atol=2e-4)
    assert from_file.keep.all()


def test_what_cannot_be_observed_is_refused(flux):
    with pytest.raises(SimulationError, match="within 1000 km/s"):
        observe(flux, rv=5000.0)
    with pytest.raises(SimulationError, match="must be positive"):
        observe(flux, snr=0.0)
    with pytest.raises(SimulationError, match=r"must be \(N, 3923\)"):
        observe(flux[:, 5:])


def test_band_values_ignore_masked_pixels():
    flux, ivar = np.full((2, len(WAVELENGTH)), 4.0), np.full((2, len(WAVELENGTH)), 25.0)
    flux[0, ::3], ivar[0, ::3] = 1e6, 0.0
    ivar[1] = 0.0
    values = band_snr(WAVELENGTH, flux, ivar)
    assert values["g"][0] == 20.0
    assert np.isnan(values["g"][1])
