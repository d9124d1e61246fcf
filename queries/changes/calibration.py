"""What visits of unchanged stars differ by, learned from repeats: errors of velocities and windows, and p-values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
_QUANTILES = (0.25, 0.5, 0.75, 0.9)
# where a Gumbel distribution of scale 1 has them
_GUMBEL = tuple(float(-np.log(-np.log(part))) for part in _QUANTILES)
_LEAST_TAIL = 0.05

Tail = tuple[float, float, float]


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
        Median, and scales below and above it, of the Gumbel distributions of ln(largest scaled |sigma| of all windows)
        and of the strength of a second set of lines.
    comparisons
        How many comparisons it was learned from.
    tests
        How many independent tests the three p-values of a comparison amount to; they share the same noise.
    """

    velocity_floor: float
    window_scale: np.ndarray
    shape: Tail
    second: Tail
    comparisons: int
    tests: float = 3.0

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "velocity_floor": self.velocity_floor,
            "window_scale": dict(zip([one.name for one in WINDOWS], self.window_scale.tolist(), strict=True)),
            "shape": list(self.shape),
            "second": list(self.second),
            "comparisons": self.comparisons,
            "tests": self.tests,
        }

    @classmethod
    def of_dict(cls, content: dict[str, Any]) -> Calibration:
        """The inverse of `to_dict`."""
        scale = np.array([content["window_scale"][one.name] for one in WINDOWS])
        first, second = (tuple(content[name]) for name in ("shape", "second"))
        return cls(content["velocity_floor"], scale, first, second, content["comparisons"])


def calibrate(comparisons: Sequence[Comparison]) -> Calibration:
    """Learn from repeats, most of which must be of unchanged stars.

    Scatters are robust, and the Gumbel distributions (that of the largest of many values) are fitted to quantiles up to
    0.9, so that up to a tenth of stars that did change do little harm.
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
    made = Calibration(floor, scale, _gumbel(largest), _gumbel(second), len(comparisons))
    smallest = np.median([chances(one, made).smallest for one in comparisons])
    # so that the p-value of the smallest of three has the median 1/2
    return replace(made, tests=float(np.clip(np.log(0.5) / np.log1p(-smallest), 1.0, 3.0)))


@dataclass(frozen=True, slots=True)
class Chances:
    """p-values of a comparison: chances that visits of an unchanged star differ as much."""

    velocity: float
    shape: float
    second: float
    any: float

    @property
    def smallest(self) -> float:
        return min(self.velocity, self.shape, self.second)


def chances(one: Comparison, known: Calibration) -> Chances:
    """p-values of a comparison."""
    pull = abs(one.shift.velocity) / np.hypot(one.shift.error, known.velocity_floor)
    largest = float(np.nanmax(np.abs(one.difference.sigma) / known.window_scale))
    found = (
        float(2.0 * student_t.sf(pull, _DEGREES)),
        _gumbel_p(float(np.log(max(largest, 1e-12))), known.shape),
        _gumbel_p(one.second.strength, known.second),
    )
    return Chances(*found, of_smallest(min(found), known.tests))


def _floor(velocity: np.ndarray, error: np.ndarray) -> float:
    """Scatter beyond the errors: the mean of (v / total error)^2, cut at 4, is that of a normal variable."""
    low, high = _LEAST_FLOOR, 100.0
    for _ in range(50):
        middle = (low + high) / 2
        if np.mean(np.minimum((velocity / np.hypot(error, middle)) ** 2, 4.0)) > _CUT_SQUARE:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _gumbel(values: np.ndarray) -> Tail:
    """Median, and the scales that put quantiles below and above it where a Gumbel distribution has them."""
    low, middle, *high = np.quantile(values, _QUANTILES)
    below = (middle - low) / (_GUMBEL[1] - _GUMBEL[0])
    above = np.mean([(one - middle) / (at - _GUMBEL[1]) for one, at in zip(high, _GUMBEL[2:], strict=True)])
    return float(middle), max(float(below), _LEAST_TAIL), max(float(above), _LEAST_TAIL)


def _gumbel_p(value: float, fitted: Tail) -> float:
    """Probability that the largest of many values is at least this."""
    middle, below, above = fitted
    place = _GUMBEL[1] + (value - middle) / (above if value > middle else below)
    return float(-np.expm1(-np.exp(-place)))


def of_smallest(p: float, tests: float) -> float:
    """p-value of the smallest of so many independent ones (Sidak)."""
    return float(-np.expm1(tests * np.log1p(-min(p, 1 - 1e-16))))
