"""Quantities from the broad-band shapes of a pair: raw LAMOST flux against Gaia XP.

Both instruments observe the same star behind the same dust, so ln(LRS/XP) in broad bands is LAMOST's calibration
error alone, about 10 % and smooth. The model never sees it, because its input is divided by its
continuum. The differences are corrected for S/N and colour, and tested under a covariance learned from
the atlas's own pairs in groups of similar XP S/N.

* ``color``: the three leading shapes of that covariance, which dust and temperature also change;
  large for the spectrum of another star;
* ``calibration``: all fifteen bands;
* ``join``: a step at 5900 Angstrom, where LAMOST's blue and red arms are joined, in units of what all
  other shapes leave.
"""

from __future__ import annotations

import numpy as np

from specclip_search.preparation.bands import BAND_CENTRES, JOIN, centred

from ..statistics.robust_trend import Covariates, fit_trend, median_and_sigma

NAMES = ("color", "calibration", "join")
LEADING = 3
LEAST_PAIRS = 300
PAIRS_A_GROUP, MOST_GROUPS = 1000, 8
ROUNDS, KEPT, CLIP_SIGMA = 3, 0.95, 4.0
LEAST_KNOWN = 100
FLOOR = 3e-3
XP_SNR = 1
STEP = np.where(BAND_CENTRES > JOIN, 0.5, -0.5)


def broad_band(
    lrs_sed: np.ndarray, xp_sed: np.ndarray, covariates: np.ndarray, learn: np.ndarray
) -> dict[str, np.ndarray]:
    """Raw quantities by name, large for anomalies; all 0 if fewer than 300 pairs can be learned from.

    Parameters
    ----------
    lrs_sed, xp_sed
        (N, 15) ln of mean flux by band (see `specclip_search.preparation.bands`); NaN where unknown.
    covariates
        (N, c) log10 S/N of LRS and XP, colour.
    learn
        (N,) bool: pairs that may be learned from.

    Returns
    -------
    dict
        (N,) float64 by the names in `NAMES`; logs of chi2 or of |sigma|.
    """
    apart = centred(lrs_sed.astype(np.float64) - xp_sed)
    known = np.isfinite(apart).any(axis=1)
    learn = learn & known
    if learn.sum() < LEAST_PAIRS:
        return {name: np.zeros(len(apart)) for name in NAMES}
    learned_from = Covariates(covariates[learn])
    for band in range(apart.shape[1]):
        apart[:, band] -= fit_trend(apart[learn, band], learned_from).location(covariates)
    apart = centred(apart)
    result = {name: np.zeros(len(apart)) for name in NAMES}
    group = _groups(covariates[:, XP_SNR], learn)
    for number in range(int(group.max()) + 1):
        own = group == number
        middle, covariance = _covariance(apart[own & learn])
        found = _tested(apart[own] - middle, covariance)
        for name in NAMES:
            result[name][own] = found[name]
    return {name: np.where(known, values, np.median(values[learn])) for name, values in result.items()}


def _groups(log_snr: np.ndarray, learn: np.ndarray) -> np.ndarray:
    """(N,) index of each pair's group of similar XP S/N, with equal numbers of learning pairs."""
    count = int(np.clip(learn.sum() // PAIRS_A_GROUP, 1, MOST_GROUPS))
    ends = np.nanquantile(log_snr[learn], np.linspace(0, 1, count + 1)[1:-1])
    return np.asarray(np.searchsorted(ends, np.nan_to_num(log_snr)), dtype=np.int64)


def _covariance(apart: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median and covariance (15, 15) of differences clipped at 4 sigma, without the most extreme 5 %.

    A band with fewer than 100 values gets the typical variance of the others and no covariance.
    """
    keep = np.ones(len(apart), dtype=bool)
    for _ in range(ROUNDS):
        middle, sigma = median_and_sigma(apart[keep], axis=0)
        known = np.isfinite(apart[keep])
        rare = known.sum(axis=0) < LEAST_KNOWN
        middle, usual = np.nan_to_num(middle), float(np.median(sigma[~rare])) if (~rare).any() else 1.0
        limit = CLIP_SIGMA * np.where(rare, usual, np.nan_to_num(sigma))
        clipped = np.where(known, np.clip(apart[keep] - middle, -limit, limit), 0.0)
        count = known.astype(np.float64).T @ known
        covariance = np.where(count >= LEAST_KNOWN, clipped.T @ clipped / np.maximum(count, 1), 0.0)
        covariance[rare, rare] = usual**2
        spread, axes = np.linalg.eigh(covariance)
        # entries computed from different pairs may give a matrix that is not positive definite
        covariance = (axes * np.maximum(spread, FLOOR**2)) @ axes.T
        chi2 = _tested(apart - middle, covariance)["calibration"]
        keep = chi2 <= np.quantile(chi2, KEPT)
    return middle, covariance


def _tested(apart: np.ndarray, covariance: np.ndarray) -> dict[str, np.ndarray]:
    """Quantities of pairs, grouped by available bands, with the covariance of these bands."""
    result = {name: np.zeros(len(apart)) for name in NAMES}
    patterns, member = np.unique(np.isfinite(apart), axis=0, return_inverse=True)
    for number, bands in enumerate(patterns):
        if not bands.any():
            continue
        own = np.flatnonzero(member.ravel() == number)
        part, step = covariance[np.ix_(bands, bands)], STEP[bands] - STEP[bands].mean()
        seen, inverse = apart[own][:, bands], np.linalg.inv(part)
        spread, axes = np.linalg.eigh(part)
        leading = seen @ axes[:, ::-1][:, :LEADING] / np.sqrt(spread[::-1][:LEADING])
        chi2 = np.einsum("ni,ij,nj->n", seen, inverse, seen)
        weight = np.sqrt(max(step @ inverse @ step, 1e-12))
        filtered = np.abs(seen @ inverse @ step) / weight
        rest = np.sqrt(np.maximum((chi2 - filtered**2) / max(bands.sum() - 1, 1), 1.0))
        result["color"][own] = np.log(np.square(leading).sum(axis=1) + 0.3)
        result["calibration"][own] = np.log(chi2 * len(bands) / bands.sum() + 1.0)
        result["join"][own] = np.log(filtered / rest + 0.3)
    return result
