"""Tail model of a quantity: -log10 of the fraction of normal stars with at least its value.

A few thousand reference stars of an atlas only determine p-values down to about 0.01, and anomalies
among them bias even these. The shape of a quantity's tail depends on its definition, not on the
survey. It is therefore learned once, from the normal stars of a simulated survey
(`specclip_search.queries.evaluation.learn_weights`),
and scaled to each atlas by two of its quantiles, which anomalies hardly affect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

# quantiles of the atlas that are matched to those of the model
ANCHORS = (0.5, 0.9)
FIRST_KNOTS = (0.0, 0.30103, 0.6, 1.0)
STEP, LEAST_BEYOND = 0.25, 8
# number of last steps whose mean slope is used to extrapolate beyond the last knot
LAST_STEPS = 3
CAP = 30.0


@dataclass(frozen=True, slots=True)
class TailModel:
    """Robust z against -log10 of the fraction of normal stars at or above it.

    Attributes
    ----------
    z
        (m,) increasing.
    surprise
        (m,) increasing from 0.
    """

    z: np.ndarray
    surprise: np.ndarray

    def anchors(self) -> np.ndarray:
        """(2,) z of the quantiles in `ANCHORS`."""
        return np.interp(-np.log10(1.0 - np.array(ANCHORS)), self.surprise, self.z)

    def of(self, values: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """-log10 p of `values`, at most 30.

        Parameters
        ----------
        values
            (N,) robust z.
        reference
            (n,) robust z of mostly normal stars, whose quantiles are matched to those of the model.
        """
        low, high = np.quantile(reference, ANCHORS)
        first, second = self.anchors()
        # the model may be stretched to a wider atlas but never compressed, which would inflate small deviations
        stretch = min((second - first) / max(high - low, 1e-6), 1.0)
        laid = first + (np.asarray(values, dtype=np.float64) - low) * stretch
        slope = (self.surprise[-1] - self.surprise[-1 - LAST_STEPS]) / (self.z[-1] - self.z[-1 - LAST_STEPS])
        beyond = self.surprise[-1] + slope * (laid - self.z[-1])
        return np.minimum(np.where(laid > self.z[-1], beyond, np.interp(laid, self.z, self.surprise)), CAP)

    def as_json(self) -> dict[str, list[float]]:
        return {"z": np.round(self.z, 4).tolist(), "surprise": np.round(self.surprise, 4).tolist()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> TailModel:
        return cls(np.array(content["z"], dtype=np.float64), np.array(content["surprise"], dtype=np.float64))


def learn_tail(values: np.ndarray) -> TailModel | None:
    """Tail model from robust z (n,) of normal stars; None for a constant quantity or too few stars.

    Knots are quantiles a quarter of a decade apart, down to eight remaining stars.
    """
    last = np.log10(max(len(values), 1) / LEAST_BEYOND)
    surprise = np.concatenate([FIRST_KNOTS, np.arange(FIRST_KNOTS[-1] + STEP, last, STEP)])
    if last < FIRST_KNOTS[-1] + LAST_STEPS * STEP or np.ptp(values) == 0:
        return None
    z = np.quantile(values, 1.0 - 10.0**-surprise)
    # ties in the values give equal quantiles
    return TailModel(np.maximum.accumulate(z + 1e-3 * np.arange(len(z))), surprise)
