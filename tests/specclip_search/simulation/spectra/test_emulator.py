"""The emulator against the grid it was trained on, and against what stars must do."""

import importlib.util

import numpy as np
import pytest

from specclip_search.simulation.spectra.emulator import Emulator
from specclip_search.simulation.spectra.labels import SimulationError

SUN = {"teff": 5772.0, "logg": 4.44, "feh": 0.0, "alpha_fe": 0.0, "c_fe": 0.0}


@pytest.fixture(scope="module")
def emulator():
    return Emulator.load()


def equivalent_width(emulator, labels, center, half):
    wave = emulator.wavelength
    window = np.abs(wave - center) < half
    return ((1 - emulator.normalised(labels)[:, window]) * np.gradient(wave[window])).sum(axis=1)


def test_held_out_grid_stars_are_reproduced_to_the_promised_error(emulator, shared_data):
    """rms of normalised flux in 3900-5700 A and of the shape in 3400-10400 A, for stars no weight saw."""
    spec = importlib.util.spec_from_file_location("load_grid", shared_data.parent / "tools" / "load_grid.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    grid = tool.load(shared_data / "synthetic_grid.npz")
    held = np.isin(grid["index"], emulator.heldout_index)
    labels = grid["labels"][held, :5].astype(np.float64)
    use = emulator.covers(labels)
    assert use.sum() > 400
    wave = emulator.wavelength
    blue = (wave > 3900) & (wave < 5700)
    residual = emulator.normalised(labels[use])[:, blue] - grid["lrs_norm"][held][use][:, blue]
    rms = np.sqrt((residual**2).mean(axis=1))
    assert np.median(rms) < 0.0009
    assert np.percentile(rms, 90) < 0.0035
    sed = emulator.sed_wavelength
    wide = (sed > 3400) & (sed < 10400)
    ratio = np.log(emulator.sed(labels[use])[:, wide] / grid["sed_flux"][held][use][:, wide])
    shape = (ratio - ratio.mean(axis=1, keepdims=True)).std(axis=1)
    assert np.median(shape) < 0.0035


@pytest.mark.parametrize(("line", "center", "half"), [("Ca K", 3934.8, 12), ("Mg b", 5177, 15), ("Fe 5270", 5271, 6)])
def test_metal_lines_grow_with_metallicity(emulator, line, center, half):
    feh = np.array([-3.5, -3.0, -2.5, -2.0, -1.5, -1.0, -0.5, 0.0, 0.3])
    alpha = np.clip(-feh * 0.33, 0, 0.33)
    width = equivalent_width(
        emulator, {**SUN, "teff": 5300.0, "logg": 4.5, "feh": feh, "alpha_fe": alpha}, center, half
    )
    assert (np.diff(width) > 0).all(), line


def test_the_g_band_grows_with_carbon(emulator):
    labels = {
        **SUN,
        "teff": 4900.0,
        "logg": 2.0,
        "feh": -2.6,
        "alpha_fe": 0.33,
        "c_fe": np.array([-0.3, 0.3, 1.0, 2.0]),
    }
    assert (np.diff(equivalent_width(emulator, labels, 4305, 25)) > 0.5).all()


def test_a_row_does_not_depend_on_the_others(emulator):
    labels = np.array([[5772.0, 4.44, 0, 0, 0], [4900.0, 1.8, -2.5, 0.35, 0.1], [9500.0, 4.0, -0.3, 0.0, 0.0]])
    np.testing.assert_array_equal(emulator.lrs(labels)[1], emulator.lrs(labels[1:2])[0])
    assert (emulator.lrs(labels) > 0).all()
    assert (emulator.uncertainty(labels) > 0).all()


@pytest.mark.parametrize(("name", "value"), [("teff", 3500.0), ("feh", -5.0), ("logg", 6.0), ("c_fe", 4.0)])
def test_labels_outside_the_range_are_refused_by_name(emulator, name, value):
    with pytest.raises(SimulationError, match=name):
        emulator.normalised({**SUN, name: value})
    assert not emulator.covers({**SUN, name: value})[0]
    assert emulator.margin({**SUN, name: value})[0] < 0


def test_corners_without_computed_stars_and_missing_labels_are_refused(emulator):
    nowhere = np.array([[6900.0, 0.5, -3.9, 0.3, 0.0]])
    assert not emulator.covers(nowhere)[0]
    with pytest.raises(SimulationError):
        emulator.sed(nowhere)
    assert not emulator.covers(np.array([[np.nan, 4.4, 0, 0, 0]]))[0]
    with pytest.raises(SimulationError, match="c_fe not given"):
        emulator.lrs({n: v for n, v in SUN.items() if n != "c_fe"})


def test_a_file_that_is_no_emulator_is_refused(tmp_path):
    path = tmp_path / "weights.npz"
    path.write_text("not an archive")
    with pytest.raises(SimulationError, match=r"weights\.npz"):
        Emulator.load(path)
    with pytest.raises(SimulationError, match="none"):
        Emulator.load(tmp_path / "none.npz")
