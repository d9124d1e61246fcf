"""Gaia XP calibration as a matrix product: GaiaXPy's operator, applied to whole batches.

Calibrating a continuous mean spectrum is linear in its coefficients. The design matrices and the
BP/RP weights are GaiaXPy's, for the archive's sampling of 336 to 1020 nm by 2 nm; the results are
those of ``gaiaxpy.calibrate`` with its default sampling. Method: De Angeli et al. 2023, A&A 674, A2;
Montegriffo et al. 2023, A&A 674, A3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from ..errors import SpecclipError
from ..surveys.gaia_xp import GRID

N_COEFFICIENTS = 55
N_CORRELATIONS = N_COEFFICIENTS * (N_COEFFICIENTS - 1) // 2


@dataclass(frozen=True, slots=True)
class BandOperator:
    """The part of the operator for one band.

    Attributes
    ----------
    covers
        Grid points to which the band contributes.
    values
        (55, m) coefficients to flux at those points, BP/RP weight included, W m-2 nm-1.
    diagonal
        (55, m) squared coefficient errors to variance.
    products
        (1485, m) covariances below the diagonal to variance; each enters twice.
    """

    covers: slice
    values: np.ndarray
    diagonal: np.ndarray
    products: np.ndarray


@cache
def band_operators() -> tuple[BandOperator, BandOperator]:
    """The operators of BP and RP, taken from GaiaXPy once per process.

    Raises
    ------
    SpecclipError
        If the installed GaiaXPy does not use the archive's wavelength grid.
    """
    import matplotlib

    # importing GaiaXPy switches matplotlib to LaTeX for the whole process; undo that for the user's notebook
    with matplotlib.rc_context():
        from gaiaxpy.core.config import load_xpmerge_from_xml, load_xpsampling_from_xml

    grid, merge = load_xpmerge_from_xml(bp_model="v375wi")
    design = load_xpsampling_from_xml(bp_model="v375wi")
    if not np.array_equal(np.asarray(grid, dtype=np.float64), GRID):
        raise SpecclipError("GaiaXPy must calibrate onto the grid 336-1020 nm by 2 nm; the installed one does not.",
                            "Install the supported version: pip install 'gaiaxpy~=2.1.5'")
    bp, rp = (_band(np.asarray(design[band], np.float64), np.asarray(merge[band], np.float64)) for band in ("bp", "rp"))
    return bp, rp


def _band(design: np.ndarray, weight: np.ndarray) -> BandOperator:
    reached = np.flatnonzero(weight)
    covers = slice(int(reached[0]), int(reached[-1]) + 1)
    values = np.ascontiguousarray(design[:, covers] * weight[covers])
    below, left = np.tril_indices(N_COEFFICIENTS, k=-1)
    return BandOperator(covers, values, values**2, 2.0 * values[below] * values[left])


def calibrate(bp: np.ndarray, rp: np.ndarray) -> np.ndarray:
    """Flux of many stars from their coefficients.

    Parameters
    ----------
    bp, rp
        (N, 55) float64 coefficients of the two bands.

    Returns
    -------
    ndarray
        (N, 343) float64, W m-2 nm-1.
    """
    flux = np.zeros((len(bp), len(GRID)))
    for coefficients, band in zip((bp, rp), band_operators(), strict=True):
        flux[:, band.covers] += coefficients @ band.values
    return flux


def calibrate_errors(bp_errors: np.ndarray, bp_correlations: np.ndarray, rp_errors: np.ndarray,
                     rp_correlations: np.ndarray) -> np.ndarray:
    """Standard errors of `calibrate`'s flux, including correlations between coefficients.

    Parameters
    ----------
    bp_errors, rp_errors
        (N, 55) errors of the coefficients.
    bp_correlations, rp_correlations
        (N, 1485) correlations below the diagonal, row by row: the archive's order.

    Returns
    -------
    ndarray
        (N, 343) float64, W m-2 nm-1.
    """
    below, left = np.tril_indices(N_COEFFICIENTS, k=-1)
    variance = np.zeros((len(bp_errors), len(GRID)))
    bands = zip(((bp_errors, bp_correlations), (rp_errors, rp_correlations)), band_operators(), strict=True)
    for (errors, correlations), band in bands:
        covariances = correlations * errors[:, below]
        covariances *= errors[:, left]
        variance[:, band.covers] += (errors**2) @ band.diagonal + covariances @ band.products
    return np.sqrt(np.maximum(variance, 0.0))
