"""Correction of the models' line depths: a smooth factor, fitted to a library of real stars.

Lines of the LTE models are too deep, mostly in cool stars and blueward of 4400 A. The factor
is smooth in wavelength and labels (72 parameters); docs/emulator.md shows its validity for
other stars and another instrument.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .emulator import Emulator
    from .labels import FloatArray

KNOTS_A: FloatArray = np.linspace(3950.0, 5650.0, 12)
TAPER_A = 150.0  # distance beyond the first and last knot over which the factor returns to 1
LEAST, MOST = 0.4, 1.3
TERMS = 6


def label_terms(labels: FloatArray) -> FloatArray:
    """(N, 6) linear terms of the factor; labels are clipped to the range of the library's stars."""
    heat = 3.0 * (np.clip(5040.0 / labels[:, 0], 0.6, 1.26) - 1.0)
    gravity = (np.clip(labels[:, 1], 0.8, 4.8) - 3.5) / 1.5
    metals = np.clip(labels[:, 2], -2.5, 0.4) / 1.5
    return np.stack([np.ones(len(labels)), heat, heat**2, metals, gravity, heat * metals], axis=1)


def knot_weights(wavelength: FloatArray) -> FloatArray:
    """(12, P) weight of each knot at each wavelength [Angstrom, vacuum]; 0 far outside the knots."""
    weights = np.array([np.interp(wavelength, KNOTS_A, row) for row in np.eye(len(KNOTS_A))])
    inside = np.interp(
        wavelength, [KNOTS_A[0] - TAPER_A, KNOTS_A[0], KNOTS_A[-1], KNOTS_A[-1] + TAPER_A], [0.0, 1.0, 1.0, 0.0]
    )
    return np.asarray(weights * inside)


@dataclass(frozen=True)
class LineDepths:
    """The factor's coefficients, (12 knots, 6 terms); they are added to 1."""

    coefficients: FloatArray

    def factor(self, wavelength: FloatArray, labels: FloatArray) -> FloatArray:
        """(N, P) factor of 1 - flux/continuum at wavelengths [Angstrom, vacuum] for (N, 5) labels."""
        change = label_terms(labels) @ self.coefficients.T @ knot_weights(wavelength)
        return np.clip(1.0 + change, LEAST, MOST)


@lru_cache(maxsize=1)
def shipped_line_depths() -> LineDepths:
    """The factor that ships with the package; made by `learn_line_depths`."""
    text = resources.files(__package__).joinpath("data/line_depths.json").read_text(encoding="utf-8")
    return LineDepths(np.array(json.loads(text)["coefficients"], dtype=np.float64))


def real_lrs(emulator: Emulator, labels: FloatArray) -> FloatArray:
    """Surface flux (N, 3923) as `Emulator.lrs`, with line depths corrected to those of real stars."""
    factor = shipped_line_depths().factor(emulator.wavelength, labels)
    return (1.0 - (1.0 - emulator.normalised(labels)) * factor) * emulator.continuum(labels)
