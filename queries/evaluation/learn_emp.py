"""Learn how the sources of the EMP probability combine.

    python -m specclip_search.queries.evaluation.learn_emp --atlas ATLAS

The atlas is the one the estimators were trained on (real labelled XP stars, LAMOST spectra
simulated for them, simulated metal-poor pairs), embedded with the model and indexed. Validation
stars alone are used: estimators were trained on the labels of training stars, and acceptance stars are
never touched. Run again whenever the model, its estimators or the XP networks change.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from specclip_search.atlas.files import write_json
from specclip_search.keys import VALIDATION_SPLIT, split_of
from specclip_search.simulation.samples.metal_poor import FIRST_SIMULATED_ID
from specclip_search.surveys import XP

from ..emp.combination import FILE, SOURCES, Combination, learn, to_json
from ..emp.estimates import log_odds
from ..emp.linear import folds_of
from ..emp.neighbour_estimate import neighbours_say
from ..emp.schema import INSTRUMENTS
from ..emp.scores import Evidence, gather_evidence
from ..space.space import Space, open_space
from ..views.labels import star_labels
from .measures import average_precision, ranked

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas

log = logging.getLogger(__name__)

# thresholds with real stars, and with simulated ones only
REAL_THRESHOLDS = (-2.0, -1.6, -1.8, -2.2)
MADE_THRESHOLDS = (-2.5, -3.0, -3.5)
THRESHOLDS = REAL_THRESHOLDS + MADE_THRESHOLDS
# XP alone first: the combination for neighbours without estimators is learned from it
PATTERNS = (("xp",), ("lrs",), ("lrs", "xp"))
JUDGED_AT = -2.0
NEIGHBOUR_STARS = 12_000


def calibrate(atlas: Atlas, model: str | None = None) -> dict[str, Any]:
    """Content of the file of combinations; see `emp_combination`."""
    space = open_space(atlas, model)
    return learn_all(space, gather_evidence(space, THRESHOLDS, only=_looked_at(space)))


def learn_all(space: Space, evidence: Evidence) -> dict[str, Any]:
    """The combinations for all sets of sources, from the evidence of many stars."""
    stars = evidence.stars
    made = stars.source_id >= FIRST_SIMULATED_ID
    label = star_labels(space.atlas, stars.source_id, ["feh"])["feh"]
    held = (stars.source_id >= 0) & (split_of(stars.source_id) == VALIDATION_SPLIT) & np.isfinite(label)
    found: dict[tuple[str, ...], Combination] = {}
    measured: dict[str, Any] = {}
    for sides in PATTERNS:
        odds = _seen_with(space, evidence, sides)
        for parts in _subsets(odds, held):
            if parts in found or len(parts) < 2:
                continue
            chosen = held & np.isfinite(odds[_places(parts), 0]).all(axis=0)
            found[parts] = _learned(parts, odds, chosen, label, made)
            measured[" + ".join(parts)] = _measured(parts, odds, chosen, label, made, stars.source_id)
    return to_json(list(found.values()), space.model_digest(), measured)


def _looked_at(space: Space) -> np.ndarray:
    """source_id of validation stars, and of enough real ones to calibrate the neighbour evidence."""
    ids = np.unique(np.concatenate([np.asarray(space.keys(name).source_id) for name in space.modalities]))
    ids = ids[ids >= 0]
    held = split_of(ids) == VALIDATION_SPLIT
    others = ids[~held & (ids < FIRST_SIMULATED_ID)]
    chosen = np.random.default_rng(0).choice(others, min(NEIGHBOUR_STARS, len(others)), replace=False)
    return np.concatenate([ids[held], chosen])


def _seen_with(space: Space, evidence: Evidence, sides: tuple[str, ...]) -> np.ndarray:
    """(4, thresholds, N) log-odds as if stars had spectra of these instruments only."""
    odds = evidence.odds.copy()
    if "lrs" not in sides:
        odds[0] = np.nan
    if "xp" not in sides:
        odds[1:3] = np.nan
    hidden = tuple(f"{side}_" for side in INSTRUMENTS if side not in sides)
    parts = {
        name: np.full(len(values), np.nan) if hidden and name.startswith(hidden) else values
        for name, values in evidence.parts.items()
    }
    for place, below in enumerate(THRESHOLDS):
        probability, feh, _ = neighbours_say(evidence.stars, parts, evidence.label, below, [])
        odds[3, place] = np.where(np.isfinite(feh), log_odds(probability), np.nan)
    return odds


def _subsets(odds: np.ndarray, held: np.ndarray) -> Iterator[tuple[str, ...]]:
    """The available sources, and those left if the model has no estimators."""
    there = tuple(name for i, name in enumerate(SOURCES) if np.isfinite(odds[i, 0, held]).any())
    yield there
    yield tuple(name for name in there if not name.endswith("estimator"))


def _places(parts: tuple[str, ...]) -> list[int]:
    return [SOURCES.index(name) for name in parts]


def _learned(
    parts: tuple[str, ...], odds: np.ndarray, chosen: np.ndarray, label: np.ndarray, made: np.ndarray
) -> Combination:
    """The combination from the chosen stars: real and simulated ones at their respective thresholds."""
    rows, below = [], []
    for place, threshold in enumerate(THRESHOLDS):
        mine = np.flatnonzero(chosen & (made if threshold in MADE_THRESHOLDS else ~made))
        rows.append(np.column_stack([np.full(len(mine), place), mine]))
        below.append(np.full(len(mine), threshold))
    at, limits = np.concatenate(rows), np.concatenate(below)
    values = odds[_places(parts)][:, at[:, 0], at[:, 1]]
    return learn(parts, values, limits, label[at[:, 1]] < limits, made[at[:, 1]])


def _measured(
    parts: tuple[str, ...], odds: np.ndarray, chosen: np.ndarray, label: np.ndarray, made: np.ndarray, ids: np.ndarray
) -> dict[str, Any]:
    """Cross-validated average precision on real validation stars at -2."""
    real = np.flatnonzero(chosen & ~made)
    poor = label[real] < JUDGED_AT
    score = np.empty(len(ids))
    fold = folds_of(ids, np.arange(len(ids)))
    for number in np.unique(fold[real]):
        judged = real[fold[real] == number]
        combination = _learned(parts, odds, chosen & (fold != number), label, made)
        score[judged] = combination.predict(odds[_places(parts), 0][:, judged], JUDGED_AT)
    whole = ranked("", "", score[real], poor, seed=0)
    single = {name: average_precision(odds[i, 0, real], poor) for name, i in zip(parts, _places(parts), strict=True)}
    return {
        "average_precision": [round(value, 3) for value in (whole.value, whole.low, whole.high)],
        "average_precision_alone": {name: round(value, 3) for name, value in single.items()},
        "stars": len(real),
        "poor": int(poor.sum()),
        "expected_poor": round(float(score[real].sum()), 1),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Learn how the sources of the EMP probability combine.")
    parser.add_argument("--atlas", type=Path, required=True, help=f"embedded, indexed atlas with labelled {XP} stars")
    parser.add_argument("--model", default=None)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent.parent / "emp" / "weights" / FILE)
    options = parser.parse_args(argv)
    from specclip_search.atlas import Atlas

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    content = calibrate(Atlas(options.atlas), options.model)
    write_json(options.output, content)
    log.info("%s", json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
