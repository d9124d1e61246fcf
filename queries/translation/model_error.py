"""Model error of translated spectra, learned from validation stars.

What the model cannot predict for normal stars must not count as an anomaly. For the
spectra of one instrument predicted from the other, this module learns from observed minus
predicted, in cells of colour and of the source spectrum's S/N: the median residual (bias)
and the robust scatter in excess of the observational error, for each pixel and, because the
errors of neighbouring pixels are correlated, for each window separately.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..space.windows import WindowSet, window_means
from ..statistics.robust_trend import median_and_sigma

COLOR_CELLS = 5
SNR_CELLS = 3
# with fewer stars, a cell would fit their noise, and these stars would look better than others
MIN_PER_CELL = 200
# prior weight, in stars, of the value of the whole population against that of a cell
PRIOR_STARS = 50.0


@dataclass(frozen=True, slots=True)
class ModelError:
    """Bias and 1 sigma error of predicted spectra of one instrument, by cell.

    Attributes
    ----------
    color_edges, snr_edges
        Inner edges of the cells; the index of a cell is color cell x (S/N cells) + S/N cell.
    bias, sigma
        (cells, n) float32, in the units of the target.
    window_bias, window_sigma
        (cells, w) float32, of the windows' mean residuals.
    """

    color_edges: np.ndarray
    snr_edges: np.ndarray
    bias: np.ndarray
    sigma: np.ndarray
    window_bias: np.ndarray
    window_sigma: np.ndarray

    def cells(self, color: np.ndarray, source_snr: np.ndarray) -> np.ndarray:
        """(N,) cell index of each star."""
        return cell_numbers(color, source_snr, self.color_edges, self.snr_edges)


def cell_numbers(color: np.ndarray, snr: np.ndarray, color_edges: np.ndarray, snr_edges: np.ndarray) -> np.ndarray:
    """Cell of each star from its colour and S/N; non-finite values go to the first cell."""
    across = np.searchsorted(color_edges, np.nan_to_num(color, nan=-np.inf, neginf=-np.inf))
    down = np.searchsorted(snr_edges, np.nan_to_num(snr, nan=-np.inf, neginf=-np.inf))
    return across * (len(snr_edges) + 1) + down


def learn_model_error(
    residual: np.ndarray, noise: np.ndarray, color: np.ndarray, source_snr: np.ndarray, windows: WindowSet
) -> ModelError:
    """Learn bias and error of predictions from the residuals of validation stars.

    Parameters
    ----------
    residual, noise
        (N, n) observed minus predicted, and the observation's 1 sigma (inf: no information).
    color
        (N,) colour of the star.
    source_snr
        (N,) S/N of the source spectrum.
    """
    number = len(residual)
    color_edges = _edges(color, min(COLOR_CELLS, max(number // MIN_PER_CELL, 1)))
    per_color = number // (len(color_edges) + 1)
    snr_edges = _edges(source_snr, min(SNR_CELLS, max(per_color // MIN_PER_CELL, 1)))
    cell = cell_numbers(color, source_snr, color_edges, snr_edges)
    cells = (len(color_edges) + 1) * (len(snr_edges) + 1)

    masked = np.where(np.isfinite(noise), residual, np.nan)
    bias, sigma = _by_cell(masked, np.where(np.isfinite(noise), noise**2, np.nan), cell, cells)
    mean, variance = window_means(residual - bias[cell], noise, sigma[cell], windows.members)
    window_bias, window_sigma = _by_cell(mean, np.where(np.isfinite(variance), variance, np.nan), cell, cells)
    as_float32 = (array.astype(np.float32) for array in (bias, sigma, window_bias, window_sigma))
    return ModelError(color_edges, snr_edges, *as_float32)


def _edges(values: np.ndarray, cells: int) -> np.ndarray:
    known = values[np.isfinite(values)]
    if cells < 2 or len(known) == 0:
        return np.empty(0)
    return np.unique(np.quantile(known, np.arange(1, cells) / cells))


def _by_cell(
    values: np.ndarray, noise_variance: np.ndarray, cell: np.ndarray, cells: int
) -> tuple[np.ndarray, np.ndarray]:
    """Median and scatter beyond the noise of (N, m) values in each cell, shrunk to those of all stars."""
    middle, spread = _excess(values, noise_variance)
    bias = np.tile(middle, (cells, 1))
    sigma = np.tile(spread, (cells, 1))
    for number in range(cells):
        inside = cell == number
        count = int(inside.sum())
        if count < MIN_PER_CELL // 2:
            continue
        own_middle, own_spread = _excess(values[inside], noise_variance[inside])
        share = count / (count + PRIOR_STARS)
        bias[number] = share * own_middle + (1 - share) * middle
        sigma[number] = np.sqrt(share * own_spread**2 + (1 - share) * spread**2)
    return bias, sigma


def _excess(values: np.ndarray, noise_variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    middle, spread = median_and_sigma(values)
    noise, _ = median_and_sigma(noise_variance)
    middle, spread, noise = (np.nan_to_num(array) for array in (middle, spread, noise))
    # lower limit: a tenth of the observed scatter
    return middle, np.sqrt(np.maximum(spread**2 - noise, (0.1 * spread) ** 2))


@dataclass(frozen=True, slots=True)
class Errors:
    """Errors of predicted spectra against the observed ones, all (N,) or (N, w) float32."""

    chi2: np.ndarray
    l1: np.ndarray
    mse: np.ndarray
    pixels: np.ndarray
    window_sigma: np.ndarray


def measure(
    observed: np.ndarray,
    noise: np.ndarray,
    predicted: np.ndarray,
    error: ModelError,
    cell: np.ndarray,
    windows: WindowSet,
) -> Errors:
    """Errors of predictions in the target's units, and residuals of windows in sigma.

    chi2 = mean of (observed - predicted - bias)^2 / (noise^2 + model error^2) over informative
    pixels; l1 and mse are plain means of |observed - predicted| and its square over them.
    The residual of a window in sigma is its mean residual over the root of noise plus model variance;
    positive if the observed flux is above the predicted; 0 if nothing was measured.
    """
    residual = observed - predicted
    good = np.isfinite(noise)
    pixels = good.sum(axis=1)
    count = np.maximum(pixels, 1)
    corrected = residual - error.bias[cell]
    model_sigma = error.sigma[cell].astype(np.float64)
    variance = np.where(good, noise, 1.0) ** 2 + model_sigma**2
    chi2 = np.where(good, corrected**2 / np.maximum(variance, 1e-20), 0.0).sum(axis=1) / count
    l1 = np.where(good, np.abs(residual), 0.0).sum(axis=1) / count
    mse = np.where(good, residual**2, 0.0).sum(axis=1) / count
    mean, noise_variance = window_means(corrected, noise, model_sigma, windows.members)
    sigma = np.sqrt(noise_variance + error.window_sigma[cell].astype(np.float64) ** 2)
    in_sigma = np.nan_to_num((mean - error.window_bias[cell]) / np.maximum(sigma, 1e-12))
    return Errors(
        chi2.astype(np.float32),
        l1.astype(np.float32),
        mse.astype(np.float32),
        pixels.astype(np.int16),
        in_sigma.astype(np.float32),
    )
