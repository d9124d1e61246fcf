"""Linear interpolation of many spectra from one fixed grid onto another."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..errors import Reason, SpectrumError

NEGLIGIBLE_WEIGHT = 0.05
UNKNOWN_VARIANCE = 1e30
UNKNOWN_SIGMA = 1e12


@dataclass(frozen=True, slots=True)
class LinearMap:
    """Each target point as a weighted mean of two neighbouring pixels.

    Attributes
    ----------
    lower
        (n,) index of the pixel below each target point.
    weight
        (n,) float64 weight of the pixel above; 1 - `weight` is that of the pixel below.
    window
        Pixels within the range of the targets, ends included: the model's window.
    """

    lower: np.ndarray
    weight: np.ndarray
    window: slice

    def values(self, pixels: np.ndarray) -> np.ndarray:
        """(N, P) pixel values to (N, n) float64."""
        below, above = pixels[:, self.lower], pixels[:, self.lower + 1]
        return below + (above - below) * self.weight

    def sigma_from_variance(self, variance: np.ndarray) -> np.ndarray:
        """(N, P) variances to (N, n) standard errors: pixels are independent, so weights are squared.

        A pixel of `UNKNOWN_VARIANCE` makes a target point infinite unless the pixel's weight there
        is below 5 percent.
        """
        below, above = (weights.astype(variance.dtype) for weights in self.squared_weights)
        total = variance[:, self.lower] * below
        total += variance[:, self.lower + 1] * above
        np.sqrt(total, out=total)
        total[total > UNKNOWN_SIGMA] = np.inf
        return total

    @property
    def squared_weights(self) -> tuple[np.ndarray, np.ndarray]:
        """Squared weights of the pixels below and above, negligible ones set to zero."""
        both = 1.0 - self.weight, self.weight
        below, above = (np.where(weight < NEGLIGIBLE_WEIGHT, 0.0, weight**2) for weight in both)
        return below, above


def linear_map(pixels: np.ndarray, targets: np.ndarray) -> LinearMap:
    """The map from increasing `pixels` (P,) to `targets` (n,), cached for the next batch.

    Raises
    ------
    SpectrumError
        Reason `no_coverage`, if the pixels do not cover the targets.
    """
    return _linear_map(np.ascontiguousarray(pixels, np.float64).tobytes(), np.ascontiguousarray(targets).tobytes())


@lru_cache(maxsize=32)
def _linear_map(pixel_bytes: bytes, target_bytes: bytes) -> LinearMap:
    pixels, targets = np.frombuffer(pixel_bytes), np.frombuffer(target_bytes)
    lower = np.clip(np.searchsorted(pixels, targets, side="left") - 1, 0, len(pixels) - 2)
    weight = (targets - pixels[lower]) / (pixels[lower + 1] - pixels[lower])
    first, last = int(lower[0]), int(lower[-1]) + 1
    window = slice(first + int(pixels[first] < targets[0]), last + int(pixels[last] <= targets[-1]))
    return LinearMap(lower, weight, window)


def check_wavelength(wavelength: np.ndarray, grid: np.ndarray, unit: str) -> None:
    """Raise an error if a wavelength array is invalid or does not cover the model's grid.

    Raises
    ------
    SpectrumError
        `not_finite`, `not_monotonic` or `no_coverage`.
    """
    if wavelength.ndim != 1 or len(wavelength) < 2:
        raise SpectrumError(Reason.NO_COVERAGE,
                            f"wavelengths must be a row of at least 2; found shape {wavelength.shape}.")
    if not np.isfinite(wavelength).all():
        raise SpectrumError(Reason.NOT_FINITE, "wavelengths must be finite; some are NaN or infinite.",
                            "Drop the pixels without a wavelength.")
    steps = np.diff(wavelength)
    if not (steps > 0).all() or wavelength[0] <= 0:
        at = int(np.argmax(steps <= 0))
        raise SpectrumError(
            Reason.NOT_MONOTONIC,
            f"wavelengths must be positive and strictly increase; pixel {at} has {wavelength[at]:.4f}, "
            f"the next {wavelength[at + 1]:.4f}.",
            "Sort the pixels by wavelength and merge overlapping arms first.",
        )
    if wavelength[0] > grid[0] or wavelength[-1] < grid[-1]:
        raise SpectrumError(
            Reason.NO_COVERAGE,
            f"the model needs {grid[0]:.2f}-{grid[-1]:.2f} {unit}; the spectrum covers "
            f"{wavelength[0]:.2f}-{wavelength[-1]:.2f}.",
            f"Check the wavelength unit ({unit} is expected) and whether it is vacuum wavelength.",
        )
