"""Model spectra as observed by Gaia XP, and real XP spectra scaled to other labels by ratios of models.

Systematic errors of the models are corrected by a smooth function of temperature, gravity and metallicity, which
`specclip_search.training.emulator.xp_correction` fits to real spectra.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np

from ...atlas.files import text_digest
from ...preparation.line_spread import xp_fwhm
from .labels import FloatArray

if TYPE_CHECKING:
    from .emulator import Emulator
    from .labels import FloatArray

FILE = "data/xp_correction.npz"


@lru_cache(maxsize=1)
def _coefficients() -> FloatArray:
    with resources.files(__package__).joinpath(FILE).open("rb") as handle, np.load(handle) as stored:
        return np.asarray(stored["coefficients"], dtype=np.float64)


def xp_correction(labels: FloatArray) -> FloatArray:
    """(N, 343) factor by which real XP spectra exceed `xp.model_xp` at these labels (N, 5), up to a constant factor."""
    return np.exp(smooth_terms(labels) @ _coefficients())


def correction_digest() -> str:
    """Digest of the correction."""
    return text_digest("xp correction", _coefficients().astype(np.float32).tobytes().hex())



XP_WAVELENGTH_NM = np.arange(336.0, 1021.0, 2.0)

def smoothing_matrix(model_wavelength_nm: FloatArray) -> FloatArray:
    """(343, M) matrix from a model on evenly spaced wavelengths to XP's sampling, with rows summing to 1."""
    sigma = xp_fwhm(XP_WAVELENGTH_NM) / np.sqrt(8.0 * np.log(2.0))
    offset = (XP_WAVELENGTH_NM[:, None] - model_wavelength_nm[None, :]) / sigma[:, None]
    weight = np.exp(-0.5 * offset**2)
    return weight / weight.sum(axis=1, keepdims=True)


def model_xp(emulator: Emulator, labels: FloatArray) -> FloatArray:
    """(N, 343) surface flux at XP's resolution [erg s-1 cm-2 A-1] of stars with these labels.

    The models cover 330 to 1039 nm; closer to a limit than the half width of the line spread the missing
    part is left out of the mean.
    """
    return emulator.sed(labels) @ smoothing_matrix(emulator.sed_wavelength / 10.0).T


def moved_xp(emulator: Emulator, flux: FloatArray, labels: FloatArray, target: FloatArray) -> FloatArray:
    """Real XP spectra of stars with `labels` as they would look at `target` labels.

    The real spectrum is multiplied by the ratio of two model spectra seen at XP's resolution, so
    that errors of the models, the star's reddening and the calibration cancel to first order. Errors of
    the models that differ between the two labels are corrected by `xp_correction`.

    Parameters
    ----------
    flux
        (N, 343) observed flux on `XP_WAVELENGTH_NM`.
    labels, target
        (N, 5) labels of the observed stars and the wanted labels; both must be covered.

    Returns
    -------
    ndarray
        (N, 343) flux in the units of `flux`.
    """
    ratio = model_xp(emulator, target) / model_xp(emulator, labels)
    return flux * ratio * (xp_correction(target) / xp_correction(labels))


DEGREE = 2
# centre and half-width of the labels in the terms; the [Fe/H] range ends where real stars become too few
MIDDLE, REACH = (np.log(5000.0), 3.0, -0.4), (0.75, 4.5, 1.8)
LOWEST_FEH, HIGHEST_FEH = -2.3, 0.5
ROUNDS, OUTLYING = 4, 2.0


def smooth_terms(labels: FloatArray) -> FloatArray:
    """(N, 10) products of Chebyshev polynomials in ln teff, logg and feh of total degree 2 at most.

    Labels are clipped to the range covered by real stars, so that nothing is extrapolated.

    Parameters
    ----------
    labels
        (N, 5) teff, logg, feh, alpha_fe, c_fe; the last two are not used.
    """
    feh = np.clip(labels[:, 2], LOWEST_FEH, HIGHEST_FEH)
    scaled = (np.column_stack([np.log(labels[:, 0]), labels[:, 1], feh]) - MIDDLE) / REACH
    t, g, z = (np.polynomial.chebyshev.chebvander(np.clip(column, -1.0, 1.0), DEGREE).T for column in scaled.T)
    powers = range(DEGREE + 1)
    return np.stack([t[i] * g[j] * z[k] for i in powers for j in powers for k in powers if i + j + k <= DEGREE], axis=1)


def fit_smooth(labels: FloatArray, residual: FloatArray) -> FloatArray:
    """(10, P) coefficients of `smooth_terms` fitted to the residuals (N, P).

    Iteratively reweighted least squares with Huber weights per star (threshold: twice the median residual),
    so that binaries and wrong labels have little influence.
    """
    terms = smooth_terms(labels)
    weight = np.ones(len(labels))
    for _ in range(ROUNDS):
        root = np.sqrt(weight)[:, None]
        coefficients = np.linalg.lstsq(terms * root, residual * root, rcond=None)[0]
        left = np.sqrt(((residual - terms @ coefficients) ** 2).mean(axis=1))
        weight = np.minimum(1.0, OUTLYING * np.median(left) / np.maximum(left, 1e-12))
    return np.asarray(coefficients)
