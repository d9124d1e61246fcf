"""Likely causes of a disagreement between two pipelines: another quantity, another unit, another wavelength scale."""

from __future__ import annotations

import numpy as np

from specclip_search.constants import C_KM_S

from ..statistics.robust_trend import MAD_TO_SIGMA
from .offsets import Pair

#: refractivity of standard air at 5000 A times c: velocity by which air wavelengths read as vacuum are off [km/s]
AIR_KM_S = 2.7789e-4 * C_KM_S
AIR_TOLERANCE_KM_S = 7.0
_SCALES = (
    (C_KM_S, "a redshift z against km/s"),
    (1000.0, "m/s against km/s"),
)
SCALE_TOLERANCE = 0.15
LEAST_CORRELATION = 0.5
#: least significance of a trend, and the range of its slope that counts as the metals' own
TREND_SIGMAS, METALS_SLOPE = 5.0, (0.5, 1.5)


def metals_excess(alpha_fe: np.ndarray) -> np.ndarray:
    """[M/H] - [Fe/H] for [alpha/Fe], Salaris, Chieffi & Straniero 1993: log10(0.638 10**[alpha/Fe] + 0.362)."""
    return np.asarray(np.log10(0.638 * 10.0**alpha_fe + 0.362))


def diagnose(label: str, pair: Pair, names: tuple[str, str], difference: np.ndarray, alpha_fe: np.ndarray | None,
             ) -> str:
    """The likely cause of what a pair shows, in words; empty if nothing known fits.

    Parameters
    ----------
    label
        Name of the label compared.
    names
        Names of the pair's sources.
    difference
        (N,) first minus second, NaN where one is missing.
    alpha_fe
        (N,) [alpha/Fe] of the same stars, NaN where unknown; None if the atlas has none.
    """
    said = _scale(pair, names)
    if said:
        return said
    if pair.correlation < -LEAST_CORRELATION:
        return f"{names[0]} and {names[1]} run against each other: check the sign of one"
    if label == "rv" and abs(abs(pair.bias) - AIR_KM_S) < max(AIR_TOLERANCE_KM_S, 3 * pair.bias_err):
        return (f"{abs(pair.bias):.0f} km/s is what air wavelengths read as vacuum make: check the wavelength scale of "
                f"{names[0] if pair.bias < 0 else names[1]} or {names[1] if pair.bias < 0 else names[0]}")
    if label == "feh" and alpha_fe is not None:
        return _metals(difference, alpha_fe, names)
    return ""


def _scale(pair: Pair, names: tuple[str, str]) -> str:
    if not pair.correlation > LEAST_CORRELATION or not pair.slope > 0:
        return ""
    for factor, words in _SCALES:
        for ratio, small in ((pair.slope * factor, names[1]), (pair.slope / factor, names[0])):
            if abs(ratio - 1.0) < SCALE_TOLERANCE:
                large = names[0] if small == names[1] else names[1]
                return f"{large} is {factor:,.0f} times {small}: {words}?"
    return ""


def _metals(difference: np.ndarray, alpha_fe: np.ndarray, names: tuple[str, str]) -> str:
    """Whether the differences follow [M/H] - [Fe/H]."""
    both = np.isfinite(difference) & np.isfinite(alpha_fe)
    if np.count_nonzero(both) < 30:
        return ""
    x, y = metals_excess(alpha_fe[both]), difference[both]
    x = x - np.median(x)
    keep = np.abs(y - np.median(y)) < 4 * MAD_TO_SIGMA * np.median(np.abs(y - np.median(y)))
    x, y = x[keep], y[keep]
    if len(x) < 30 or not (x @ x) > 0:
        return ""
    slope = float(x @ (y - y.mean()) / (x @ x))
    error = float(np.std(y - y.mean() - slope * x) / np.sqrt(x @ x))
    low, high = METALS_SLOPE
    if abs(slope) < TREND_SIGMAS * error or not low < abs(slope) < high:
        return ""
    richer, other = names if slope > 0 else names[::-1]
    return f"{richer} minus {other} grows with [alpha/Fe] as [M/H] - [Fe/H] does: {richer} may give [M/H] as [Fe/H]"
