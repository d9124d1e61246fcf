"""Learn the weights of the anomaly score from simulated surveys of known truth.

    python -m specclip_search.queries.evaluation.learn_weights identity ATLAS
    python -m specclip_search.queries.evaluation.learn_weights anomalies ATLAS

`identity` fits a logistic regression of wrong matches on the quantities that indicate different stars, on a
simulated survey with many wrong matches (`specclip-search simulate --rate wrong_match=0.04`). `anomalies` then learns
the tails of normal pairs (see `specclip_search.queries.statistics.tail_shape`) and maximises, one weight after
the other, the mean of the average precisions of all anomaly classes. Both use the quantities that
`specclip-search anomalies` stored, leave out acceptance stars, and must be run again whenever the shipped model
changes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from specclip_search.atlas.files import whole_file
from specclip_search.keys import ACCEPTANCE_SPLIT, split_of

from ..anomalies import identity, weights
from ..anomalies.anomalies import score_atlas
from ..anomalies.identity import IDENTITY, bent
from ..anomalies.local_quantities import NAMES
from ..anomalies.scoring import POWER, quantity_parts
from ..anomalies.weights import START, load_weights
from ..space.space import open_space
from ..statistics.tail_shape import learn_tail
from .measures import average_precision
from .truth import Truth

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas

# initial weights of the fourth powers: the tails of quantities differ by factors of up to six
STEPS = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
ROUNDS = 6
LEAST_GAIN = 5e-4
# minimum relative to the largest: anomalies that no simulated class covers, e.g. in XP alone, must still count
LEAST_WEIGHT = 0.03
# weights, in classes, of the list as a whole and of wrong matches
ALL_COUNT, WRONG_COUNT = 4.0, 3.0
RIDGE = 1.0


def climb(
    powers: np.ndarray, classes: np.ndarray, names: Sequence[str], starts: Sequence[dict[str, float]] = ()
) -> tuple[dict[str, float], float]:
    """Weights with the largest mean average precision reached from any start, and that mean.

    Parameters
    ----------
    powers
        (N, m) -log10 p of each quantity to the power used in `specclip_search.queries.anomalies.scoring`.
    classes
        (N,) anomaly class, empty for a normal pair.
    starts
        Initial weights to start from, in addition to equal ones.
    """
    from_all = [dict.fromkeys(map(str, names), START), *starts]
    return max((_climb(powers, classes, names, start) for start in from_all), key=lambda found: found[1])


def _climb(
    powers: np.ndarray, classes: np.ndarray, names: Sequence[str], start: dict[str, float]
) -> tuple[dict[str, float], float]:
    weights = np.array([start[str(name)] for name in names])
    total = powers @ weights
    best = worth(total, classes)
    for _ in range(ROUNDS):
        before = best
        for j in range(len(names)):
            rest = total - weights[j] * powers[:, j]
            for step in STEPS:
                value = worth(rest + step * powers[:, j], classes)
                if value > best + LEAST_GAIN:
                    best, weights[j], total = value, step, rest + step * powers[:, j]
        if best - before < LEAST_GAIN:
            break
    return dict(zip(map(str, names), weights.tolist(), strict=True)), best


def worth(score: np.ndarray, classes: np.ndarray) -> float:
    """Weighted mean of the average precisions of every class against the normal pairs, and of all together."""
    normal, total, count = score[classes == ""], 0.0, 0.0
    for name in (*np.unique(classes[classes != ""]), None):
        own = score[classes != ""] if name is None else score[classes == name]
        share = ALL_COUNT if name is None else WRONG_COUNT if name == "wrong_match" else 1.0
        positive = np.arange(len(own) + len(normal)) < len(own)
        total += share * average_precision(np.concatenate([own, normal]), positive)
        count += share
    return total / count


def fit_weights(atlas: Atlas, model: str | None = None) -> dict[str, object]:
    """Weights from a simulated survey's stored quantities, with what they were learned from.

    Raises
    ------
    QueryError
        If the atlas has no simulated survey or no scores.
    """
    space = open_space(atlas, model)
    score_atlas(space)
    truth = Truth.read(atlas)
    stored = atlas.results("anomalies").read(["lrs_spec_id", "source_id", *(f"z_{name}" for name in NAMES)])
    z = np.column_stack([stored[f"z_{name}"].to_numpy() for name in NAMES]).astype(np.float64)
    star = stored["source_id"].to_numpy()
    row = truth.spectra(stored["lrs_spec_id"].to_numpy())
    seen = np.where(row >= 0, truth.seen[np.maximum(row, 0)], "")
    used = (row >= 0) & (split_of(star) != ACCEPTANCE_SPLIT)
    tails = [learn_tail(column) for column in z[used & (seen == "")].T]
    parts = quantity_parts(z, star, tails)
    weights, reached = climb(parts[used] ** POWER, seen[used].astype(str), NAMES, [load_weights(NAMES)])
    largest = max(weights.values())  # a common factor only scales the score
    return {
        "weights": {name: round(max(weight / largest, LEAST_WEIGHT), 7) for name, weight in weights.items()},
        "tails": {name: tail.as_json() for name, tail in zip(NAMES, tails, strict=True) if tail is not None},
        "worth": round(reached, 4),
        "pairs": int(used.sum()),
        "odd": int((seen[used] != "").sum()),
        "model_digest": space.model_digest(),
    }


def logistic_weights(values: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """(m,) weights of a logistic regression; a small ridge term keeps them finite.

    Parameters
    ----------
    values
        (N, m).
    positive
        (N,) bool.
    """
    from scipy.optimize import minimize

    columns = np.concatenate([values, np.ones((len(values), 1))], axis=1)
    ridge = np.append(np.full(values.shape[1], RIDGE), 0.0)

    def loss(found: np.ndarray) -> tuple[float, np.ndarray]:
        logit = columns @ found
        chance = 1.0 / (1.0 + np.exp(-np.clip(logit, -50.0, 50.0)))
        value = np.logaddexp(0.0, logit).sum() - logit[positive].sum() + 0.5 * (ridge * found**2).sum()
        return float(value), columns.T @ (chance - positive) + ridge * found

    return np.asarray(minimize(loss, np.zeros(columns.shape[1]), jac=True, method="L-BFGS-B").x[:-1])


def fit_identity(atlas: Atlas) -> dict[str, object]:
    """Weights from a simulated survey's stored quantities, with what they were learned from.

    Raises
    ------
    QueryError
        If the atlas has no simulated survey or no scores.
    """
    truth = Truth.read(atlas)
    stored = atlas.results("anomalies").read(["lrs_spec_id", "source_id", *(f"z_{name}" for name in IDENTITY)])
    row = truth.spectra(stored["lrs_spec_id"].to_numpy())
    seen = np.where(row >= 0, truth.seen[np.maximum(row, 0)], "other")
    used = np.isin(seen, ("", "wrong_match")) & (split_of(stored["source_id"].to_numpy()) != ACCEPTANCE_SPLIT)
    z = np.column_stack([stored[f"z_{name}"].to_numpy()[used] for name in IDENTITY]).astype(np.float64)
    wrong = seen[used] == "wrong_match"
    weights = logistic_weights(bent(np.nan_to_num(z)), wrong)
    return {
        "weights": {name: round(float(weight), 3) for name, weight in zip(IDENTITY, weights, strict=True)},
        "pairs": len(wrong),
        "wrong_matches": int(wrong.sum()),
    }


_FITS: dict[str, tuple[Callable[[Atlas], dict[str, object]], Path]] = {
    "identity": (fit_identity, Path(identity.__file__).parent / "weights" / identity.FILE),
    "anomalies": (fit_weights, Path(weights.__file__).parent / "weights" / weights.FILE),
}


def main(arguments: Sequence[str]) -> None:
    """Fit the weights named by the first argument on the atlas given by the second, and save them in the package."""
    from specclip_search.atlas import Atlas

    fit, path = _FITS[arguments[0]]
    content = fit(Atlas(arguments[1]))
    with whole_file(path) as temporary:
        Path(temporary).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
