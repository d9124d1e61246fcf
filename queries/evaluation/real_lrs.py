"""How well the labels, the neighbours and the partners of real LAMOST and MILES spectra are found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from specclip_search.errors import QueryError
from specclip_search.surveys import GAIA_XP, LAMOST_LRS, LRS, XP
from specclip_search.surveys.batch import prepare_arrays
from specclip_search.training.estimators.estimators import load_estimators
from specclip_search.training.estimators.metrics import robust_sigma
from specclip_search.training.estimators.star_test import load_star_test, unlike_training
from specclip_search.training.real_spectra.spectra import LAMOST, MASK_BIT, RealSpectra

from ..views.labels import row_labels
from .measures import Measured, middle, scatter, share

if TYPE_CHECKING:
    from specclip_search.training.model import Model

    from ..space.space import Space

UNITS = {"teff": "K", "logg": "dex", "feh": "dex", "rv": "km/s"}
PLACES = {"teff": 0, "logg": 1, "feh": 2, "rv": 5}
COMPARED = ("teff", "logg", "feh")
NEIGHBOURS = 20
FEWEST = 5
"""Fewest spectra of a range that figures are given of."""
PAIRS_FILE = Path("pairs") / "real_pairs_lrs_xp.npz"


def groups(real: RealSpectra) -> dict[str, np.ndarray]:
    """(N,) bool by name: the ranges that figures are given of, held-out spectra alone."""
    teff, feh, snr = real.labels[:, 0], real.labels[:, 2], real.snr
    use = real.held & real.labelled
    lamost, ordinary = use & (real.origin == LAMOST), (teff > 4000) & (teff < 7000)
    result = {"LAMOST, 4000 to 7000 K, S/N above 20": lamost & ordinary & (snr > 20)}
    for low, high in ((0, 10), (10, 20), (20, 40), (40, 80), (80, np.inf)):
        result[f"LAMOST, 4000 to 7000 K, S/N {low} to {high:g}"] = lamost & ordinary & (snr > low) & (snr <= high)
    for low, high in ((4000, 5000), (5000, 6000), (6000, 7000), (7000, 8500), (8500, 12000)):
        result[f"LAMOST, {low} to {high} K, S/N above 20"] = lamost & (teff > low) & (teff <= high) & (snr > 20)
    result["LAMOST, [Fe/H] below -1.5"] = lamost & (feh < -1.5)
    result["MILES, 4000 to 7800 K"] = use & (real.origin != LAMOST) & (teff > 4000) & (teff < 7800)
    return {name: rows for name, rows in result.items() if rows.sum() >= FEWEST}


def label_figures(model: Model, real: RealSpectra, seed: int) -> Iterator[Measured]:
    """Scatter and bias of estimates against the catalogue, and the share of residuals within the quoted error.

    Raises
    ------
    QueryError
        If the model has no label estimators of LAMOST spectra.
    """
    estimators = load_estimators(model)
    if estimators is None or LRS not in estimators.modalities:
        raise QueryError(
            f"Label estimators of LAMOST spectra were expected; model '{model.name}' has none.",
            f"Train them: specclip-search train estimators --atlas ATLAS --model {model.name}",
        )
    snr = np.where(real.origin == LAMOST, real.snr, np.nan)
    found = estimators.estimate(LRS, model.embed(LRS, real.inputs), snr)
    for group, rows in groups(real).items():
        for name, column in PLACES.items():
            if name == "rv" and not group.startswith("LAMOST"):
                continue
            residual = (found[name] - real.labels[:, column])[rows]
            if np.isfinite(residual).sum() < FEWEST:
                continue
            unit = UNITS[name]
            yield scatter(f"LRS {name} scatter [{unit}]", group, residual, robust_sigma, seed)
            yield middle(f"LRS {name} bias [{unit}]", group, residual)
            inside = (np.abs(residual) <= found[f"{name}_err"][rows])[np.isfinite(residual)]
            yield share(f"LRS {name} within stated error", group, inside)


def neighbour_figures(model: Model, real: RealSpectra, space: Space, seed: int) -> Iterator[Measured]:
    """Median labels of the 20 nearest real XP stars against those of the LRS."""
    labels = row_labels(space.atlas, space.keys(XP), XP, COMPARED)
    if any(name not in labels for name in COMPARED):
        raise QueryError(
            f"A catalogue with teff, logg and feh of the {XP} stars was expected; "
            f"the atlas has {', '.join(sorted(labels)) or 'no such labels'}.",
            "Ingest one: specclip-search ingest library --stars all --atlas DIR",
        )
    values = np.stack([labels[name] for name in COMPARED], axis=1)
    library = np.flatnonzero(np.isfinite(values).all(axis=1))
    if len(library) < NEIGHBOURS:
        raise QueryError(
            f"At least {NEIGHBOURS} {XP} stars with labels were expected; the atlas has {len(library)}.",
            "Ingest more: specclip-search ingest library --stars all --atlas DIR",
        )
    answer = space.index(XP).search(
        model.embed(LRS, real.inputs), NEIGHBOURS, query_modality=LRS, rows=library
    )
    near = np.median(values[answer.rows], axis=1) - real.labels[:, :3]
    for group, rows in groups(real).items():
        for column, name in enumerate(COMPARED):
            metric = f"{NEIGHBOURS} nearest XP stars' {name}"
            yield scatter(f"{metric} scatter [{UNITS[name]}]", group, near[rows, column], robust_sigma, seed)
            yield middle(f"{metric} bias [{UNITS[name]}]", group, near[rows, column])


def flag_figures(model: Model, real: RealSpectra) -> Iterator[Measured]:
    """Share of spectra flagged as unlike training stars, of held-out stars and of what the survey calls no star."""
    if load_star_test(model) is None:
        return
    flagged = unlike_training(model, LRS, real.inputs, real.errors, model.embed(LRS, real.inputs), real.snr)
    for group, rows in (
        ("LAMOST stars, held out", real.held & real.labelled & (real.origin == LAMOST)),
        ("MILES stars, held out", real.held & (real.origin != LAMOST)),
        ("LAMOST GALAXY, QSO or Unknown", ~real.is_star),
    ):
        yield share("flagged object_unlike_training", group, flagged[rows])


def pair_figures(model: Model, path: Path, space: Space) -> Iterator[Measured]:
    """Place of the own XP spectrum of each star with both real spectra, and the cosine of the two."""
    with np.load(path, allow_pickle=False) as archive:
        wave = 10.0 ** (float(archive["loglam0"]) + float(archive["dloglam"]) * np.arange(archive["lrs_flux"].shape[1]))
        ivar = np.where(archive["lrs_mask"] & MASK_BIT, 0.0, archive["lrs_ivar"])
        lrs = prepare_arrays(LAMOST_LRS, wave, archive["lrs_flux"], ivar).flux
        xp = GAIA_XP.prepare(archive["xp_wave_nm"], archive["xp_flux"]).astype(np.float32)
        star = archive["source_id"].astype(np.int64)
    keys, index = space.keys(XP), space.index(XP)
    a, b = index.centred(model.embed(LRS, lrs), LRS), index.centred(model.embed(XP, xp), XP)
    own = (a * b).sum(axis=1)
    ids = np.asarray(keys.source_id)
    above = np.zeros(len(star))
    for start in range(0, len(ids), 8192):
        rows = np.arange(start, min(start + 8192, len(ids)))
        other = ids[rows][None, :] != star[:, None]
        above += ((a @ index.vectors(rows).T > own[:, None]) & other).sum(axis=1)
    for i, number in enumerate(star):
        yield Measured(f"place of the own XP among {len(ids):,}", f"gaia:{number}", above[i] + 1, np.nan, np.nan, 1)
        yield Measured("cosine of the own two spectra", f"gaia:{number}", float(own[i]), np.nan, np.nan, 1)
