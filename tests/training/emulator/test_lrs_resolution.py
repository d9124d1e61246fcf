"""The resolving power that ships is what the real spectra's sky lines say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from specclip_search.preparation.line_spread import lrs_resolution
from specclip_search.readers.wavelengths import air_to_vacuum
from specclip_search.training.emulator.lrs_resolution import line_widths


def test_the_shipped_curve_agrees_with_real_sky_lines(shared_data: Path) -> None:
    with np.load(shared_data / "lamost_real" / "spectra.npz") as stored:
        ivar = stored["ivar"][1::6]  # others than every third, mostly
        wavelength = 10.0 ** (float(stored["loglam0"]) + float(stored["dloglam"]) * np.arange(ivar.shape[1]))
    for air in (5577.34, 7340.89, 7750.64, 8399.17):
        widths = line_widths(wavelength, ivar, air)
        assert len(widths) > 60
        centre = air_to_vacuum(np.array([air]))
        assert centre[0] / np.median(widths) == pytest.approx(float(lrs_resolution(centre)[0]), rel=0.1)


def test_a_line_of_known_width_is_measured() -> None:
    wavelength = 10.0 ** (3.5682 + 1e-4 * np.arange(3909))
    rng = np.random.default_rng(3)
    centre = float(air_to_vacuum(np.array([5577.34]))[0])
    variance = 1.0 + 12.0 * np.exp(-0.5 * ((wavelength - centre) / 1.4) ** 2)
    ivar = 1.0 / (variance * rng.normal(1.0, 0.02, (20, len(wavelength))))
    assert np.median(line_widths(wavelength, ivar, 5577.34)) == pytest.approx(1.4 * 2.3548, rel=0.02)
