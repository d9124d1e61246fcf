"""Learn the depths of lines in real stars relative to models, from a library of labelled real stars.

    python -m specclip_search.training.emulator.line_depths miles.npz --output data/line_depths.json

Prints the error before and after, for the training stars and, with training on every second star
only, for the others.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from specclip_search.atlas.files import write_text
from specclip_search.simulation.spectra.emulator import Emulator
from specclip_search.simulation.spectra.labels import FloatArray
from specclip_search.simulation.spectra.line_depths import KNOTS_A, TERMS, LineDepths, knot_weights, label_terms
from specclip_search.surveys import LAMOST_LRS

from .compare_lamost import MILES_FWHM_A, RESOLUTION, broadened
from .miles import miles_stars, resampled

STEP = -0.1
ERROR_FLOOR = 0.01
# strength of the priors to no change and to smoothness in wavelength, relative to the mean curvature of the fit
RIDGE, SMOOTH = 1e-3, 1e-2


@dataclass(frozen=True)
class Stars:
    """Real stars (N): model inputs, those emulated at their labels, and derivatives by the depths at the knots."""

    labels: FloatArray
    real: FloatArray
    model: FloatArray
    slopes: FloatArray
    """(N, knots, 1462)."""


def read_stars(emulator: Emulator, path: Path) -> Stars:
    """Stars of the library covered by the emulator."""
    labels, wavelength, flux = miles_stars(emulator, path)
    grid = np.arange(emulator.wavelength[0] + 1.0, wavelength[-1] - 1.0, 0.5)
    target = np.maximum(MILES_FWHM_A, grid / RESOLUTION)
    own = np.full_like(grid, MILES_FWHM_A)
    real = LAMOST_LRS.prepare(grid, broadened(grid, resampled(wavelength, flux, grid), own, target))
    normalised, continuum = emulator.normalised(labels), emulator.continuum(labels)

    def seen(factor: FloatArray | float) -> FloatArray:
        model = resampled(emulator.wavelength, (1.0 - (1.0 - normalised) * factor) * continuum, grid)
        return np.asarray(LAMOST_LRS.prepare(grid, broadened(grid, model, grid / RESOLUTION, target)))

    model = seen(1.0)
    slopes = np.stack([(seen(1.0 + STEP * row) - model) / STEP for row in knot_weights(emulator.wavelength)], axis=1)
    return Stars(labels, real, model, slopes)


def learn(stars: Stars, rows: np.ndarray) -> LineDepths:
    """Regularised least squares over pixels and stars, with poorly reproduced stars down-weighted."""
    count = len(KNOTS_A) * TERMS
    terms, residual = label_terms(stars.labels), stars.real - stars.model
    weight = 1.0 / np.maximum((residual**2).mean(axis=1), ERROR_FLOOR**2)
    normal, right = np.zeros((count, count)), np.zeros(count)
    for row in rows:
        design = (stars.slopes[row][:, None, :] * terms[row][None, :, None]).reshape(count, -1)
        normal += weight[row] * design @ design.T
        right += weight[row] * design @ residual[row]
    bend = np.diff(np.eye(len(KNOTS_A)), 2, axis=0)
    penalty = RIDGE * np.eye(count) + SMOOTH * np.kron(bend.T @ bend, np.eye(TERMS))
    scale = np.trace(normal) / count
    return LineDepths(np.linalg.solve(normal + scale * penalty, right).reshape(len(KNOTS_A), TERMS))


def errors(stars: Stars, rows: np.ndarray, depths: LineDepths | None) -> FloatArray:
    """(rows,) rms of normalised flux; with `depths`, to first order in their change."""
    model = stars.model[rows]
    if depths is not None:
        change = label_terms(stars.labels[rows]) @ depths.coefficients.T
        model = model + np.einsum("nk,nkp->np", change, stars.slopes[rows])
    return np.asarray(np.sqrt(((model - stars.real[rows]) ** 2).mean(axis=1)))


def main(arguments: list[str] | None = None) -> int:
    """Learn, report and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path, help="miles.npz: wave_air, flux, teff, logg, feh")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0, help="random seed of the halves")
    options = parser.parse_args(arguments)
    stars = read_stars(Emulator.load(), options.library)
    everyone = np.arange(len(stars.labels))
    order = np.random.default_rng(options.seed).permutation(everyone)
    half = learn(stars, order[::2])
    report = {
        "stars": len(everyone),
        "rms_without": round(float(np.median(errors(stars, order[1::2], None))), 5),
        "rms_learned_from_others": round(float(np.median(errors(stars, order[1::2], half))), 5),
        "rms_learned_from_themselves": round(float(np.median(errors(stars, order[::2], half))), 5),
    }
    table = {"knots_a": KNOTS_A.tolist(), "coefficients": learn(stars, everyone).coefficients.round(5).tolist()}
    write_text(options.output, json.dumps(report | table) + "\n")
    sys.stdout.write(json.dumps(report) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
