"""Calibration of posteriors on validation stars: offsets, widths by signal to noise, coverage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from specclip_search.surveys import LRS, XP

from ..networks.label_scale import LABELS, from_scale
from .network import Mixture

SNR_EDGES = {LRS: (10.0, 20.0, 40.0, 80.0), XP: (50.0, 100.0, 200.0)}
"""Bins of S/N: below the first, between each two, above the last."""
KNOTS = 7
"""Number of knots over the range of predicted values between which an offset is interpolated."""
MIN_STARS = 100
"""Minimum number of validation stars for an offset or a row of the coverage table."""
SHRINK_STARS = 30
"""Number of stars at which the value of a bin and the prior have equal weight."""
MAX_FACTOR, MIN_FACTOR = 3.0, 0.5


@dataclass(frozen=True)
class Calibration:
    """Calibration of the posteriors of one instrument from validation stars, in standardised units.

    Attributes
    ----------
    edges
        Edges of the S/N bins.
    factors
        (bins + 1, labels) factors by which posteriors are widened; the last row is for unknown S/N.
    knots, offsets
        (labels, KNOTS): predicted minus true value at predicted values.
    classes
        By label (`teff`, `feh`), edges of its estimated value in its unit and factors (edges + 1, labels) by
        which posteriors are widened besides.
    """

    edges: tuple[float, ...]
    factors: np.ndarray
    knots: np.ndarray
    offsets: np.ndarray
    classes: Mapping[str, tuple[tuple[float, ...], np.ndarray]] = field(default_factory=dict)

    def factor_of(self, snr: np.ndarray | None, count: int) -> np.ndarray:
        """(N, labels) widening of each star."""
        return self.factors[self.bin_of(snr, count)]

    def bin_of(self, snr: np.ndarray | None, count: int) -> np.ndarray:
        """(N,) index of the S/N bin; the last one if unknown."""
        unknown = len(self.edges) + 1
        if snr is None:
            return np.full(count, unknown)
        snr = np.asarray(snr, np.float64)
        return np.where(np.isfinite(snr) & (snr > 0), np.searchsorted(self.edges, np.nan_to_num(snr)), unknown)

    def offset_of(self, mean: np.ndarray) -> np.ndarray:
        """(N, labels) offset at predicted values (N, labels)."""
        columns = [np.interp(mean[:, i], self.knots[i], self.offsets[i]) for i in range(mean.shape[1])]
        return np.stack(columns, axis=1)

    def class_factor(self, mean: np.ndarray, middle: np.ndarray, width: np.ndarray) -> np.ndarray:
        """(N, labels) widening by the classes of estimated values; all 1 without classes.

        Parameters
        ----------
        mean
            (N, labels) estimated values, standardised by `middle` and `width` (labels,).
        """
        result = np.ones(mean.shape)
        for name, (edges, factors) in self.classes.items():
            i = LABELS.index(name)
            result *= factors[np.searchsorted(edges, from_scale(name, middle[i] + width[i] * mean[:, i]))]
        return result

    def apply(self, mixture: Mixture, snr: np.ndarray | None, floor: np.ndarray | float = 0.0,
              middle: np.ndarray | None = None, width: np.ndarray | None = None) -> Mixture:
        """Calibrated mixtures; `middle` and `width` of the standardisation are needed where there are classes."""
        mean = mixture.mean
        factor, offset = self.factor_of(snr, len(mean)), self.offset_of(mean)
        if middle is not None and width is not None:
            factor = factor * self.class_factor(mean, middle, width)
        return mixture.stretched(factor, offset, np.broadcast_to(floor, mean.shape))


def calibrate(modality: str, mixture: Mixture, truth: np.ndarray, snr: np.ndarray) -> Calibration:
    """Learn offsets, then widths, from validation stars.

    Parameters
    ----------
    mixture, truth
        Posteriors and true values (N, labels) in standardised units, NaN where unknown.
    snr
        (N,) signal to noise.
    """
    edges = SNR_EDGES[modality]
    labels = truth.shape[1]
    mean = mixture.mean
    knots, offsets = np.zeros((labels, KNOTS)), np.zeros((labels, KNOTS))
    for i in range(labels):
        known = np.isfinite(truth[:, i])
        knots[i], offsets[i] = _offsets(mean[known, i], truth[known, i])
    plain = Calibration(edges, np.ones((len(edges) + 2, labels)), knots, offsets)
    pull = np.abs(truth - plain.apply(mixture, None).mean) / mixture.sigma
    bins = plain.bin_of(snr, len(truth))
    everywhere = np.array([_factor(pull[:, i], 1.0) for i in range(labels)])
    factors = [[_factor(pull[bins == b, i], everywhere[i]) for i in range(labels)] for b in range(len(edges) + 1)]
    return Calibration(edges, np.array([*factors, everywhere]), knots, offsets)


def _offsets(predicted: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Knots over the predicted values and the median offset about each."""
    if len(predicted) < MIN_STARS:
        return np.linspace(-1, 1, KNOTS), np.zeros(KNOTS)
    # equally spaced in value, not in number, so that the many disc stars do not dominate the few halo stars
    low, high = np.quantile(predicted, [0.005, 0.995])
    edges = np.linspace(low, high, KNOTS + 1)
    which = np.clip(np.searchsorted(edges, predicted) - 1, 0, KNOTS - 1)
    offsets = np.zeros(KNOTS)
    for k in range(KNOTS):
        residual = (predicted - truth)[which == k]
        if len(residual):
            offsets[k] = np.median(residual) * len(residual) / (len(residual) + SHRINK_STARS)
    return 0.5 * (edges[1:] + edges[:-1]), offsets


def _factor(pull: np.ndarray, otherwise: float) -> float:
    known = pull[np.isfinite(pull)]
    if not len(known):
        return otherwise
    own = np.clip(np.quantile(known, 0.683), MIN_FACTOR, MAX_FACTOR)
    return float((len(known) * own + SHRINK_STARS * otherwise) / (len(known) + SHRINK_STARS))


def coverage(below: np.ndarray, bins: np.ndarray, names: tuple[str, ...],
             edges: tuple[float, ...]) -> list[dict[str, Any]]:
    """Fraction of true values in the central 68.3 and 95.4 % of posteriors, one row per label and S/N bin.

    Parameters
    ----------
    below
        (N, labels) posterior probability below the true value; NaN if unknown.
    bins
        (N,) index of the S/N bin.
    """
    low, high = [0.0, *edges], [*edges, None]
    inside = np.abs(below - 0.5)
    rows = []
    for i, name in enumerate(names):
        for b in range(len(edges) + 1):
            chosen = inside[(bins == b) & np.isfinite(inside[:, i]), i]
            if len(chosen) < MIN_STARS:
                continue
            rows.append({"label": name, "snr_from": low[b], "snr_to": high[b], "stars": len(chosen),
                         "within_68": round(float(np.mean(chosen < 0.3415)), 3),
                         "within_95": round(float(np.mean(chosen < 0.477)), 3)})
    return rows
