"""Label estimates of each star, by the model's estimators from its vectors and by the XP networks from the flux."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import ndtr

from specclip_search.errors import SpecclipError
from specclip_search.surveys import XP
from specclip_search.training.xp_metallicity.networks import load_network
from specclip_search.training.xp_metallicity.trees import LEAST_ODDS, load_trees, with_trees

from .schema import INSTRUMENTS
from .seeds import read_flux
from .stars import Stars

if TYPE_CHECKING:
    from ..space.space import Space

BLOCK_ROWS = 8192
ESTIMATED = ("est_feh", "est_feh_err", "est_teff", "est_teff_err", "est_c_fe", "est_c_fe_err")
NETWORK = ("net_feh", "net_feh_err", "net_c_fe", "net_c_fe_err")
# floor of the errors given by estimators
SMALLEST_SIGMA = 0.05


def tested_model(space: Space) -> Any:
    """The space's model; None if it cannot be loaded."""
    try:
        model = space.loaded_model()
    except (SpecclipError, OSError):
        return None
    from specclip_search.training.model import Model

    return model if isinstance(model, Model) else None


def estimator_of(space: Space) -> Any:
    """The estimators of the space's model; None if it has none, or must not be loaded."""
    model = tested_model(space)
    if model is None:
        return None
    from specclip_search.training.estimators.estimators import load_estimators

    return load_estimators(model)


def estimates(space: Space, stars: Stars, thresholds: tuple[float, ...]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Evidence columns by name, (N,) each, and log-odds of being below each threshold.

    Returns
    -------
    dict
        `<side>_est_feh` and the like for both instruments, `xp_net_feh` and the like; NaN if a
        star has no such spectrum or the model has no estimators.
    odds : np.ndarray
        (3, thresholds, N) log-odds by the LRS estimator, the XP estimator, the XP networks; NaN if missing.
    """
    names = [f"{side}_{name}" for side in INSTRUMENTS for name in ESTIMATED] + [f"xp_{name}" for name in NETWORK]
    parts = {name: np.full(len(stars), np.nan) for name in names}
    odds = np.full((3, len(thresholds), len(stars)), np.nan)
    estimator = estimator_of(space)
    for number, (side, modality) in enumerate(INSTRUMENTS.items()):
        if estimator is None or modality not in space.modalities or modality not in estimator.modalities:
            continue
        index = space.index(modality)
        for rows in _blocks(stars, modality):
            vectors = index.raw_vectors(stars.row[modality][rows])
            snr = stars.snr[modality][rows]
            found = estimator.estimate(modality, vectors, snr=snr)
            for name in ESTIMATED:
                parts[f"{side}_{name}"][rows] = found[name.removeprefix("est_")]
            for place, below in enumerate(thresholds):
                odds[number, place, rows] = log_odds(
                    estimator.probability_below(modality, vectors, "feh", below, snr=snr)
                )
    _network(space, stars, thresholds, parts, odds[2])
    return parts, odds


def _network(
    space: Space, stars: Stars, thresholds: tuple[float, ...], parts: dict[str, np.ndarray], odds: np.ndarray
) -> None:
    """Fill in the estimates of the XP networks, and the odds including the XP trees."""
    network = load_network()
    if network is None or XP not in space.modalities:
        return
    trees = load_trees()
    for rows in _blocks(stars, XP):
        flux = read_flux(space, XP, stars.row[XP][rows])
        found = network.estimate(flux, stars.source_id[rows])
        for name in NETWORK:
            parts[f"xp_{name}"][rows] = found[name.removeprefix("net_")]
        sigma = np.maximum(found["feh_err"], SMALLEST_SIGMA)
        for place, below in enumerate(thresholds):
            odds[place, rows] = log_odds(ndtr((below - found["feh"]) / sigma))
        if trees is not None:
            asked = np.flatnonzero(odds[:, rows].max(axis=0) > LEAST_ODDS)
            told = trees.estimate(flux[asked], stars.source_id[rows[asked]])
            for place, below in enumerate(thresholds):
                odds[place, rows[asked]] = with_trees(odds[place, rows[asked]], told, below)


def _blocks(stars: Stars, modality: str) -> list[np.ndarray]:
    """Stars with a spectrum of this instrument, in the order of its shards."""
    rows = np.flatnonzero(stars.has(modality))
    rows = rows[np.argsort(stars.row[modality][rows], kind="stable")]
    return [rows[start : start + BLOCK_ROWS] for start in range(0, len(rows), BLOCK_ROWS)]


def log_odds(probability: np.ndarray, limit: float = 1e-4) -> np.ndarray:
    """ln(p / (1 - p)), p limited to `limit` .. 1 - `limit`."""
    kept = np.clip(probability, limit, 1.0 - limit)
    return np.log(kept / (1.0 - kept))
