"""Are two spectra one star's? What every quantity says of it, added up as it is worth.

A wrong match shows a little in each of five quantities: of a sum, unlike of the score's high power,
weak signals add up and noise averages out. Each counts by its inverse hyperbolic sine, in proportion
while it is small and as its logarithm where it is far out, and by a weight of its own. The sum is a
log likelihood ratio; `specclip_search.queries.evaluation.learn_weights` sets the weights by logistic regression.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    pass

FILE = "identity.json"
IDENTITY = ("mutual", "disagreement", "color", "match", "labels")
LOW, HIGH = -3.0, 60.0
# where a quantity stops to count in proportion, in sigma
KNEE = 2.0


@cache
def load_identity() -> tuple[float, ...]:
    """The shipped weights in the order of `IDENTITY`."""
    path = files(__package__).joinpath("weights", FILE)
    kept = json.loads(path.read_text(encoding="utf-8"))["weights"]
    return tuple(float(kept[name]) for name in IDENTITY)


def bent(z: np.ndarray) -> np.ndarray:
    """(N, m) arsinh of robust z over the knee, z held between -3 and 60."""
    return np.asarray(np.arcsinh(np.clip(z, LOW, HIGH) / KNEE), dtype=np.float64)


def identity_sum(z: np.ndarray) -> np.ndarray:
    """(N,) log likelihood ratio, but for a constant, of two stars against one.

    Parameters
    ----------
    z
        (N, 5) robust z in the order of `IDENTITY`; 0 where a quantity is not known.
    """
    return bent(z) @ np.array(load_identity())

