"""How far out a quantity is: -log10 of the share of normal stars that reach as far.

A few thousand reference stars of an atlas say what happens to one star in a hundred, and odd stars
among them blur even that. How a quantity's tail runs on is a matter of how it is made, not of the
survey: it is learned once, from the normal stars of a simulated survey
(`specclip_search.queries.evaluation.learn_weights`),
and fitted to each atlas by two quantiles of its own, which odd stars hardly move.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

# the atlas's own quantiles that are laid on the law's
ANCHORS = (0.5, 0.9)
FIRST_KNOTS = (0.0, 0.30103, 0.6, 1.0)
STEP, LEAST_BEYOND = 0.25, 8
# beyond the last knot the law goes on with the mean slope of so many steps
LAST_STEPS = 3
CAP = 30.0


@dataclass(frozen=True, slots=True)
class TailModel:
    """Robust z against -log10 of the share of normal stars at or above it.

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
            (n,) robust z of stars most of which are normal, whose quantiles are laid on the law's.
        """
        low, high = np.quantile(reference, ANCHORS)
        first, second = self.anchors()
        # an atlas may be wider than the law, never narrower: that would make much of little
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
    """The law of normal stars' robust z (n,); None for a quantity that does not vary or for too few stars.

    Knots stand at quantiles, a quarter of a decade apart, down to where eight stars are left.
    """
    last = np.log10(max(len(values), 1) / LEAST_BEYOND)
    surprise = np.concatenate([FIRST_KNOTS, np.arange(FIRST_KNOTS[-1] + STEP, last, STEP)])
    if last < FIRST_KNOTS[-1] + LAST_STEPS * STEP or np.ptp(values) == 0:
        return None
    z = np.quantile(values, 1.0 - 10.0**-surprise)
    # where values are tied the quantiles are, too
    return TailModel(np.maximum.accumulate(z + 1e-3 * np.arange(len(z))), surprise)
