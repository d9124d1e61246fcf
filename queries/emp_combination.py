"""How the parts' log-odds of one star combine into its probability: logistic regressions that come with the package.

    log-odds = a + b (below + 2) + sum of w_k log-odds_k

One for each set of parts that stars have. Learned from validation stars, which taught none of the
estimators, at several metallicities at once; real stars set a and b, so that the probabilities
hold for a survey's mix of stars and not for the simulated ones'. See `queries.emp_calibrate`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np

from .emp_probability import logistic

FILE = "emp_combination.json"
PARTS = ("lrs_estimator", "xp_estimator", "xp_network", "neighbours")
REFERENCE = -2.0
LOWEST = -3.0
# pull of the weights to equal shares, in stars
PRIOR_STARS = 4.0


@dataclass(frozen=True)
class Combination:
    """One logistic regression.

    Attributes
    ----------
    parts
        Names among `PARTS`.
    weights
        Of their log-odds.
    intercept, slope
        a and b; below [Fe/H] = -3 the term with b stays as it is there.
    stars, positives
        How many (star, metallicity) it was learned from, and of these below.
    """

    parts: tuple[str, ...]
    weights: tuple[float, ...]
    intercept: float
    slope: float
    stars: int
    positives: int

    def predict(self, odds: np.ndarray, below: float) -> np.ndarray:
        """(N,) probability from (parts, N) log-odds."""
        constant = self.intercept + self.slope * (max(below, LOWEST) - REFERENCE)
        return logistic(constant + np.asarray(self.weights) @ odds)


def plain(parts: tuple[str, ...]) -> Combination:
    """Where nothing was learned: the mean of the log-odds."""
    return Combination(parts, (1.0 / len(parts),) * len(parts), 0.0, 0.0, 0, 0)


def learn(
    parts: tuple[str, ...], odds: np.ndarray, below: np.ndarray, truth: np.ndarray, simulated: np.ndarray
) -> Combination:
    """Fit one regression by Newton's method.

    Parameters
    ----------
    odds
        (parts, n) log-odds of each star at each metallicity.
    below, truth, simulated
        (n,) the metallicity, whether the star lies below, and whether it is simulated: simulated
        stars get a constant of their own, which is then forgotten.
    """
    height = np.where(simulated, 0.0, np.maximum(below, LOWEST) - REFERENCE)
    matrix = np.column_stack([odds.T, np.where(simulated, 0.0, 1.0), height, np.where(simulated, 1.0, 0.0)])
    start = np.concatenate([np.full(len(parts), 1.0 / len(parts)), np.zeros(3)])
    pull = PRIOR_STARS * np.concatenate([odds.var(axis=1), [0.25, 0.25, 0.25]])
    solution = start.copy()
    for _ in range(50):
        probability = logistic(matrix @ solution)
        curvature = matrix.T @ (matrix * (probability * (1.0 - probability))[:, None]) + np.diag(pull)
        slope = matrix.T @ (truth - probability) - pull * (solution - start)
        step = np.linalg.solve(curvature, slope)
        solution += np.clip(step, -1.0, 1.0)
        # a part that speaks for low metallicity must never count against it
        solution[: len(parts)] = np.maximum(solution[: len(parts)], 0.0)
        if np.abs(step).max() < 1e-8:
            break
    weights = tuple(round(float(one), 5) for one in solution[: len(parts)])
    constant, height_slope = (round(float(one), 5) for one in solution[len(parts) : len(parts) + 2])
    return Combination(parts, weights, constant, height_slope, len(truth), int(truth.sum()))


def to_json(combinations: list[Combination], model_digest: str, measured: dict[str, Any]) -> dict[str, Any]:
    """Content of the file."""
    return {
        "model_digest": model_digest,
        "combinations": [asdict(one) for one in combinations],
        "measured": measured,
    }


@lru_cache(maxsize=1)
def _shipped() -> dict[str, Any]:
    path = files("queries").joinpath("weights", FILE)
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def combination_for(parts: tuple[str, ...], model_digest: str) -> tuple[Combination, str]:
    """What to combine these parts with, and a note where it was not learned with this model."""
    content = _shipped()
    for one in content.get("combinations", []):
        if tuple(one["parts"]) == parts:
            found = Combination(**(one | {"parts": parts, "weights": tuple(one["weights"])}))
            note = "" if content["model_digest"] == model_digest else "parts weighted as learned with another model"
            return found, note
    return plain(parts), "" if len(parts) == 1 else f"{', '.join(parts)}: weighted equally, nothing was learned"
