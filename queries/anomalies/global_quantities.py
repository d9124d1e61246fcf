"""Quantities of a pair that are compared with the whole atlas rather than with its neighbours.

Unusual stars of one kind are each other's neighbours. The measures from residual models (see
`specclip_search.queries.translation.residual_covariance`) and matched filters are therefore corrected for S/N,
colour, velocity and dust by running medians, and then compared with all stars.

* ``lrs_free``, ``xp_free``, ``lrs_own``, ``xp_own``: half the log of chi2 under the residual models;
* ``..._peak``: log of the strongest narrow feature in sigma;
* ``emission``, ``s_process``, ``alpha``, ``carbon``, ``helium``: matched filters, both kinds of
  residual averaged; for emission and carbon half of the XP value is added to that of LRS;
* ``double_lined``: improvement of the fit by a second, shifted set of lines;
* ``color``, ``calibration``, ``join``: raw LRS flux against XP in broad bands (see
  `specclip_search.queries.anomalies.broad_band`);
* ``match``: evidence that the spectra are of different stars (see `specclip_search.queries.anomalies.match_network`);
* ``labels``: chi2 of the labels that both vectors' estimators give, where the model has estimators;
* ``lrs_rarity``: how sparsely the LRS space is populated around a star, whatever its neighbours are
  (see `specclip_search.queries.anomalies.rarity`), corrected for S/N and velocity only;
* ``identity``: combination of these and the distances of `specclip_search.queries.anomalies.local_quantities`, see
  `specclip_search.queries.anomalies.identity`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from specclip_search.surveys import LRS, XP

from ..statistics.robust_trend import fit_trend
from ..translation.double_lined import LEAST_SECOND
from . import broad_band
from .match_network import mismatch
from .pair_table import PairTable
from .rarity import rarity

if TYPE_CHECKING:
    from ..space.space import Space

TOTALS = ("lrs_free", "lrs_own", "xp_free", "xp_own")
PEAKS = tuple(f"{name}_peak" for name in TOTALS)
FILTERS = ("emission", "s_process", "alpha", "carbon", "helium")
GLOBAL_NAMES = (
    *TOTALS, *PEAKS, *FILTERS, "double_lined", *broad_band.NAMES, "lrs_rarity", "match", "labels", "identity",
)  # fmt: skip
PLAIN_COVARIATES = 3
XP_SHARE = 0.5
COMPARED = ("teff", "logg", "feh")
LEAST_SPREAD = 1e-6


def global_quantities(space: Space, pairs: PairTable, learn: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Names and (N,) raw quantities, high for anomalies; unavailable ones are all 0. `learn` as in `quantities`.

    Yielded one at a time to limit memory.
    """
    for name in TOTALS:
        yield name, 0.5 * np.log(np.maximum(pairs.values[f"{name}_chi2"], 1e-6))
    for name in PEAKS:
        yield name, np.log(np.abs(pairs.values[name]) + 0.1)
    for name in FILTERS:
        xp = XP_SHARE * _pattern(pairs, "xp", name) if name in pairs.pattern_names["xp"] else 0.0
        yield name, _pattern(pairs, "lrs", name) + xp
    yield "double_lined", np.maximum(pairs.values["double_lined"], LEAST_SECOND)
    covariates = pairs.covariates[:, :PLAIN_COVARIATES]
    yield from broad_band.broad_band(pairs.lrs_sed, pairs.xp_sed, covariates, learn).items()
    yield from _from_vectors(space, pairs, learn)


def _pattern(pairs: PairTable, side: str, name: str) -> np.ndarray:
    """(N,) matched filter in sigma, averaged over both kinds of residual."""
    column = pairs.pattern_names[side].index(name)
    return np.asarray(0.5 * (pairs.patterns[f"{side}_free"][:, column] + pairs.patterns[f"{side}_own"][:, column]))


def standardised(raw: np.ndarray, covariates: np.ndarray, learn: np.ndarray) -> np.ndarray:
    """(N,) robust z corrected for S/N, colour, velocity and dust; 0 for a constant quantity."""
    if np.ptp(raw) < LEAST_SPREAD:
        return np.zeros(len(raw))
    trend = fit_trend(raw[learn], covariates[learn])
    return np.nan_to_num(trend.standardise(raw, covariates))


def _from_vectors(space: Space, pairs: PairTable, learn: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    lrs, xp = _reader(space, LRS, pairs.lrs_row), _reader(space, XP, pairs.xp_row)
    log_snr = pairs.covariates[:, :2]
    none = np.zeros(len(pairs))
    match = mismatch(lrs, xp, log_snr, pairs.source_id, (pairs.lrs_sed, pairs.xp_sed))
    yield "match", none if match is None else match
    yield "lrs_rarity", rarity(lrs, pairs.source_id, learn)
    labels = label_disagreement(space, pairs)
    yield "labels", none if labels is None else labels


def _reader(space: Space, modality: str, rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from pair indices to their float32 vectors."""
    index = space.index(modality)

    def read(chosen: np.ndarray) -> np.ndarray:
        return np.asarray(index.vectors(rows[chosen]), dtype=np.float32)

    return read


def label_disagreement(space: Space, pairs: PairTable) -> np.ndarray | None:
    """(N,) log of sum over Teff, log g and [Fe/H] of (LRS - XP)^2 / (their errors squared); None without estimates."""
    tables = {}
    for modality, rows in ((LRS, pairs.lrs_row), (XP, pairs.xp_row)):
        stage = space.atlas.estimates(modality, space.model)
        if not stage.exists or stage.rows != len(space.keys(modality)):
            return None
        names = [column for label in COMPARED for column in (label, f"{label}_err")]
        table = stage.read(names)
        tables[modality] = {name: table[name].to_numpy()[rows].astype(np.float64) for name in names}
    total = np.zeros(len(pairs))
    for label in COMPARED:
        apart = tables[LRS][label] - tables[XP][label]
        variance = tables[LRS][f"{label}_err"] ** 2 + tables[XP][f"{label}_err"] ** 2
        total += np.nan_to_num(apart**2 / np.maximum(variance, 1e-12))
    return np.log(total + 0.1)
