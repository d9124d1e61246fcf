"""What models systematically lack, as a smooth function of temperature, gravity and metallicity."""

from __future__ import annotations

import numpy as np

from .labels import FloatArray

DEGREE = 2
# middle and half-width of the labels that the terms are made of; [Fe/H] stops where real stars become too few
MIDDLE, REACH = (np.log(5000.0), 3.0, -0.4), (0.75, 4.5, 1.8)
LOWEST_FEH, HIGHEST_FEH = -2.3, 0.5
ROUNDS, OUTLYING = 4, 2.0


def smooth_terms(labels: FloatArray) -> FloatArray:
    """(N, 10) products of Chebyshev polynomials in ln teff, logg and feh of total degree 2 at most.

    Beyond the range that real stars cover the value at its edge holds: nothing is extrapolated.

    Parameters
    ----------
    labels
        (N, 5) teff, logg, feh, alpha_fe, c_fe; the last two do not enter.
    """
    feh = np.clip(labels[:, 2], LOWEST_FEH, HIGHEST_FEH)
    scaled = (np.column_stack([np.log(labels[:, 0]), labels[:, 1], feh]) - MIDDLE) / REACH
    t, g, z = (np.polynomial.chebyshev.chebvander(np.clip(column, -1.0, 1.0), DEGREE).T for column in scaled.T)
    powers = range(DEGREE + 1)
    return np.stack([t[i] * g[j] * z[k] for i in powers for j in powers for k in powers if i + j + k <= DEGREE], axis=1)


def fit_smooth(labels: FloatArray, residual: FloatArray) -> FloatArray:
    """(10, P) coefficients of `smooth_terms` that take the residuals (N, P) down.

    Least squares, repeated with less weight for stars whose whole residual stays above twice the
    median one (Huber's weights by star): binaries and wrong labels must not shape the rest.
    """
    terms = smooth_terms(labels)
    weight = np.ones(len(labels))
    for _ in range(ROUNDS):
        root = np.sqrt(weight)[:, None]
        coefficients = np.linalg.lstsq(terms * root, residual * root, rcond=None)[0]
        left = np.sqrt(((residual - terms @ coefficients) ** 2).mean(axis=1))
        weight = np.minimum(1.0, OUTLYING * np.median(left) / np.maximum(left, 1e-12))
    return np.asarray(coefficients)
