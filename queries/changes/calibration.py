"""What visits of unchanged stars differ by, learned from repeats: errors of velocities and windows, and p-values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from .compare import Comparison
from .differences import WINDOWS

LEAST_COMPARISONS = 20
"""Comparisons of visits that a calibration needs."""
_LEAST_SCALE = 0.8
# velocities of real repeats have wider tails than a normal variable's
_DEGREES = 8
_LEAST_FLOOR = 1.0
# mean of min(z^2, 4) of a normal variable
_CUT_SQUARE = 0.9205
_QUARTILES = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Calibration:
    """What to expect of two visits of a star that did not change.

    Attributes
    ----------
    velocity_floor
        Scatter of velocities beyond their statistical errors, km/s, between two visits.
    window_scale
        (W,) scatter of the windows' `sigma`.
    shape, second
        Location and scale of the Gumbel distribution of the logarithm of the largest scaled |sigma| of all windows, and
        of the strength of a second set of lines.
    comparisons
        How many comparisons it was learned from.
    """

    velocity_floor: float
    window_scale: np.ndarray
    shape: tuple[float, float]
    second: tuple[float, float]
    comparisons: int

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "velocity_floor": self.velocity_floor,
            "window_scale": dict(zip([one.name for one in WINDOWS], self.window_scale.tolist(), strict=True)),
            "shape": list(self.shape),
            "second": list(self.second),
            "comparisons": self.comparisons,
        }

    @classmethod
    def of_dict(cls, content: dict[str, Any]) -> Calibration:
        """The inverse of `to_dict`."""
        scale = np.array([content["window_scale"][one.name] for one in WINDOWS])
        first, second = (tuple(content[name]) for name in ("shape", "second"))
        return cls(content["velocity_floor"], scale, first, second, content["comparisons"])


def calibrate(comparisons: Sequence[Comparison]) -> Calibration:
    """Learn from repeats, most of which must be of unchanged stars.

    Scatters are medians, and the Gumbel distributions (that of the largest of many values) are fitted to the quartiles,
    so that up to a quarter of stars that did change do no harm.
    """
    velocity = np.array([one.shift.velocity for one in comparisons])
    error = np.array([one.shift.error for one in comparisons])
    floor = _floor(velocity, error)
    sigma = np.array([one.difference.sigma for one in comparisons])
    measured = np.isfinite(sigma).sum(axis=0) >= LEAST_COMPARISONS // 2
    scale = np.full(sigma.shape[1], 1.0)
    scale[measured] = 1.4826 * np.nanmedian(np.abs(sigma[:, measured]), axis=0)
    scale = np.maximum(scale, _LEAST_SCALE)
    largest = np.log(np.nanmax(np.abs(sigma) / scale, axis=1))
    second = np.array([one.second.strength for one in comparisons])
    return Calibration(floor, scale, _gumbel(largest), _gumbel(second), len(comparisons))


@dataclass(frozen=True, slots=True)
class Chances:
    """p-values of a comparison: chances that visits of an unchanged star differ as much."""

    velocity: float
    shape: float
    second: float

    @property
    def any(self) -> float:
        """Of the smallest of the three (Sidak)."""
        return of_several([self.velocity, self.shape, self.second])


def chances(one: Comparison, known: Calibration) -> Chances:
    """p-values of a comparison."""
    pull = abs(one.shift.velocity) / np.hypot(one.shift.error, known.velocity_floor)
    largest = float(np.nanmax(np.abs(one.difference.sigma) / known.window_scale))
    return Chances(
        float(2.0 * student_t.sf(pull, _DEGREES)),
        _gumbel_p(float(np.log(max(largest, 1e-12))), known.shape),
        _gumbel_p(one.second.strength, known.second),
    )


def _floor(velocity: np.ndarray, error: np.ndarray) -> float:
    """Scatter beyond the statistical errors: the mean of (v / total error)^2, cut at 4, is a normal variable's."""
    low, high = _LEAST_FLOOR, 100.0
    for _ in range(50):
        middle = (low + high) / 2
        if np.mean(np.minimum((velocity / np.hypot(error, middle)) ** 2, 4.0)) > _CUT_SQUARE:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _gumbel(values: np.ndarray) -> tuple[float, float]:
    low, middle, high = np.quantile(values, _QUARTILES)
    quantile = -np.log(-np.log(np.array(_QUARTILES)))
    scale = max(float((high - low) / (quantile[2] - quantile[0])), 0.05)
    return float(middle - scale * quantile[1]), scale


def _gumbel_p(value: float, fitted: tuple[float, float]) -> float:
    """Probability that the largest of many values is at least this."""
    return float(-np.expm1(-np.exp(-(value - fitted[0]) / fitted[1])))


def of_several(p: Sequence[float]) -> float:
    """p-value of the smallest of several independent ones (Sidak)."""
    return float(-np.expm1(len(p) * np.log1p(-min(min(p), 1 - 1e-16))))
