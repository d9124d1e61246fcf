"""Simulated spectra over real ones: twins of LAMOST spectra, and XP stars of like labels."""

import numpy as np
import pytest

from specclip_search.simulation.spectra.emulator import Emulator
from specclip_search.simulation.spectra.gaia_xp import model_xp
from specclip_search.simulation.spectra.labels import SimulationError
from specclip_search.simulation.spectra.reddening import xp_extinction
from specclip_search.training.emulator.compare_xp import RealXp
from specclip_search.training.emulator.pictures import draw_over_real, lrs_twins, nearest_other, xp_twins


def emulated_stars() -> RealXp:
    labels = np.array(
        [[5800.0, 4.4, -0.1, 0.0, 0.0], [5850.0, 4.4, -0.2, 0.05, 0.0], [5805.0, 4.4, -0.1, 0.0, 0.0],
         [4500.0, 2.0, -0.3, 0.1, 0.0], [5000.0, 2.4, -1.7, 0.3, 0.0]]
    )  # fmt: skip
    ebv = np.array([0.1, 0.2, 0.9, 0.1, 0.0])
    model = model_xp(Emulator.load(), labels) * 10.0 ** (-0.4 * ebv[:, None] * xp_extinction())
    model = model / model[:, 107:108]
    return RealXp(np.arange(5), labels, ebv, model.copy(), model * 0.01, model)


def test_twins_of_real_spectra_have_their_noise(shared_data):
    twins = lrs_twins(Emulator.load(), shared_data / "lamost")
    assert len(twins) == 3
    for twin in twins:
        apart = [np.median(np.abs(np.diff(flux))) for flux in (twin.real, twin.simulated)]
        # the survey's variances are larger than its noise, and the simulated noise is the variance's
        assert 0.8 < apart[1] / apart[0] < 2.0
        box = np.full(15, 1 / 15)
        smooth = [np.convolve(flux, box, "valid") for flux in (twin.real, twin.simulated)]
        assert np.corrcoef(smooth)[0, 1] > 0.75


def test_the_most_like_star_is_not_much_more_reddened():
    stars = emulated_stars()
    assert nearest_other(stars, 0) == 1
    emulated, moved = xp_twins(Emulator.load(), stars, 0)
    window = slice(60, 320)
    np.testing.assert_allclose(moved[window], stars.flux[0][window], rtol=0.02)
    assert emulated.sum() == pytest.approx(stars.flux[0].sum(), rel=0.02)


def test_the_picture(shared_data, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "img" / "six.png"
    draw_over_real(Emulator.load(), shared_data / "lamost", emulated_stars(), path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_too_few_labels(tmp_path):
    (tmp_path / "labels.csv").write_text("obsid,teff,logg,feh,rv\n1,3000,5,0,0\n")
    with pytest.raises(SimulationError, match="must be covered by the emulator; found 0"):
        lrs_twins(Emulator.load(), tmp_path)
