"""Calibrated probability of being below a metallicity, from the evidence of one or two instruments.

Three things are learned from the labelled stars of the atlas (never acceptance stars), with evidence that
does not use their own labels: how the evidence combines into one [Fe/H] (weighted least
squares), its error (as a function of S/N and the neighbours' scatter), and how often a star
estimated d sigma below a metallicity is below it (logistic regression, shrunk to a normal distribution).
If the atlas has too few stars below the requested metallicity, the last is
learned at a higher one and shifted down with the same shape; `note` reports this.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from specclip_search.training.xp_metallicity.weighting import inverse_density

MIN_LABELLED = 100
MIN_POSITIVES = 30
# a logistic function of this slope equals the normal distribution function to 1 %
NORMAL_SLOPE = 1.702
# strength of the prior towards the normal distribution, in stars
PRIOR_STARS = 10.0
SMALLEST_SIGMA = 0.08


@dataclass(frozen=True, slots=True)
class Calibration:
    """Calibration learned from labelled stars; see the module docstring.

    Attributes
    ----------
    combine
        Coefficients of the evidence columns and a constant.
    error
        Coefficients of the log error on the error columns and a constant.
    intercept, slope
        Of the logistic function of (threshold - feh) / error.
    threshold
        [Fe/H] at which the logistic function was learned.
    positives, labelled
        Number of labelled stars below the threshold, and in total.
    """

    combine: np.ndarray
    error: np.ndarray
    intercept: float
    slope: float
    threshold: float
    positives: int
    labelled: int
    note: str

    def predict(self, evidence: np.ndarray, error_terms: np.ndarray, below: float) -> tuple[np.ndarray, ...]:
        """(N,) [Fe/H], its error and the probability of being below `below`."""
        feh = _with_one(evidence) @ self.combine
        sigma = np.maximum(np.exp(np.clip(_with_one(error_terms) @ self.error, -4, 1)), SMALLEST_SIGMA)
        return feh, sigma, logistic(self.intercept + self.slope * (below - feh) / sigma)


def logistic(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * np.asarray(x, dtype=np.float64)))


def fit(evidence: np.ndarray, error_terms: np.ndarray, feh: np.ndarray, below: float) -> Calibration:
    """Learn a calibration.

    Parameters
    ----------
    evidence
        (n, m) estimates of [Fe/H] by each kind of evidence, finite.
    error_terms
        (n, e) what the error may depend on, finite.
    feh
        (n,) labels.
    below
        The requested metallicity.
    """
    n, m = evidence.shape
    if n < MIN_LABELLED:
        combine = np.append(np.full(m, 1.0 / m), 0.0)
        error = np.append(np.zeros(error_terms.shape[1]), np.log(0.4))
        note = f"only {n} labelled stars: evidence is averaged, its error taken as 0.4 dex"
        return Calibration(combine, error, 0.0, NORMAL_SLOPE, below, int((feh < below).sum()), n, note)
    combine = _least_squares(_with_one(evidence), feh, inverse_density(feh), np.append(np.full(m, 1.0 / m), 0.0))
    residual = np.abs(feh - _with_one(evidence) @ combine)
    log_error = np.log(np.maximum(residual, 0.01))
    start = np.append(np.zeros(error_terms.shape[1]), np.median(log_error))
    error = _least_squares(_with_one(error_terms), log_error, inverse_density(feh), start)
    sigma = np.exp(_with_one(error_terms) @ error)
    # the mean of log|r| is below log sigma: scale so that two thirds of the residuals are within one error
    error[-1] += np.log(max(float(np.quantile(residual / sigma, 0.683)), 1e-3))
    sigma = np.maximum(np.exp(np.clip(_with_one(error_terms) @ error, -4, 1)), SMALLEST_SIGMA)
    return _calibrated(combine, error, _with_one(evidence) @ combine, sigma, feh, below)


def _calibrated(
    combine: np.ndarray, error: np.ndarray, estimate: np.ndarray, sigma: np.ndarray, feh: np.ndarray, below: float
) -> Calibration:
    lowest = np.sort(feh)
    threshold = max(below, float(lowest[min(MIN_POSITIVES, len(lowest)) - 1]) + 1e-6)
    is_below = feh < threshold
    intercept, slope = _logistic_fit((threshold - estimate) / sigma, is_below)
    own = int((feh < below).sum())
    note = (
        ""
        if threshold == below
        else (
            f"only {own} labelled stars below [Fe/H] = {below:g}: learned at {threshold:.2f} "
            f"({int(is_below.sum())} stars) and moved down"
        )
    )
    return Calibration(combine, error, intercept, slope, threshold, own, len(feh), note)


def _least_squares(matrix: np.ndarray, target: np.ndarray, weight: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Weighted ridge regression with a prior at `start` of the strength of a few stars."""
    weighted = matrix * weight[:, None]
    gram = weighted.T @ matrix
    penalty = 1e-3 * np.trace(gram) / len(gram) * np.eye(len(gram))
    return start + np.linalg.solve(gram + penalty, weighted.T @ (target - matrix @ start))


def _logistic_fit(x: np.ndarray, truth: np.ndarray, rounds: int = 30) -> tuple[float, float]:
    """Intercept and slope by Newton's method with a normal prior about (0, `NORMAL_SLOPE`); slope at least 0.2."""
    matrix = np.column_stack([np.ones(len(x)), np.clip(x, -20, 20)])
    start = np.array([0.0, NORMAL_SLOPE])
    solution = start.copy()
    for _ in range(rounds):
        probability = logistic(matrix @ solution)
        curvature = matrix.T @ (matrix * (probability * (1 - probability))[:, None]) + PRIOR_STARS * 0.25 * np.eye(2)
        slope = matrix.T @ (truth - probability) - PRIOR_STARS * 0.25 * (solution - start)
        step = np.linalg.solve(curvature, slope)
        solution = solution + np.clip(step, -2.0, 2.0)
        if np.abs(step).max() < 1e-9:
            break
    return float(solution[0]), float(max(solution[1], 0.2))


def _with_one(matrix: np.ndarray) -> np.ndarray:
    return np.column_stack([matrix, np.ones(len(matrix))])
