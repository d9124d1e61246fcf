"""Combination of the sources' log-odds into one probability per star, by shipped logistic regressions.

    log-odds = a + b (below + 2) + sum of w_k(below) log-odds_k

There is one for each set of sources that stars have. w_k is interpolated linearly from its value at -2 and
above to that at -3 and below, because neighbours are uninformative without labelled stars. They are learned from
validation stars, on which no estimator was trained, at several metallicities at once. Real stars
set a and b, so that the probabilities hold for the mix of stars in a survey and not for the simulated
sample. See `specclip_search.queries.evaluation.learn_emp`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np

from specclip_search.training.xp_metallicity.weighting import LOWEST, REFERENCE, depth

from .probability import logistic

FILE = "emp_combination.json"
SOURCES = ("lrs_estimator", "xp_estimator", "xp_network", "neighbours")
# strength of the prior towards equal weights, in stars
PRIOR_STARS = 4.0


@dataclass(frozen=True)
class Combination:
    """One logistic regression.

    Attributes
    ----------
    parts
        Names among `SOURCES`.
    weights, weights_low
        Weights of their log-odds, at -2 and at -3.
    intercept, slope
        a and b; below [Fe/H] = -3 the term with b is constant.
    stars, positives
        Number of (star, metallicity) samples it was learned from, and of those below.
    """

    parts: tuple[str, ...]
    weights: tuple[float, ...]
    weights_low: tuple[float, ...]
    intercept: float
    slope: float
    stars: int
    positives: int

    def predict(self, odds: np.ndarray, below: float) -> np.ndarray:
        """(N,) probability from (parts, N) log-odds."""
        constant = self.intercept + self.slope * (max(below, LOWEST) - REFERENCE)
        share = float(depth(np.asarray(below)))
        weights = (1.0 - share) * np.asarray(self.weights) + share * np.asarray(self.weights_low)
        return logistic(constant + weights @ odds)


def plain(parts: tuple[str, ...]) -> Combination:
    """The mean of the log-odds, used if nothing was learned."""
    equal = (1.0 / len(parts),) * len(parts)
    return Combination(parts, equal, equal, 0.0, 0.0, 0, 0)


def learn(
    parts: tuple[str, ...], odds: np.ndarray, below: np.ndarray, truth: np.ndarray, simulated: np.ndarray
) -> Combination:
    """Fit one regression by Newton's method.

    Parameters
    ----------
    odds
        (parts, n) log-odds of each star at each metallicity.
    below, truth, simulated
        (n,) the metallicity, whether the star is below it, and whether it is simulated: simulated
        stars get a separate constant, which is then discarded.
    """
    height = np.where(simulated, 0.0, np.maximum(below, LOWEST) - REFERENCE)
    share, count = depth(below), len(parts)
    constants = np.stack([np.where(simulated, 0.0, 1.0), height, np.where(simulated, 1.0, 0.0)])
    matrix = np.concatenate([(1.0 - share) * odds, share * odds, constants]).T
    start = np.concatenate([np.full(2 * count, 1.0 / count), np.zeros(3)])
    pull = PRIOR_STARS * np.concatenate([np.tile(odds.var(axis=1), 2), [0.25, 0.25, 0.25]])
    solution = start.copy()
    for _ in range(100):
        probability = logistic(matrix @ solution)
        curvature = matrix.T @ (matrix * (probability * (1.0 - probability))[:, None]) + np.diag(pull)
        slope = matrix.T @ (truth - probability) - pull * (solution - start)
        # evidence for low metallicity must never count against it: weights are kept non-negative
        free = ~((np.arange(len(start)) < 2 * count) & (solution <= 0.0) & (slope < 0.0))
        step = np.zeros(len(start))
        step[free] = np.linalg.solve(curvature[np.ix_(free, free)], slope[free])
        before = solution.copy()
        solution += np.clip(step, -1.0, 1.0)
        solution[: 2 * count] = np.maximum(solution[: 2 * count], 0.0)
        if np.abs(solution - before).max() < 1e-8:
            break
    high, low, (constant, slope_of_height, _) = np.split(np.round(solution, 5), [count, 2 * count])
    return Combination(
        parts,
        tuple(high.tolist()),
        tuple(low.tolist()),
        float(constant),
        float(slope_of_height),
        len(truth),
        int(truth.sum()),
    )


def to_json(combinations: list[Combination], model_digest: str, measured: dict[str, Any]) -> dict[str, Any]:
    """Content of the file."""
    return {
        "model_digest": model_digest,
        "combinations": [asdict(one) for one in combinations],
        "measured": measured,
    }


@lru_cache(maxsize=1)
def _shipped() -> dict[str, Any]:
    path = files(__package__).joinpath("weights", FILE)
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def combination_for(parts: tuple[str, ...], model_digest: str) -> tuple[Combination, str]:
    """The combination for these sources, and a note if it was learned with another model."""
    content = _shipped()
    for one in content.get("combinations", []):
        if tuple(one["parts"]) == parts:
            found = Combination(**(one | {name: tuple(one[name]) for name in ("parts", "weights", "weights_low")}))
            note = "" if content["model_digest"] == model_digest else "parts weighted as learned with another model"
            return found, note
    return plain(parts), "" if len(parts) == 1 else f"{', '.join(parts)}: weighted equally, nothing was learned"
