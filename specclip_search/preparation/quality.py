"""Good pixels, repair of bad pixels, and the criteria for rejecting a spectrum."""

from __future__ import annotations

import numpy as np

from ..errors import Reason

# One in four pixels of the model's window may be missing and interpolated over: LAMOST's larger masks
# (a missing CCD section of 360 pixels) are accepted and counted in `n_repaired`; beyond that too much is invented.
MIN_GOOD_FRACTION = 0.7
# A continuum at or below zero is replaced by 1 in the published arithmetic, so raw counts reach the model there.
# A few such pixels at a noisy blue end are harmless; more than 2 percent means that the sky was oversubtracted.
MAX_CLIPPED_FRACTION = 0.02


def good_pixels(flux: np.ndarray, ivar: np.ndarray) -> np.ndarray:
    """(N, P) bool: finite flux with a finite, positive inverse variance."""
    with np.errstate(invalid="ignore"):
        good = ivar > 0
        good &= ivar < np.inf
    good &= np.isfinite(flux)
    return good


def repair(wavelength: np.ndarray, flux: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Interpolate over bad pixels from good neighbours; rows without a bad pixel are untouched.

    Parameters
    ----------
    wavelength
        (P,) float64.
    flux
        (N, P); not changed.
    good
        (N, P) bool.

    Returns
    -------
    ndarray
        (N, P), `flux` itself if no pixel is bad. A row with no good pixel becomes zero.
    """
    bad_rows = np.flatnonzero(~good.all(axis=1))
    if not len(bad_rows):
        return flux
    repaired = flux.copy()
    for row in bad_rows:
        ok = good[row]
        if ok.any():
            repaired[row, ~ok] = np.interp(wavelength[~ok], wavelength[ok], flux[row, ok])
        else:
            repaired[row] = 0.0
    return repaired


def reason_for_pixels(flux: np.ndarray, good: np.ndarray) -> tuple[Reason, str] | None:
    """Why one spectrum's window is not usable; None if it is.

    Parameters
    ----------
    flux, good
        (W,) the window's observed flux and its good pixels.
    """
    fraction = float(good.mean())
    if fraction < MIN_GOOD_FRACTION:
        finite = float(np.isfinite(flux).mean())
        if finite < MIN_GOOD_FRACTION:
            return Reason.NOT_FINITE, f"{1 - finite:.0%} of the model's window is NaN or infinite"
        if not np.any(flux[np.isfinite(flux)]):
            return Reason.FLAT_OR_ZERO, "the flux is zero over the model's window"
        return (Reason.TOO_FEW_GOOD_PIXELS,
                f"at least {MIN_GOOD_FRACTION:.0%} of the model's window must be good; found {fraction:.0%}")
    chosen = flux[good]
    if chosen.min() == chosen.max():
        return Reason.FLAT_OR_ZERO, f"the flux is {chosen[0]:.6g} at every good pixel of the model's window"
    return None
