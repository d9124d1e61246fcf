"""The pseudo-continuum of LAMOST LRS spectra that the published models were trained on.

The published procedure fits a polynomial of degree 5 to the median-filtered flux between 3700
and 5700 Angstrom, twelve times. On a fixed wavelength grid such a fit is a fixed projection, so
it is applied to whole batches with one orthonormal basis per grid. Its quirks are kept on purpose,
because the models were trained with them. The median filter of width seven is computed for many
spectra at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np


def median_of_seven(flux: np.ndarray) -> np.ndarray:
    """Median over seven pixels along the last axis, with zeros beyond both ends.

    Equal to ``scipy.signal.medfilt(row, 7)`` for each row, bit for bit, for finite values. The
    sorted triples are shared between neighbouring windows: a window of seven is a triple, a
    middle pixel and another triple.

    Parameters
    ----------
    flux
        (N, P) floating-point array, finite.

    Returns
    -------
    ndarray
        (N, P), of the type of `flux`.
    """
    rows, pixels = flux.shape
    padded = np.zeros((rows, pixels + 6), dtype=flux.dtype)
    padded[:, 3:-3] = flux
    small, middle, large = _sorted_triples(padded)
    a1, a2, a3 = small[:, :pixels], middle[:, :pixels], large[:, :pixels]
    b1, b2, b3 = small[:, 4:], middle[:, 4:], large[:, 4:]
    # third and fourth smallest of the six outer pixels
    low = np.minimum(np.maximum(a1, b2), np.maximum(a2, b1))
    np.minimum(low, a3, out=low)
    np.minimum(low, b3, out=low)
    high = np.minimum(np.maximum(a1, b3), np.maximum(a3, b1))
    np.minimum(high, np.maximum(a2, b2), out=high)
    np.minimum(high, flux, out=high)
    return np.maximum(low, high, out=high)


def _sorted_triples(padded: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Smallest, middle and largest of each three neighbouring pixels, (N, P - 2) each."""
    third = padded[:, 2:]
    pair_small, pair_large = np.minimum(padded[:, :-1], padded[:, 1:]), np.maximum(padded[:, :-1], padded[:, 1:])
    small = np.minimum(pair_small[:, :-1], third)
    large = np.maximum(pair_large[:, :-1], third)
    middle = np.maximum(pair_small[:, :-1], np.minimum(pair_large[:, :-1], third))
    return small, middle, large


FIT_RANGE = (3700.0, 5700.0)
FIT_DEGREE = 5
ENVELOPE_PASSES = 10
MIN_FIT_PIXELS = 100
HOT_PEAK = 4500.0
BALMER_WINDOWS = ((4030.0, 4160.0), (4270.0, 4410.0), (4800.0, 4940.0))
EDGE_HALF_WIDTH = 10.0
MEDIAN_REACH = 3
CHUNK_ROWS = 24


@dataclass(frozen=True, slots=True)
class BalmerBridge:
    """A straight line over one Balmer line; indices count from the first fitted pixel."""

    blue: slice
    red: slice
    inside: slice
    fraction: np.ndarray


@dataclass(frozen=True, slots=True)
class ContinuumGrid:
    """Precomputed quantities of the continuum fit on one wavelength grid.

    Attributes
    ----------
    used
        Pixels of the grid that can influence the model's input; all others are removed first.
    fitted
        Fitted pixels, counted within `used`; empty where the fit is not active.
    basis
        (n, 6) float64, orthonormal polynomials over the fitted pixels.
    wavelength
        (n,) float64, Angstrom, of the fitted pixels.
    """

    used: slice
    fitted: slice
    basis: np.ndarray
    wavelength: np.ndarray
    bridges: tuple[BalmerBridge, ...]


def continuum_grid(wavelength: np.ndarray) -> ContinuumGrid:
    """The fixed quantities of a grid, cached for the next batch on the same grid.

    Parameters
    ----------
    wavelength
        (P,) float64, Angstrom, strictly increasing.
    """
    return _continuum_grid(np.ascontiguousarray(wavelength, dtype=np.float64).tobytes())


@lru_cache(maxsize=32)
def _continuum_grid(key: bytes) -> ContinuumGrid:
    whole = np.frombuffer(key, dtype=np.float64)
    first, beyond = np.searchsorted(whole, FIT_RANGE[0], "left"), np.searchsorted(whole, FIT_RANGE[1], "right")
    if beyond - first <= MIN_FIT_PIXELS:
        empty = np.empty((0, FIT_DEGREE + 1))
        return ContinuumGrid(slice(0, len(whole)), slice(0, 0), empty, whole[:0], ())
    # LAMOST grids have at most one pixel below the fit; a spectrum that begins further in the blue is
    # trimmed to the same, otherwise the published index offset of the hot branch would grow with it
    used = slice(max(0, int(first) - 1), min(len(whole), int(beyond) + MEDIAN_REACH))
    wave = whole[used]
    fitted = slice(int(first) - used.start, int(beyond) - used.start)
    inner = wave[fitted]
    return ContinuumGrid(used, fitted, _orthonormal(inner), inner, _bridges(wave, fitted))


def _orthonormal(wavelength: np.ndarray) -> np.ndarray:
    scaled = np.interp(wavelength, (wavelength[0], wavelength[-1]), (-1.0, 1.0))
    basis, _ = np.linalg.qr(np.polynomial.chebyshev.chebvander(scaled, FIT_DEGREE))
    return np.ascontiguousarray(basis)


def _bridges(wave: np.ndarray, fitted: slice) -> tuple[BalmerBridge, ...]:
    """Bridges with the published offset: positions are found on the whole grid and used on the fitted part.

    With one pixel below 3700 Angstrom, as on every LAMOST grid, maxima and replacement land one
    pixel to the red of the wavelengths that the line is drawn for.
    """
    bridges = []
    for low, high in BALMER_WINDOWS:
        blue, red = (_positions(wave, edge - EDGE_HALF_WIDTH, edge + EDGE_HALF_WIDTH) for edge in (low, high))
        inside = _positions(wave, low, high)
        if blue.stop > blue.start and red.stop > red.start and inside.stop > inside.start:
            bridges.append(BalmerBridge(blue, red, inside, (wave[inside] - low) / (high - low)))
    return tuple(bridges)


def _positions(wave: np.ndarray, low: float, high: float) -> slice:
    return slice(int(np.searchsorted(wave, low, "left")), int(np.searchsorted(wave, high, "right")))


def continuum(grid: ContinuumGrid, flux: np.ndarray) -> np.ndarray:
    """Pseudo-continuum over the pixels `grid.used`, before values at or below zero are replaced.

    Parameters
    ----------
    flux
        (N, U) finite flux of the pixels `grid.used`.

    Returns
    -------
    ndarray
        (N, U) float64. Outside the fitted pixels it is the median-filtered flux itself.
    """
    result = np.empty(flux.shape, dtype=np.float64)
    for start in range(0, len(flux), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        result[rows] = median_of_seven(flux[rows])
        if grid.fitted.stop > grid.fitted.start:
            result[rows, grid.fitted] = _upper_envelope(grid, np.ascontiguousarray(result[rows, grid.fitted]))
    return result


def _upper_envelope(grid: ContinuumGrid, target: np.ndarray) -> np.ndarray:
    """Eleventh of eleven fits, each to the larger of the last fit and what it was fitted to.

    `target` (n, F) is overwritten. The first fit also decides between hot and cool: at the published
    setting the smoothing before that decision is the identity.
    """
    basis, transposed = grid.basis, grid.basis.T
    fit = (target @ basis) @ transposed
    hot = grid.wavelength[np.argmax(fit, axis=1)] < HOT_PEAK
    if hot.any():
        bridged = target[hot]
        _bridge_balmer_lines(grid, bridged)
        target[hot] = bridged
        fit[hot] = (bridged @ basis) @ transposed
    for _ in range(ENVELOPE_PASSES):
        np.maximum(fit, target, out=target)
        np.matmul(target @ basis, transposed, out=fit)
    return fit


def _bridge_balmer_lines(grid: ContinuumGrid, target: np.ndarray) -> None:
    heights = [(target[:, b.blue].max(axis=1), target[:, b.red].max(axis=1)) for b in grid.bridges]
    for bridge, (blue, red) in zip(grid.bridges, heights, strict=True):
        target[:, bridge.inside] = blue[:, None] + (red - blue)[:, None] * bridge.fraction


def positive(continuum_values: np.ndarray) -> np.ndarray:
    """The continuum with every value at or below zero replaced by 1, as published."""
    return np.where(continuum_values <= 0.0, 1.0, continuum_values)
