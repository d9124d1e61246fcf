"""Metrics of estimators on validation stars: robust sigma, bias, coverage."""

from __future__ import annotations

from typing import Any

import numpy as np

from specclip_search.surveys import XP

from ..networks.label_scale import from_scale, to_scale
from .calibration import calibrate, coverage
from .data import LabelledVectors
from .estimators import InstrumentEstimator
from .network import Mixture

MAD_TO_SIGMA = 1.4826


def robust_sigma(residual: np.ndarray) -> float:
    """1.4826 times the median absolute deviation from the median."""
    return float(MAD_TO_SIGMA * np.median(np.abs(residual - np.median(residual))))


def measured(modality: str, one: InstrumentEstimator, data: LabelledVectors) -> dict[str, Any]:
    """Metrics on the validation stars: real ones for XP (simulated ones separately), all for LRS.

    Coverage is measured on each half of the validation stars with the calibration from the other half;
    without the error floor for real spectra.
    """
    held = np.flatnonzero(data.validation)
    _, raw = one.raw(data.vectors[held])
    truth, snr = data.labels[held], data.snr[held]
    scaled = np.stack([(to_scale(n, truth[:, i]) - one.mean[i]) / one.std[i] for i, n in enumerate(one.labels)], 1)
    mean = one.calibration.apply(raw, snr).mean
    made = data.simulated[held]
    groups = {"real": ~made, "made": made} if modality == XP else {"simulated": np.ones(len(held), bool)}
    figures: dict[str, Any] = {"training_stars": int((~data.validation).sum()), "validation_stars": len(held)}
    for group, chosen in groups.items():
        figures[group] = _errors(one, mean, truth, chosen)
    figures["log_density"] = {n: round(float(np.nanmean(raw.log_density(scaled)[:, i])), 3)
                              for i, n in enumerate(one.labels)}
    figures["coverage"] = _crossed(modality, one, raw, scaled, snr, data.source_id[held])
    return figures


def _errors(one: InstrumentEstimator, mean: np.ndarray, truth: np.ndarray, chosen: np.ndarray) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for i, name in enumerate(one.labels):
        residual = from_scale(name, one.mean[i] + one.std[i] * mean[:, i]) - truth[:, i]
        known = chosen & np.isfinite(residual)
        cuts = {name: known}
        if name == "feh":
            cuts |= {"feh_below_m1.5": known & (truth[:, i] < -1.5), "feh_below_m2": known & (truth[:, i] < -2.0)}
        for cut, rows_of in cuts.items():
            if rows_of.sum() >= 10:
                rows[cut] = {"stars": int(rows_of.sum()), "sigma": round(robust_sigma(residual[rows_of]), 4),
                             "bias": round(float(np.median(residual[rows_of])), 4)}
    return rows


def _crossed(modality: str, one: InstrumentEstimator, raw: Mixture, truth: np.ndarray, snr: np.ndarray,
             ids: np.ndarray) -> list[dict[str, Any]]:
    """Cross-validated coverage, with the calibration from the other half."""
    half = (ids >> 11) % 2 == 0
    inside = np.full(raw.means.shape[:2], np.nan)
    for own in (half, ~half):
        learned = calibrate(modality, _take(raw, ~own), truth[~own], snr[~own])
        inside[own] = learned.apply(_take(raw, own), snr[own]).below(truth[own])
    return coverage(inside, one.calibration.bin_of(snr, len(snr)), one.labels, one.calibration.edges)


def _take(mixture: Mixture, rows: np.ndarray) -> Mixture:
    return Mixture(mixture.weights[rows], mixture.means[rows], mixture.sigmas[rows])
