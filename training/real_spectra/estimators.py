"""LRS label estimators learned from simulated and real stars together, with errors calibrated on real plates.

Simulated stars are corrected to look real by a random share (`line_correction`) and bring the labels
that no catalogue of real stars has: [alpha/Fe], [C/Fe], and everything below [Fe/H] = -2. Real stars
bring LASP's labels. Errors are calibrated on held-out plates and MILES stars: by signal to noise, then
by the estimated Teff and [Fe/H], so that 68.3 % of real residuals lie within the quoted sigma. For an
unknown signal to noise the errors are those of LAMOST and MILES stars together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from specclip_search.keys import VALIDATION_SPLIT, split_of
from specclip_search.surveys import LRS

from ..estimators.calibration import SNR_EDGES, Calibration, calibrate
from ..estimators.estimators import InstrumentEstimator
from ..estimators.metrics import robust_sigma
from ..estimators.network import EstimatorModule, EstimatorSizes, Mixture
from ..estimators.train import EstimatorRecipe, _fit, _moments, _run, star_weights
from ..fit.pairs import ArrayPairs
from ..networks.aligned import AlignedModel
from ..networks.label_scale import HOT_COMPOSITION, HOT_TEFF, LABELS, from_scale, to_scale
from .fit import AdaptData, unit_vectors
from .spectra import LAMOST, RealSpectra

REAL_WEIGHT = 4.0
"""Weight of a real star against a simulated one."""
REAL_AXES = 256
KNOWN = ("teff", "logg", "feh", "rv")
"""Labels that real stars have."""
FLOOR = {"alpha_fe": 0.08, "c_fe": 0.20}
"""Error floor of the labels that were not checked on real stars."""
CLASS_EDGES = {"teff": (4500.0, 5500.0, 6300.0, 7000.0), "feh": (-1.0, -0.5, 0.0)}
"""Edges of the estimated values between which errors are widened by a factor of their own."""
SHRINK = 20.0
"""A class's own factor counts half from this many stars."""
LARGEST, SMALLEST = 3.0, 0.4
COVERED = 0.71
"""Share of held-out residuals that the quoted sigma is set to hold: a little above .683, for plates not seen."""
RV_COVERED = 0.755
"""The same for radial velocities, which plates share an error in: with .71, plates not seen hold .64 (12 halvings)."""
Progress = Callable[..., None]


def train_real_estimator(module: AlignedModel, source: ArrayPairs, data: AdaptData,
                         recipe: EstimatorRecipe | None = None,
                         progress: Progress | None = None) -> tuple[InstrumentEstimator, dict[str, Any]]:
    """The LRS estimator of a fine-tuned model and what was measured of it."""
    recipe = recipe or EstimatorRecipe(lrs_axes=REAL_AXES)
    rng = np.random.default_rng([recipe.seed, 11])
    rows, validation = simulated_rows(source)
    flux, labels = corrected_flux(data, rows, rng), data.lrs_labels[rows].copy()
    snr = np.median(data.lrs[rows] / np.asarray(data.lrs_error[rows], np.float32), axis=1)
    made = unit_vectors(module, LRS, flux).astype(np.float16).astype(np.float32)
    real = data.real
    seen = unit_vectors(module, LRS, real.inputs).astype(np.float16).astype(np.float32)
    train = np.flatnonzero(real.labelled & ~real.held)
    held = np.flatnonzero(real.labelled & real.held)
    fit_vectors = np.concatenate([made[~validation], seen[train]])
    fit_labels = np.concatenate([labels[~validation], real.labels[train]])
    is_real = np.concatenate([np.zeros((~validation).sum(), bool), np.ones(len(train), bool)])
    known = hot_compositions(fit_labels, rng)
    scaled = _scaled(known)
    mean, std = _moments(scaled)
    target = ((scaled - mean) / std).astype(np.float32)
    sizes = EstimatorSizes(fit_vectors.shape[1], recipe.lrs_axes, recipe.hidden, recipe.components, len(LABELS),
                           recipe.members)
    torch.manual_seed(recipe.seed)
    network = EstimatorModule(sizes, recipe.dropout)
    network.set_projection(fit_vectors)
    weight = star_weights(known[:, 2], np.zeros(len(known), bool), np.arange(len(known)), recipe)
    weight = weight * np.where(is_real, REAL_WEIGHT, 1.0).astype(np.float32)
    _fit(network, LRS, fit_vectors, target, weight / weight.mean(), recipe, progress)
    for parameter in network.parameters():
        parameter.data = parameter.data.half().float()
    _, mixture = _run(network, made[validation])
    truth = ((_scaled(labels[validation]) - mean) / std)
    by_simulation = calibrate(LRS, mixture, truth, snr[validation])
    _, mixture = _run(network, seen[held])
    truth = (_scaled(real.labels[held]) - mean) / std
    calibration = calibrate_real(mixture, truth, real.snr[held], real.origin[held] == LAMOST, mean, std,
                                 by_simulation)
    values = [known[:, i][np.isfinite(known[:, i])] for i in range(len(LABELS))]
    low, high = (np.array([np.quantile(v, q) for v in values]) for q in (0.001, 0.999))
    far = float(np.quantile(_run(network, fit_vectors)[0], 0.995))
    good = np.concatenate([snr[~validation], real.snr[train]])
    one = InstrumentEstimator(LABELS, network.eval().requires_grad_(False), calibration, mean, std, low, high, far,
                              float(np.quantile(good[np.isfinite(good)], 0.005)), FLOOR)
    record = measured_on_real(one, seen[held], real.take(held))
    record |= {"training_stars": len(fit_labels), "validation_stars": int(validation.sum()) + len(held),
               "real_training_stars": len(train), "real_validation_stars": len(held), "real_weight": REAL_WEIGHT,
               "simulated": simulated_figures(one, made[validation], labels[validation], snr[validation])}
    shares = crossed_coverage(network, seen[held], truth, real.snr[held], real.origin[held] == LAMOST, mean, std,
                              by_simulation, real.plate[held])
    record["coverage"] = [row for row in shares if "snr_from" in row]
    record["coverage_by"] = [row for row in shares if "snr_from" not in row]
    return one, record


def simulated_rows(source: ArrayPairs) -> tuple[np.ndarray, np.ndarray]:
    """Rows of simulated LRS of splits 0 to 8, and which are of split 8."""
    alone, alone_ids = source.alone_rows[LRS]
    rows = np.concatenate([source.rows[LRS], alone])
    ids = np.concatenate([source.source_id, alone_ids])
    use = split_of(ids) <= VALIDATION_SPLIT
    return rows[use], split_of(ids[use]) == VALIDATION_SPLIT


def corrected_flux(data: AdaptData, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Simulated LRS with a random share of what models lack of real spectra; less below [Fe/H] = -1.8."""
    flux = np.array(data.lrs[rows], np.float32)
    labels = data.lrs_labels[rows]
    known = np.flatnonzero(np.isfinite(labels[:, :3]).all(axis=1))
    share = rng.random(len(known)) * np.exp(-np.maximum(0.0, -1.8 - labels[known, 2]))
    flux[known] += (share[:, None] * data.correction.at(labels[known])).astype(np.float32)
    return flux


def hot_compositions(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Labels with unknown compositions of hot stars drawn from those of young stars."""
    drawn = labels.copy()
    for name, (mean, sigma) in HOT_COMPOSITION.items():
        column = drawn[:, LABELS.index(name)]
        unknown = np.isnan(column) & (labels[:, 0] > HOT_TEFF)
        column[unknown] = rng.normal(mean, sigma, int(unknown.sum()))
    return drawn


def _scaled(labels: np.ndarray) -> np.ndarray:
    return np.stack([to_scale(name, labels[:, i]) for i, name in enumerate(LABELS)], axis=1)


def calibrate_real(mixture: Mixture, truth: np.ndarray, snr: np.ndarray, lamost: np.ndarray, mean: np.ndarray,
                   std: np.ndarray, by_simulation: Calibration) -> Calibration:
    """Widths from real stars by signal to noise, then by estimated Teff and [Fe/H]; offsets none.

    Parameters
    ----------
    mixture, truth
        Of held-out real stars, standardised (N, labels).
    lamost
        (N,) bool; the others, of a library, count where the signal to noise is unknown.
    mean, std
        (labels,) of the standardisation.
    by_simulation
        Calibration on simulated stars, kept for labels that real stars lack.
    """
    edges = SNR_EDGES[LRS]
    knots, offsets = by_simulation.knots, np.zeros_like(by_simulation.offsets)
    pull = np.abs(truth - mixture.mean) / mixture.sigma
    plain = Calibration(edges, np.ones((len(edges) + 2, len(LABELS))), knots, offsets)
    bins = plain.bin_of(snr, len(truth))
    factors = by_simulation.factors.copy()
    for name in KNOWN:
        i, share = LABELS.index(name), RV_COVERED if name == "rv" else COVERED
        every = _width(pull[lamost, i], 1.0, share)
        for b in range(len(edges) + 1):
            factors[b, i] = _width(pull[lamost & (bins == b), i], every, share)
        factors[-1, i] = _balanced(pull[lamost, i], pull[~lamost, i], every, share)
    plain = replace(plain, factors=factors)
    left = pull / plain.factor_of(snr, len(truth))
    classes: dict[str, tuple[tuple[float, ...], np.ndarray]] = {}
    for of in CLASS_EDGES:
        i = LABELS.index(of)
        value = from_scale(of, mean[i] + std[i] * mixture.mean[:, i])
        place = np.searchsorted(CLASS_EDGES[of], value)
        table = np.ones((len(CLASS_EDGES[of]) + 1, len(LABELS)))
        for name in KNOWN:
            j, share = LABELS.index(name), RV_COVERED if name == "rv" else COVERED
            for c in range(len(table)):
                table[c, j] = _width(left[lamost & (place == c), j], 1.0, share)
        classes[of] = (CLASS_EDGES[of], table)
        left = left / table[place]
    return replace(plain, classes=classes)


def _width(pull: np.ndarray, otherwise: float, share: float) -> float:
    """Factor that makes this share of pulls smaller than one; few stars are drawn towards `otherwise`."""
    known = pull[np.isfinite(pull)]
    if not len(known):
        return otherwise
    own = float(np.clip(np.quantile(known, share), SMALLEST, LARGEST))
    return (len(known) * own + SHRINK * otherwise) / (len(known) + SHRINK)


def _balanced(first: np.ndarray, second: np.ndarray, otherwise: float, share: float) -> float:
    """The factor of two samples that count alike."""
    a, b = first[np.isfinite(first)], second[np.isfinite(second)]
    if not len(b):
        return _width(a, otherwise, share)
    values, weights = np.concatenate([a, b]), np.concatenate([np.full(len(a), 1 / len(a)), np.full(len(b), 1 / len(b))])
    order = np.argsort(values)
    place = int(np.searchsorted(np.cumsum(weights[order]) / weights.sum(), share))
    return float(np.clip(values[order][min(place, len(values) - 1)], SMALLEST, LARGEST))


def crossed_coverage(network: EstimatorModule, vectors: np.ndarray, truth: np.ndarray, snr: np.ndarray,
                     lamost: np.ndarray, mean: np.ndarray, std: np.ndarray, by_simulation: Calibration,
                     plate: np.ndarray) -> list[dict[str, Any]]:
    """Share of real residuals within the quoted sigma, calibrated on the other half of the held-out plates.

    One row a label and a range of S/N, Teff or [Fe/H] (of the catalogue), and rows of MILES with unknown S/N.
    """
    names, number = np.unique(plate, return_inverse=True)
    half = np.random.default_rng(0).permutation(len(names))[number] % 2 == 0
    _, mixture = _run(network, vectors)
    inside = np.full(truth.shape, np.nan)
    asked = np.where(lamost, snr, np.nan)
    for own in (half, ~half):
        learned = calibrate_real(_take(mixture, ~own), truth[~own], snr[~own], lamost[~own], mean, std, by_simulation)
        applied = learned.apply(_take(mixture, own), asked[own], 0.0, mean, std)
        inside[own] = np.where(np.isfinite(truth[own]), applied.below(np.nan_to_num(truth[own])), np.nan)
    teff = from_scale("teff", mean[0] + std[0] * truth[:, 0])
    feh = mean[2] + std[2] * truth[:, 2]
    groups = (("snr", snr, (0, 10, 20, 40, 80, np.inf)), ("teff", teff, (0, 5000, 6000, 7000, np.inf)),
              ("feh", feh, (-np.inf, -1.0, -0.5, 0.0, np.inf)))
    rows: list[dict[str, Any]] = []
    for i, name in enumerate(LABELS):
        if name not in KNOWN:
            continue
        for what, of, edges in groups:
            for low, high in pairwise(edges):
                rows.append(_share(inside[lamost & (of >= low) & (of < high), i], name, what, low, high))
        rows.append(_share(inside[~lamost, i], name, "miles", 0, np.inf))
        rows.append(_share(inside[lamost, i], name, "lamost", 0, np.inf))
    return [row for row in rows if row["stars"] >= 10]


def _share(inside: np.ndarray, name: str, what: str, low: float, high: float) -> dict[str, Any]:
    """Share of true values in the central 68.3 and 95.4 % of posteriors."""
    known = np.abs(inside[np.isfinite(inside)] - 0.5)
    first, last = (None if not np.isfinite(edge) else float(edge) for edge in (low, high))
    limits = {"snr_from": first, "snr_to": last} if what == "snr" else {"by": what, "from": first, "to": last}
    shares = {f"within_{n}": round(float((known <= half).mean()), 4) if len(known) else None
              for n, half in ((68, 0.3415), (95, 0.477))}
    return {"label": name, **limits, "stars": len(known), **shares}


def _take(mixture: Mixture, rows: np.ndarray) -> Mixture:
    return Mixture(mixture.weights[rows], mixture.means[rows], mixture.sigmas[rows])


def measured_on_real(one: InstrumentEstimator, vectors: np.ndarray, real: RealSpectra) -> dict[str, Any]:
    """Robust sigma and bias on held-out real stars: `real`, those that figures are quoted of, and `groups`."""
    _, mixture = one.posterior(LRS, vectors, real.snr)
    teff, lamost = real.labels[:, 0], real.origin == LAMOST
    ordinary = lamost & (teff > 4000) & (teff < 7000)
    groups = {"LAMOST, 4000-7000 K, S/N above 20": ordinary & (real.snr > 20),
              "LAMOST, 4000-7000 K, S/N below 20": ordinary & (real.snr <= 20),
              "LAMOST, 7000-8500 K": lamost & (teff >= 7000) & (teff < 8500),
              "LAMOST, [Fe/H] below -1.5": lamost & (real.labels[:, 2] < -1.5),
              "MILES, 4000-7800 K": ~lamost & (teff > 4000) & (teff < 7800)}
    found = {group: _figures(one, mixture.mean, real.labels, chosen) for group, chosen in groups.items()}
    return {"real": next(iter(found.values())), "groups": found}


def simulated_figures(one: InstrumentEstimator, vectors: np.ndarray, labels: np.ndarray,
                      snr: np.ndarray) -> dict[str, Any]:
    """The same on simulated validation stars, metal-poor ones apart."""
    _, mixture = one.posterior(LRS, vectors, snr)
    result = _figures(one, mixture.mean, labels, np.ones(len(labels), bool))
    for name, limit in (("feh_below_m1.5", -1.5), ("feh_below_m2", -2.0)):
        rows = _figures(one, mixture.mean, labels, labels[:, 2] < limit)
        if "feh" in rows:
            result[name] = rows["feh"]
    return result


def _figures(one: InstrumentEstimator, mean: np.ndarray, labels: np.ndarray, chosen: np.ndarray) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for i, name in enumerate(LABELS):
        residual = (from_scale(name, one.mean[i] + one.std[i] * mean[:, i]) - labels[:, i])[chosen]
        residual = residual[np.isfinite(residual)]
        if len(residual) >= 5:
            rows[name] = {"stars": len(residual), "sigma": round(robust_sigma(residual), 4),
                          "bias": round(float(np.median(residual)), 4)}
    return rows
