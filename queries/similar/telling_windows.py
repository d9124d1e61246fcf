"""Choice of spectral windows to mark in a plot of a spectrum and its neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..space.windows import BALMER, WindowSet, family, window_means
from ..statistics.robust_trend import median_and_sigma

MOST_SHARED = 5
MOST_APART = 3
LEAST_SHARED = 0.7
LEAST_APART = 4.0
# standard lines of any star, always marked
CLASSIC = ("Ca HK", "Hdelta", "G band CH", "Hgamma", "Hbeta", "Mg b", "Mg b MgH", "Na D", "Halpha")
HELIUM = "He I"
HOT_BALMER = -1.0


@dataclass(frozen=True, slots=True)
class MarkedWindow:
    """A marked window.

    Attributes
    ----------
    lo, hi
        Ends in the instrument's unit.
    z
        If `apart`: query relative to its neighbours, in sigma of their scatter and the query's noise.
        Otherwise: neighbours relative to the general sample, in its robust standard deviations.
    apart
        Whether the query differs from its neighbours; otherwise query and neighbours both differ
        from the general sample.
    """

    @property
    def telling(self) -> bool:
        """Whether it is marked for its z, not only as a standard line."""
        return self.apart or abs(self.z) >= LEAST_SHARED


    name: str
    lo: float
    hi: float
    z: float
    apart: bool


def telling_windows(
    modality: Any, query: np.ndarray, error: np.ndarray, neighbours: np.ndarray, sample: np.ndarray
) -> list[MarkedWindow]:
    """Windows where the neighbours differ from the general sample, and where the query differs from them.

    Parameters
    ----------
    modality
        The instrument.
    query, error
        (n,) spectrum and its 1 sigma error; NaN if there is nothing to compare.
    neighbours
        (k, n) spectra of its neighbours.
    sample
        (m, n) spectra of the general sample.

    Returns
    -------
    list of MarkedWindow
        Sorted by wavelength, with little overlap. For shared differences, continua are left out, because they
        measure temperature, as all other windows do; so is helium if hydrogen is weak,
        because its windows then measure metals. The lines of `CLASSIC` are always included.
    """
    windows = WindowSet.of(modality)
    ends = {window.name: (window.lo, window.hi) for window in modality.windows}
    near = windows.plain_means(neighbours)
    shared = _shared(near, windows.plain_means(sample))
    apart = _apart(query, error, near, windows)
    line = np.array([family(name) != "continuum" for name in windows.names])
    if min((shared[windows.names.index(name)] for name in BALMER if name in windows.names), default=0.0) > HOT_BALMER:
        line &= np.array([not name.startswith(HELIUM) for name in windows.names])
    classic = np.isin(windows.names, CLASSIC)
    marked: list[MarkedWindow] = []
    for z, usable, least, most, is_apart in (
        (apart, np.ones(len(windows), dtype=bool), LEAST_APART, MOST_APART, True),
        (shared, line, LEAST_SHARED, MOST_SHARED, False),
        (shared, classic, 0.0, len(CLASSIC), False),
    ):
        taken = 0
        for i in np.argsort(-np.abs(z), kind="stable"):
            lo, hi = ends[windows.names[i]]
            if taken < most and usable[i] and abs(z[i]) >= least and not _covered(lo, hi, marked):
                marked.append(MarkedWindow(windows.names[i], lo, hi, float(z[i]), is_apart))
                taken += 1
    return sorted(marked, key=lambda window: window.lo)


def _shared(near: np.ndarray, sample: np.ndarray) -> np.ndarray:
    if len(near) == 0 or len(sample) < 3:
        return np.zeros(near.shape[1])
    middle, spread = median_and_sigma(sample)
    return (np.median(near, axis=0) - middle) / np.maximum(spread, 1e-4)


def _apart(query: np.ndarray, error: np.ndarray, near: np.ndarray, windows: WindowSet) -> np.ndarray:
    if len(near) < 3 or not np.isfinite(query).all():
        return np.zeros(len(windows))
    mean, variance = window_means(query[None], error[None], np.zeros_like(query), windows.members)
    middle, spread = median_and_sigma(near)
    # a scatter from few neighbours is uncertain: approximately Student's t with that many degrees of freedom
    sigma = np.sqrt(spread**2 * (1 + 4 / len(near)) + variance[0] + 1e-8)
    return np.nan_to_num((mean[0] - middle) / sigma)


def _covered(lo: float, hi: float, marked: list[MarkedWindow]) -> bool:
    return any(min(hi, one.hi) - max(lo, one.lo) > 0.3 * min(hi - lo, one.hi - one.lo) for one in marked)
