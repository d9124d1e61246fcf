"""Whether a star is too hot for its weak lines to mean few metals."""

from __future__ import annotations

import numpy as np

HOT_TEFF = 7000.0
SURE_SIGMA = 1.0
"""An estimate counts as hot if it lies this many of its own errors above the limit."""


def hot_star(estimated: np.ndarray, error: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N,) bool: Teff above 7000 K.

    Where an estimator speaks it decides alone. Neighbours and linear estimates are led astray by noise and
    by spectra that are no stars', so that where only they speak more than half of them must say so.

    Parameters
    ----------
    estimated, error
        (N, instruments) Teff and its error by the estimators, K; NaN where there is none.
    others
        (N, m) Teff by other ways, K; NaN where there is none.
    """
    with np.errstate(invalid="ignore"):
        sure = estimated - SURE_SIGMA * np.nan_to_num(error) > HOT_TEFF
        votes, known = (others > HOT_TEFF).sum(axis=1), np.isfinite(others).sum(axis=1)
    spoken = np.isfinite(estimated).any(axis=1)
    return np.where(spoken, sure.any(axis=1), 2 * votes > known)
