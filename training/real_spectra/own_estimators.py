"""LRS label estimators fitted to the user's own catalogue of labels.

The model's own estimators are the start: their networks are trained further on the catalogue's stars, held near
where they were, so that what the catalogue does not cover (metal-poor stars, labels it lacks) is not forgotten. Errors
are calibrated on held-out stars. Both estimators, before and after, are compared on these; the errors of the new
ones on each half of the stars with the calibration from the other half.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import nn

from specclip_search.atlas.arrays import column_to_matrix
from specclip_search.errors import QueryError
from specclip_search.keys import ACCEPTANCE_SPLIT, VALIDATION_SPLIT, split_of
from specclip_search.surveys import LRS

from ..estimators.calibration import Calibration, calibrate
from ..estimators.estimators import Estimators, InstrumentEstimator, load_estimators, save_estimators
from ..estimators.metrics import robust_sigma
from ..estimators.network import EstimatorModule, Mixture
from ..networks.label_scale import from_scale, sigma_from_scale, to_scale
from .adapt_atlas import LABELS, read_labels

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas

    from ..model import Model

FEWEST_TRAINING, FEWEST_HELD = 100, 30
EPOCHS, BATCH, RATE = 10, 128, 3e-4
NEARNESS = 0.02
"""Weight of the squared distance of the networks' weights from where they began."""
SEED = 1


@dataclass(frozen=True)
class OwnEstimators:
    """Result of `fit_to_catalogue`.

    Attributes
    ----------
    estimators
        As written beside the weights of the atlas's model.
    training, held
        Number of stars of the splits 0 to 7 and 8.
    comparison
        One row a label: `label`, `stars`, and `before` and `after`, each with scatter, bias and `within`, the share of
        residuals within the quoted error.
    """

    estimators: Estimators
    training: int
    held: int
    comparison: list[dict[str, Any]]


@dataclass(frozen=True)
class _Stars:
    """Vectors (N, dim), labels (N, 3) by `LABELS`, S/N (N,) and star (N,) of labelled spectra."""

    vectors: np.ndarray
    labels: np.ndarray
    snr: np.ndarray
    star: np.ndarray

    def take(self, rows: np.ndarray) -> _Stars:
        return _Stars(self.vectors[rows], self.labels[rows], self.snr[rows], self.star[rows])


def fit_to_catalogue(atlas: Atlas, model: Model, catalogue: str) -> OwnEstimators:
    """Fit a model's LRS estimators to a catalogue, and write them beside the weights in the atlas.

    Parameters
    ----------
    model
        One of the atlas; what is shipped is not changed.
    catalogue
        With `source_id` or `obsid`, and teff, logg or feh.

    Raises
    ------
    QueryError
        If the model is not the atlas's or has no estimators, or too few spectra have labels.
    """
    folder = atlas.model_folder(model.name)
    if model.folder is None or not folder.is_dir() or not folder.samefile(model.folder):
        raise QueryError(
            f"A model of this atlas was expected; '{model.name}' is not embedded there.",
            f"Embed with it first: specclip-search embed --model {model.name} --atlas {atlas.path}",
        )
    before = load_estimators(model)
    if before is None or LRS not in before.modalities:
        raise QueryError(
            f"Estimators to begin with were expected; '{model.name}' has none of {LRS} spectra.",
            f"Train them on labelled stars: specclip-search train estimators --model {model.name} "
            f"--atlas {atlas.path}",
        )
    stars = _labelled_vectors(atlas, model, catalogue)
    split = split_of(stars.star)
    train, held = (stars.take(np.flatnonzero(rows)) for rows in (split < VALIDATION_SPLIT, split == VALIDATION_SPLIT))
    if len(train.star) < FEWEST_TRAINING or len(held.star) < FEWEST_HELD:
        raise QueryError(
            f"At least {FEWEST_TRAINING} stars to train (splits 0 to 7) and {FEWEST_HELD} to judge (split 8) were "
            f"expected; {len(train.star)} and {len(held.star)} {LRS} spectra have labels in '{catalogue}'.",
            "Ingest more labelled spectra, or use the estimators as they are.",
        )
    one = before.instruments[LRS]
    module = _trained(one, train)
    after = replace(one, module=module, calibration=_calibrated(one, module, held))
    comparison = _compared(one, after, held)
    metrics = {**before.metrics, "own_catalogue": {
        "catalogue": catalogue, "training_stars": len(train.star), "validation_stars": len(held.star),
        "comparison": comparison, "began_with": before.digest}}  # fmt: skip
    written = save_estimators(folder, model.digest, {**before.instruments, LRS: after}, metrics)
    return OwnEstimators(written, len(train.star), len(held.star), comparison)


def _labelled_vectors(atlas: Atlas, model: Model, catalogue: str) -> _Stars:
    """Vectors of the LRS with labels outside the acceptance split."""
    labels = read_labels(atlas, catalogue)
    by_star, by_spectrum = labels.get("source_id", {}), labels.get("obsid", {})
    stage, found = atlas.vectors(model.name, LRS), []
    if not stage.exists:
        raise stage.missing()
    for part in stage.parts():
        if part.extra.get("model_digest") != model.digest:
            raise QueryError(
                f"Vectors of the weights {model.digest[:19]} were expected; {part.path} holds others.",
                f"Run: specclip-search embed --model {model.name} --atlas {atlas.path}",
            )
        table = pq.read_table(part.path, columns=["spec_id", "source_id", "release", "vector"])
        spec_id, source_id, release = (table[name].to_pylist() for name in ("spec_id", "source_id", "release"))
        own = [by_star.get(star) or by_spectrum.get(number) for star, number in zip(source_id, spec_id, strict=True)]
        star = np.array([number if star is None or star < 0 else star
                         for star, number in zip(source_id, spec_id, strict=True)], np.int64)  # fmt: skip
        rows = np.flatnonzero([one is not None for one in own] & (split_of(star) != ACCEPTANCE_SPLIT))
        known = _snr(atlas, part.number)
        snr = [known.get((spec_id[row], release[row]), np.nan) for row in rows]
        values = np.array([own[row] for row in rows], np.float64).reshape(-1, len(LABELS))
        vectors = column_to_matrix(table["vector"])[rows].astype(np.float32)
        found.append(_Stars(vectors, values, np.array(snr, np.float64), star[rows]))
    return _Stars(*(np.concatenate([getattr(one, name.name) for one in found]) for name in fields(_Stars)))


def _snr(atlas: Atlas, number: int) -> dict[tuple[int, str | None], float]:
    path = atlas.spectra(LRS).parquet_path(number)
    if not path.exists():
        return {}
    table = pq.read_table(path, columns=["spec_id", "release", "snr"])
    keys = zip(table["spec_id"].to_pylist(), table["release"].to_pylist(), strict=True)
    return {key: np.nan if snr is None else snr for key, snr in zip(keys, table["snr"].to_pylist(), strict=True)}


def _target(one: InstrumentEstimator, labels: np.ndarray) -> np.ndarray:
    """(N, labels of the estimator) standardised, NaN where the catalogue says nothing."""
    target = np.full((len(labels), len(one.labels)), np.nan)
    for column, name in enumerate(LABELS):
        if name in one.labels:
            i = one.labels.index(name)
            target[:, i] = (to_scale(name, labels[:, column]) - one.mean[i]) / one.std[i]
    return target


def _trained(one: InstrumentEstimator, stars: _Stars) -> EstimatorModule:
    """The networks trained further; rounded to float16, as they are stored."""
    module = copy.deepcopy(one.module)
    with torch.no_grad():
        x = module.seen(module.coordinates(torch.from_numpy(stars.vectors)))
    y = torch.from_numpy(_target(one, stars.labels).astype(np.float32))
    torch.manual_seed(SEED)
    for number, member in enumerate(module.members):
        rng = np.random.default_rng([SEED, number])
        member.requires_grad_(True).train()
        began = [parameter.detach().clone() for parameter in member.parameters()]
        optimiser = torch.optim.Adam(member.parameters(), RATE)
        for _ in range(EPOCHS):
            for rows in torch.from_numpy(rng.permutation(len(x))).split(BATCH):
                moved = sum((p - q).square().sum() for p, q in zip(member.parameters(), began, strict=True))
                loss = member.loss(x[rows], y[rows]).sum(1).mean() + NEARNESS * moved  # type: ignore[operator]
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(member.parameters(), 5.0)
                optimiser.step()
    for parameter in module.parameters():
        parameter.data = parameter.data.half().float()
    return module.eval().requires_grad_(False)


def _calibrated(one: InstrumentEstimator, module: EstimatorModule, learn: _Stars) -> Calibration:
    """Calibration from the stars `learn` of the labels that they have; of others as before."""
    raw, target = module.run(learn.vectors)[1], _target(one, learn.labels)
    found, kept = calibrate(LRS, raw, target, learn.snr), one.calibration
    own = np.isfinite(target).any(axis=0)
    classes = {name: (edges, np.where(own, 1.0, factors)) for name, (edges, factors) in kept.classes.items()}
    return Calibration(
        found.edges, np.where(own, found.factors, kept.factors), np.where(own[:, None], found.knots, kept.knots),
        np.where(own[:, None], found.offsets, kept.offsets), classes,
    )  # fmt: skip


def _compared(before: InstrumentEstimator, after: InstrumentEstimator, held: _Stars) -> list[dict[str, Any]]:
    half = np.random.default_rng(SEED).permutation(len(held.star)) % 2 == 0
    told = {"before": _values(before, held)}
    values, errors = (np.full((len(held.star), len(after.labels)), np.nan) for _ in range(2))
    for own in (half, ~half):
        calibration = _calibrated(before, after.module, held.take(np.flatnonzero(~own)))
        values[own], errors[own] = _values(replace(after, calibration=calibration), held.take(np.flatnonzero(own)))
    told["after"] = (values, errors)
    rows = []
    for column, name in enumerate(LABELS):
        truth = held.labels[:, column]
        known = np.isfinite(truth)
        if name not in after.labels or not known.any():
            continue
        i = after.labels.index(name)
        row: dict[str, Any] = {"label": name, "stars": int(known.sum())}
        for side, (value, error) in told.items():
            residual = (value[:, i] - truth)[known]
            row[side] = {"scatter": round(robust_sigma(residual), 4), "bias": round(float(np.median(residual)), 4),
                         "within": round(float(np.mean(np.abs(residual) <= error[known, i])), 4)}  # fmt: skip
        rows.append(row)
    return rows


def _values(one: InstrumentEstimator, stars: _Stars) -> tuple[np.ndarray, np.ndarray]:
    """(N, labels) estimates and their errors in the labels' units."""
    mixture: Mixture = one.posterior(LRS, stars.vectors, stars.snr)[1]
    mean, sigma = mixture.mean, mixture.sigma
    value = np.stack([from_scale(n, one.mean[i] + one.std[i] * mean[:, i]) for i, n in enumerate(one.labels)], axis=1)
    error = [sigma_from_scale(n, value[:, i], one.std[i] * sigma[:, i]) for i, n in enumerate(one.labels)]
    return value, np.stack(error, axis=1)
