"""Range of the emulator: inside the label limits and near the stars it was trained on.

The training stars follow the sequences of real stars (dwarfs, turn-off, giants, horizontal branch,
A and B stars), so a box of labels contains corners where no star was computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .labels import LABEL_NAMES, LABEL_UNITS, FloatArray, SimulationError, scaled

DISTANCE_LIMIT = 1.4
"""Largest accepted distance to the nearest training star in units of `DISTANCE_SCALE`; 99 of 100
held-out grid stars lie nearer, and the error grows slowly up to there (docs/emulator.md)."""
SNAP_TOLERANCE = np.array([0.0, 0.0, 0.05, 0.15, 0.15])
"""How far outside the limits labels may lie for `Coverage.snap`; only for labels with little effect."""
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Coverage:
    """The region of label space covered by an emulator.

    Attributes
    ----------
    low, high
        (5,) limits of each label, in the order of `LABEL_NAMES`.
    nodes
        (M, 5) labels of the training stars.
    """

    low: FloatArray
    high: FloatArray
    nodes: FloatArray

    def distance(self, labels: FloatArray) -> FloatArray:
        """Distance (N,) to the nearest training star, in units of `DISTANCE_SCALE`; inf for NaN."""
        points, nodes = scaled(labels), scaled(self.nodes)
        nearest = np.empty(len(points))
        for start in range(0, len(points), _BLOCK):
            block = points[start : start + _BLOCK]
            squared = np.zeros((len(block), len(nodes)))
            for j in range(points.shape[1]):
                squared += np.subtract.outer(block[:, j], nodes[:, j]) ** 2
            nearest[start : start + _BLOCK] = np.sqrt(squared.min(axis=1))
        return np.where(np.isfinite(nearest), nearest, np.inf)

    def inside(self, labels: FloatArray) -> np.ndarray:
        """Mask (N,): every label finite and within its limits."""
        return np.asarray(((labels >= self.low) & (labels <= self.high)).all(axis=1))

    def margin(self, labels: FloatArray) -> FloatArray:
        """Margin (N,) of the coverage: 1 at a training star, 0 at the limit, negative outside."""
        margin = 1.0 - self.distance(labels) / DISTANCE_LIMIT
        return np.where(self.inside(labels), margin, np.minimum(margin, -1.0))

    def covers(self, labels: FloatArray) -> np.ndarray:
        """Mask (N,) of the stars that can be computed."""
        return self.margin(labels) >= 0.0

    def snap(self, labels: FloatArray) -> FloatArray:
        """Move labels that lie a little outside (`SNAP_TOLERANCE`) to the limit; others are unchanged."""
        nearest = np.clip(labels, self.low, self.high)
        return np.where(np.abs(labels - nearest) <= SNAP_TOLERANCE, nearest, labels)

    def require(self, labels: FloatArray) -> None:
        """Raise an error for labels that are not covered.

        Raises
        ------
        SimulationError
            With the first such star, the label, its range and its value.
        """
        outside = ~((labels >= self.low) & (labels <= self.high))
        if outside.any():
            star, column = (int(i) for i in np.argwhere(outside)[0])
            name = LABEL_NAMES[column]
            raise SimulationError(
                f"{name} must lie between {self.low[column]:g} and {self.high[column]:g} "
                f"{LABEL_UNITS[name]}; star {star} has {labels[star, column]:g}.",
                "Drop such stars with Emulator.covers, or move labels just outside with Emulator.snap.",
            )
        distance = self.distance(labels)
        if (distance > DISTANCE_LIMIT).any():
            star = int(np.argmax(distance > DISTANCE_LIMIT))
            values = ", ".join(f"{n}={v:g}" for n, v in zip(LABEL_NAMES, labels[star], strict=True))
            raise SimulationError(
                f"A star must lie within {DISTANCE_LIMIT:g} label steps of one that was computed; star {star} "
                f"({values}) lies {distance[star]:.2f} away: no real star of the training sequences is like it.",
                "Drop such stars with Emulator.covers; Emulator.margin gives the distance of each.",
            )
