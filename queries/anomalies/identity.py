"""Combined evidence that two spectra belong to different stars: a weighted sum of quantities.

A wrong match shows weakly in each of five quantities. In a sum, unlike in the high power of the score,
weak signals add up and noise averages out. Each enters as its inverse hyperbolic sine, linear
for small and logarithmic for large values, with a weight of its own. The sum is a
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
# where the arsinh turns from linear to logarithmic, in sigma
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
    """(N,) log likelihood ratio, up to a constant, of two stars against one.

    Parameters
    ----------
    z
        (N, 5) robust z in the order of `IDENTITY`; 0 where a quantity is unknown.
    """
    return bent(z) @ np.array(load_identity())

