"""What model spectra lack of real LAMOST spectra: a smooth correction by label, and the 4428 A band's depth.

A twin is the model spectrum at a real star's labels, seen at its velocity and without dust. What
real spectra exceed their twins by is fitted by ten terms in labels (`smooth_residual`). Across the
4428 A band the correction is bridged: what is seen there is the mean dust of the stars, not an
error of the models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from specclip_search.simulation.spectra.gaia_xp import fit_smooth, smooth_terms
from specclip_search.simulation.spectra.line_depths import real_lrs
from specclip_search.surveys import LAMOST_LRS

from ..emulator.miles import usual_alpha
from ..fit.augment import shift_velocity
from .spectra import RealSpectra

if TYPE_CHECKING:
    from specclip_search.simulation.spectra.emulator import Emulator

BAND_A = (4422.0, 4437.0)
SIDES_A = ((4398.0, 4412.0), (4448.0, 4462.0))
BRIDGE_A = (4412.0, 4448.0)
BAND_DEPTH = 0.128
"""Depth of the band's core, of the continuum, at E(B-V) = 1 and R = 1800."""
TWIN_BLUR = 0.115
"""Kernel [k, 1-2k, k] that takes the models' resolution to LAMOST's mean one."""
MAX_TEFF = 9500.0
BLOCK = 512


def twins(emulator: Emulator, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Model inputs (N, 1462) at labels (N, 6), NaN where the emulator does not cover them, and a mask of those it does.

    [alpha/Fe] is the usual one at the star's [Fe/H], [C/Fe] is 0.
    """
    asked = np.column_stack([labels[:, :3], usual_alpha(labels[:, 2]), np.zeros(len(labels))])
    known = np.isfinite(asked).all(axis=1)
    asked[known] = emulator.snap(asked[known])
    known[known] = emulator.covers(asked[known])
    result = np.full((len(labels), LAMOST_LRS.size), np.nan)
    rows = np.flatnonzero(known)
    for start in range(0, len(rows), BLOCK):
        part = rows[start : start + BLOCK]
        flux = real_lrs(emulator, asked[part])
        flux[:, 1:-1] = (1 - 2 * TWIN_BLUR) * flux[:, 1:-1] + TWIN_BLUR * (flux[:, :-2] + flux[:, 2:])
        at_rest = LAMOST_LRS.prepare(emulator.wavelength, flux)
        result[part] = shift_velocity(at_rest, np.nan_to_num(labels[part, 5]))
    return result, known


@dataclass(frozen=True)
class LineCorrection:
    """Coefficients (10, 1462) of `smooth_terms`, at rest."""

    coefficients: np.ndarray

    def at(self, labels: np.ndarray) -> np.ndarray:
        """(N, 1462) what real spectra exceed models by at labels (N, 6), seen at the stars' velocities."""
        rest = smooth_terms(labels[:, :5]) @ self.coefficients
        return shift_velocity(rest, np.nan_to_num(labels[:, 5]))


def learn_correction(emulator: Emulator, real: RealSpectra) -> LineCorrection:
    """Learn the correction from the labelled stars of `real` that are not held out and not hotter than 9500 K."""
    rows = np.flatnonzero(real.labelled & ~real.held & (real.labels[:, 0] < MAX_TEFF))
    model, known = twins(emulator, real.labels[rows])
    rows, model = rows[known], model[known]
    labels = real.labels[rows]
    residual = shift_velocity(real.inputs[rows] - model, -np.nan_to_num(labels[:, 5]))
    coefficients = fit_smooth(labels[:, :5], residual)
    return LineCorrection(bridged(coefficients).astype(np.float32))


def bridged(rows: np.ndarray) -> np.ndarray:
    """Rows (N, 1462) with the 4428 A band replaced by the line between its edges."""
    wave = LAMOST_LRS.wavelength
    inside = (wave > BRIDGE_A[0]) & (wave < BRIDGE_A[1])
    result = rows.copy()
    edges = np.flatnonzero(inside)[[0, -1]] + (-1, 1)
    for row in result:
        row[inside] = np.interp(wave[inside], wave[edges], row[edges])
    return result


def band_reddening(emulator: Emulator, real: RealSpectra, correction: LineCorrection) -> np.ndarray:
    """(N,) E(B-V) [mag] from the depth of the 4428 A band beyond the corrected twin's; NaN without labels."""
    model, known = twins(emulator, real.labels)
    result = np.full(len(real), np.nan)
    rows = np.flatnonzero(known)
    difference = real.inputs[rows] - model[rows] - correction.at(real.labels[rows])
    wave = LAMOST_LRS.wavelength
    core = (wave > BAND_A[0]) & (wave < BAND_A[1])
    sides = np.zeros(len(wave), bool)
    for low, high in SIDES_A:
        sides |= (wave > low) & (wave < high)
    result[rows] = (difference[:, sides].mean(1) - difference[:, core].mean(1)) / BAND_DEPTH
    return result

