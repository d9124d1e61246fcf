"""Detection of two sets of lines in one spectrum by a second, velocity-shifted template.

An observed spectrum is fitted by one copy of a single star's spectrum at its best velocity, and by
two copies at the best pair of velocities (the two-template idea of TODCOR, Zucker & Mazeh 1994).
On a grid even in log wavelength the sums of both fits are correlations, taken by FFT.
"""

from __future__ import annotations

import numpy as np

from specclip_search.constants import C_KM_S

STEP_KM_S = 34.0
LARGEST_STEPS = 16
LEAST_APART, MOST_APART = 3, 13
LEAST_SHARE = 0.25
# lower limit of the result; more negative values carry no information
LEAST_SECOND = -10.0
SMOOTH_STEPS = 100.0
BLOCK_ROWS = 256


def double_lined(observed: np.ndarray, noise: np.ndarray, template: np.ndarray, wavelength: np.ndarray) -> np.ndarray:
    """Fraction of the residual of a one-template fit explained by a second copy of the template.

    With c the correlation of observed and template at lag m, g the template's own, rho = g(m2 - m1) / g(0):
    one copy reduces the sum of squares by max c(m)^2 / g(0); two copies by
    (c1^2 + c2^2 - 2 rho c1 c2) / (g(0) (1 - rho^2)), where both amplitudes must be positive and the
    smaller at least a quarter of the larger, 100 to 450 km/s apart.

    Parameters
    ----------
    observed, noise, template
        (N, n) continuum-normalised fluxes and 1 sigma; inf for pixels without information.
    wavelength
        (n,) increasing.

    Returns
    -------
    np.ndarray
        (N,) fraction of the single fit's remaining sum of squares removed by the second copy, at most 1;
        negative if the best single copy explains more than any two that far apart, but at least -10;
        -1 if no two copies are allowed.
    """
    grid = np.exp(np.arange(np.log(wavelength[0]), np.log(wavelength[-1]), STEP_KM_S / C_KM_S))
    result = np.zeros(len(observed))
    for start in range(0, len(observed), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        good = np.isfinite(noise[block])
        seen = _lines(np.where(good, observed[block], template[block]), wavelength, grid)
        model = _lines(template[block], wavelength, grid)
        result[block] = _second_share(seen, model)
    return result


def _lines(flux: np.ndarray, wavelength: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """High-pass filtered spectra on the grid, tapered to 0 at both ends."""
    place = np.interp(grid, wavelength, np.arange(len(wavelength)))
    left = np.minimum(place.astype(int), len(wavelength) - 2)
    share = place - left
    moved = (flux[:, left] * (1 - share) + flux[:, left + 1] * share).astype(np.float32)
    moved = moved - smoothed(moved)
    taper = np.minimum(1.0, np.minimum(np.arange(len(grid)), np.arange(len(grid))[::-1]) / SMOOTH_STEPS)
    return np.asarray(moved * taper)


def smoothed(rows: np.ndarray) -> np.ndarray:
    """(N, n) float32 rows convolved with a normal distribution of `SMOOTH_STEPS`, mirrored at both ends.

    The kernel ends at two sigma, beyond which its weights are negligible here. The same as
    `scipy.ndimage.gaussian_filter1d` to the last digit of float32, by FFT in float64.
    """
    from scipy.fft import irfft, next_fast_len, rfft

    reach = int(2 * SMOOTH_STEPS + 0.5)
    padded = np.pad(rows.astype(np.float64), ((0, 0), (reach, reach)), mode="symmetric")
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / SMOOTH_STEPS) ** 2)
    # what wraps around falls on the first 2 x reach values, which are not used
    size = next_fast_len(padded.shape[1], real=True)
    whole = irfft(rfft(padded, size, axis=1) * rfft(kernel / kernel.sum(), size), size, axis=1)
    return whole[:, 2 * reach : 2 * reach + rows.shape[1]].astype(np.float32)


def _crest(c: np.ndarray) -> np.ndarray:
    """(N,) maximum of correlations (N, lags), interpolated by a parabola through three lags."""
    rows, best = np.arange(len(c)), np.clip(c.argmax(axis=1), 1, c.shape[1] - 2)
    left, middle, right = c[rows, best - 1], c[rows, best], c[rows, best + 1]
    bend = left - 2 * middle + right
    # a correlation that still rises at the last lag has no maximum to interpolate
    peak = (bend < 0) & (middle >= left) & (middle >= right)
    return np.maximum(c.max(axis=1), np.where(peak, middle - (right - left) ** 2 / (8 * np.where(peak, bend, -1.0)), 0))


def _second_share(seen: np.ndarray, model: np.ndarray) -> np.ndarray:
    from scipy.fft import irfft, next_fast_len, rfft

    size = next_fast_len(seen.shape[1] + 2 * LARGEST_STEPS, real=True)
    spectrum = rfft(model.astype(np.float32), size, axis=1)
    across = irfft(rfft(seen.astype(np.float32), size, axis=1) * spectrum.conj(), size, axis=1).astype(np.float64)
    itself = irfft(np.abs(spectrum) ** 2, size, axis=1).astype(np.float64)
    lags = np.arange(-LARGEST_STEPS, LARGEST_STEPS + 1)
    c, g0 = across[:, lags], np.maximum(itself[:, :1], 1e-12)
    one = np.maximum(_crest(c), 0.0) ** 2 / g0[:, 0]
    two = np.full(len(one), -np.inf)
    for apart in range(LEAST_APART, MOST_APART + 1):
        rho = itself[:, apart : apart + 1] / g0
        first, second = c[:, :-apart], c[:, apart:]
        scale = g0 * np.maximum(1 - rho**2, 1e-6)
        a1, a2 = (first - rho * second) / scale, (second - rho * first) / scale
        fair = (np.minimum(a1, a2) >= LEAST_SHARE * np.maximum(a1, a2)) & (a1 > 0)
        gain = np.where(fair, a1 * first + a2 * second, -np.inf)
        two = np.maximum(two, gain.max(axis=1))
    left = np.maximum((seen**2).sum(axis=1) - one, 1e-12)
    return np.where(np.isfinite(two), np.maximum((two - one) / left, LEAST_SECOND), -1.0)
