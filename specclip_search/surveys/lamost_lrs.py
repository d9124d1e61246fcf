"""LAMOST LRS: flux over pseudo-continuum, on a logarithmic grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..preparation.continuum import CHUNK_ROWS, ContinuumGrid, continuum, continuum_grid, positive
from ..preparation.gridding import LinearMap, check_wavelength, linear_map

LOG_START, LOG_STEP, SIZE = 3.602, 1e-4, 1462
LOG_GRID = np.linspace(LOG_START, LOG_START + LOG_STEP * (SIZE - 1), SIZE)
GRID = 10.0**LOG_GRID
UNIT = "Angstrom"


@dataclass(frozen=True, slots=True)
class LrsGrids:
    """The two fixed maps of one wavelength grid: to its continuum, and onto the model's grid."""

    continuum: ContinuumGrid
    onto_model: LinearMap

    @property
    def used(self) -> slice:
        return self.continuum.used


def lrs_grids(wavelength: np.ndarray) -> LrsGrids:
    """Fixed quantities of a wavelength array (P,), Angstrom; refuses what cannot carry the model's grid."""
    wavelength = np.asarray(wavelength, dtype=np.float64)
    check_wavelength(wavelength, GRID, UNIT)
    grid = continuum_grid(wavelength)
    return LrsGrids(grid, linear_map(np.log10(wavelength[grid.used]), LOG_GRID))


def prepare_lrs(wavelength: np.ndarray, flux: np.ndarray) -> np.ndarray:
    """Published LRS input: (N, P) finite flux to (N, 1462) float64."""
    grids = lrs_grids(wavelength)
    used = flux[:, grids.used]
    result = np.empty((len(flux), SIZE))
    for start in range(0, len(flux), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        result[rows] = grids.onto_model.values(used[rows] / positive(continuum(grids.continuum, used[rows])))
    return result
