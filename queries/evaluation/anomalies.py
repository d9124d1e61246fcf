"""Evaluation of the anomaly search: recovery of injected anomalies by class, kind and S/N."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from specclip_search.simulation.samples.oddities import ODDITIES

from .measures import Measured, rank_correlation, ranked, share
from .parts import groups
from .truth import Truth

TOP_SHARES = (0.001, 0.01)
# the single quantity that finds a class best, as ranked by `anomalies --by`
FINDS = {
    "wrong_match": "identity", "emission": "emission", "double_lined": "double_lined", "carbon_star": "carbon",
    "carbon_enhanced": "lrs_rarity", "s_process": "s_process", "strong_alpha": "alpha", "hot_subdwarf": "helium",
    "bad_join": "join", "flux_calibration": "calibration",
}  # fmt: skip
FEWEST = 5  # anomalies of a class in a bin of S/N; bins with fewer are not reported


def strangeness(
    truth: Truth,
    obsid: np.ndarray,
    score: np.ndarray,
    source_id: np.ndarray,
    seed: int,
    quantities: Mapping[str, np.ndarray] | None = None,
) -> Iterator[Measured]:
    """How well scores separate anomalies from normal spectra, by class and kind, and correlations with nuisances.

    Parameters
    ----------
    quantities
        (N,) z by name, for the results of ranking by a single quantity.
    """
    row = truth.spectra(obsid)
    known = row >= 0
    own = {name: np.asarray(values)[known].astype(np.float64) for name, values in (quantities or {}).items()}
    obsid, score, source_id, row = (values[known] for values in (obsid, score, source_id, row))
    seen, snr = truth.seen[row], truth.snr[row]
    bins = [("", np.ones(len(row), dtype=bool))]
    bins += [(f", {name}", inside) for name, inside in groups(snr, source_id) if name != "all"]
    for name, positive in _classes(seen):
        for suffix, inside in bins:
            if positive[inside].sum() >= (FEWEST if suffix else 1):
                judged = inside & (positive | (seen == ""))
                yield from _found(name + suffix, score[judged], positive[judged], seed)
    for name, quantity in FINDS.items():
        judged = (seen == name) | (seen == "")
        if quantity in own and (seen == name).any():
            metric = f"average precision of the list by {quantity}"
            yield ranked(metric, name, own[quantity][judged], (seen == name)[judged], seed)
    normal = seen == ""
    star = truth.stars(source_id)
    numbers = {"S/N": snr} | {name: values[star] for name, values in truth.covariates().items()}
    for name, values in numbers.items():
        yield rank_correlation(f"anomaly score's rank correlation with {name}", "normal", score[normal], values[normal])


def _classes(seen: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Masks of all anomalies, of each kind and of each class."""
    kinds = np.array([ODDITIES.get(name, "") for name in seen], dtype=object)
    yield "any oddity", seen != ""
    for kind in dict.fromkeys(ODDITIES.values()):
        yield kind, kinds == kind
    for name in ODDITIES:
        yield name, seen == name


def _found(name: str, score: np.ndarray, positive: np.ndarray, seed: int) -> Iterator[Measured]:
    """Average precision, and recall in the top of a list of these anomalies and the normal spectra.

    Spectra of other classes are left out so that they do not lower the ranks of these.
    """
    yield ranked("anomaly average precision", name, score, positive, seed)
    for part in TOP_SHARES:
        yield share(f"anomaly recall in top {part:.1%}", name, score[positive] >= _limit(score, part))


def _limit(score: np.ndarray, part: float) -> float:
    """Score of the last entry within the top fraction of the list, at least one."""
    length = max(round(part * len(score)), 1)
    return float(np.partition(score, len(score) - length)[len(score) - length])
