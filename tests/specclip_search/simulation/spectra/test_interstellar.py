"""Gas and dust before the star: bands as strong as published, and reddening found again from an XP spectrum."""

from __future__ import annotations

import numpy as np
import pytest

from specclip_search.simulation.spectra import interstellar
from specclip_search.simulation.spectra.emulator import Emulator
from specclip_search.simulation.spectra.gaia_xp import model_xp
from specclip_search.simulation.spectra.interstellar import D1_LAW, D2_LAW, interstellar_transmission, sodium_width
from specclip_search.simulation.spectra.reddening import fit_reddening, xp_extinction
from specclip_search.simulation.spectra.spectrograph import WAVELENGTH


def test_bands_have_the_published_width_and_place(monkeypatch):
    for name in ("COMMON_SCATTER", "BAND_SCATTER", "SODIUM_SCATTER", "VELOCITY_KM_S"):
        monkeypatch.setattr(interstellar, name, 0.0)
    seen = -np.log(interstellar_transmission(WAVELENGTH, 0.5, np.random.default_rng(0)))
    step = np.gradient(WAVELENGTH)
    for centre, _, strength in interstellar.BANDS.values():
        near = np.abs(WAVELENGTH - centre * 1.000277) < 14.0
        if centre == 5780.5:  # its neighbour at 5797 lies 17 A away
            near &= WAVELENGTH < 5790.0
        if centre == 5797.1:
            near &= WAVELENGTH > 5792.0
        assert (seen * step)[near].sum() == pytest.approx(0.5 * strength, rel=0.08)
        assert np.average(WAVELENGTH[near], weights=seen[near]) == pytest.approx(centre * 1.000277, abs=1.0)


def test_no_dust_no_bands_and_more_dust_more_sodium():
    assert np.all(interstellar_transmission(WAVELENGTH, 0.0, np.random.default_rng(0)) == 1.0)
    # Poznanski et al. 2012: D2 of 0.42 A at E(B-V) = 0.1
    assert sodium_width(0.1, D2_LAW) == pytest.approx(0.42, abs=0.01)
    widths = [sodium_width(ebv, D1_LAW) for ebv in (0.0, 0.005, 0.02, 0.0347, 0.0348, 0.1, 0.5)]
    assert widths[0] == 0.0
    assert np.all(np.diff(widths) > 0)


def test_the_bands_follow_dust_and_seed_alone():
    first, again = (interstellar_transmission(WAVELENGTH, 0.3, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != interstellar_transmission(WAVELENGTH, 0.3, np.random.default_rng(6)))
    assert 0.0 < first.min() < 1.0


def test_reddening_is_found_again():
    emulator = Emulator.load()
    labels = np.array([[5000.0, 2.5, -0.5, 0.2, 0.0], [6000.0, 4.3, 0.0, 0.0, 0.0], [4300.0, 1.5, -1.0, 0.3, 0.0]])
    ebv = np.array([0.0, 0.12, 0.8])
    seen = model_xp(emulator, labels) * 10.0 ** (-0.4 * ebv[:, None] * xp_extinction())
    np.testing.assert_allclose(fit_reddening(emulator, labels, seen * [[1e-16], [2e-15], [1.0]]), ebv, atol=1e-6)
    bluer = seen * 10.0 ** (0.4 * 0.1 * xp_extinction())
    assert fit_reddening(emulator, labels[:1], bluer[:1])[0] == 0.0
