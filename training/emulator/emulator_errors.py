"""Errors of an emulator on grid stars that it was not fitted to."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from specclip_search.simulation.spectra.emulator import ERROR_CLASSES, Emulator, error_class
from specclip_search.simulation.spectra.labels import FloatArray

from .grid import ModelGrid

LINE_WINDOW = (3900.0, 5700.0)
SHAPE_WINDOW = (3400.0, 10400.0)


def star_errors(emulator: Emulator, grid: ModelGrid, rows: np.ndarray) -> dict[str, FloatArray]:
    """Errors of each star in `rows`, (N,).

    Returns
    -------
    dict
        `normalised`: rms over 3900-5700 A of the normalised flux; `normalised_all`: over all
        pixels; `sed_shape`: rms over 3400-10400 A of ln flux after its mean is removed;
        `sed_level`: the removed mean of ln flux.
    """
    labels = grid.labels[rows]
    difference = emulator.normalised(labels) - grid.normalised[rows]
    lines = (grid.wavelength >= LINE_WINDOW[0]) & (grid.wavelength <= LINE_WINDOW[1])
    shape = (grid.sed_wavelength >= SHAPE_WINDOW[0]) & (grid.sed_wavelength <= SHAPE_WINDOW[1])
    log_ratio = np.log(emulator.sed(labels) / grid.sed[rows])[:, shape]
    level = log_ratio.mean(axis=1)
    return {
        "normalised": np.sqrt((difference[:, lines] ** 2).mean(axis=1)),
        "normalised_all": np.sqrt((difference**2).mean(axis=1)),
        "sed_shape": np.sqrt(((log_ratio - level[:, None]) ** 2).mean(axis=1)),
        "sed_level": np.abs(level),
    }


def populations(labels: FloatArray) -> dict[str, np.ndarray]:
    """Masks (N,) of the populations that errors are told apart for; they may overlap."""
    teff, logg, feh, _, c_fe = labels.T
    cool = teff < 8000.0
    return {
        "all": np.ones(len(labels), dtype=bool),
        "hot (teff >= 8000 K)": ~cool,
        "teff < 4800 K": teff < 4800.0,
        "giants (logg < 3.5)": cool & (logg < 3.5),
        "feh < -2.2": cool & (feh < -2.2),
        "feh < -3": cool & (feh < -3.0),
        "carbon-rich (c_fe > 0.7)": cool & (c_fe > 0.7),
    }


def summary(errors: dict[str, FloatArray], labels: FloatArray) -> dict[str, dict[str, float | int]]:
    """Median, 90th percentile and maximum of each error in each population."""
    table: dict[str, dict[str, float | int]] = {}
    for name, mask in populations(labels).items():
        row: dict[str, float | int] = {"n": int(mask.sum())}
        for key, values in errors.items():
            if mask.any():
                row |= {
                    f"{key}_median": float(np.median(values[mask])),
                    f"{key}_90": float(np.percentile(values[mask], 90)),
                    f"{key}_max": float(values[mask].max()),
                }
        table[name] = row
    return table


def residual_curves(values: FloatArray, classes: np.ndarray) -> FloatArray:
    """Rms residual by wavelength of each class, (len(ERROR_CLASSES), P); an empty class takes that of all."""
    overall = np.sqrt((values**2).mean(axis=0))
    curves = [np.sqrt((values[classes == i] ** 2).mean(axis=0)) if (classes == i).any() else overall
              for i in range(len(ERROR_CLASSES))]  # fmt: skip
    return np.stack(curves)


def measure_errors(
    emulator: Emulator,
    arrays: dict[str, np.ndarray],
    grid: ModelGrid,
    held: np.ndarray,
    settings: dict[str, Any],
) -> dict[str, np.ndarray]:
    """`arrays` with the held-out error curves and the metrics added.

    Held-out stars outside the emulator's coverage are counted and left out, as in use.
    """
    labels = grid.labels[held]
    rows = held[emulator.covers(labels)]
    labels = grid.labels[rows]
    classes = error_class(labels)
    metrics = {
        "heldout_stars": len(held),
        "heldout_covered": len(rows),
        "errors": summary(star_errors(emulator, grid, rows), labels),
        "settings": settings,
    }
    normalised = emulator.normalised(labels) - grid.normalised[rows]
    sed = np.log(emulator.sed(labels) / grid.sed[rows])
    return arrays | {
        "normalised_error": residual_curves(normalised, classes).astype(np.float16),
        "sed_error": residual_curves(sed, classes).astype(np.float16),
        "metrics": np.array(json.dumps(metrics, sort_keys=True)),
    }
