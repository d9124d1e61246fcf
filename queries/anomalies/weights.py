"""How much each quantity counts in the anomaly score, and the command that sets it.

`python -m specclip_search.queries.anomalies.weights ATLAS` takes the stored quantities of a simulated survey
(`specclip-search simulate`, `embed`, `translate`, `index build`, `anomalies`), leaves its
acceptance stars out, learns how the tails of its normal pairs run on (see
`specclip_search.queries.statistics.tail_shape`), and
climbs, one weight after the other, to the largest mean of the average precisions of all classes of
oddity. It writes `weights/anomalies.json`. To be run again whenever the shipped model changes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..statistics.tail_shape import TailLaw, learn_tail

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas

FILE = "anomalies.json"
# of the fourth power: the tails of quantities differ by factors of up to six
STEPS = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
START = 0.5
ROUNDS = 6
LEAST_GAIN = 5e-4
# of the largest: what no simulated class shows, an oddity of XP alone for example, must still be seen
LEAST_WEIGHT = 0.03
# the list as a whole counts as much as this many classes, wrong matches as much as that many
ALL_COUNT, WRONG_COUNT = 4.0, 3.0


def load_weights(names: Sequence[str]) -> dict[str, float]:
    """The shipped weights in the order of `names`; a quantity that has none counts `START`."""
    kept = _kept().get("weights", {})
    return {name: float(kept.get(name, START)) for name in names}


def load_tails(names: Sequence[str]) -> list[TailLaw | None]:
    """The shipped laws of tails in the order of `names`; None where there is none."""
    kept = _kept().get("tails", {})
    return [TailLaw.from_json(kept[name]) if name in kept else None for name in names]


def _kept() -> dict[str, Any]:
    path = files(__package__).joinpath("weights", FILE)
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def climb(
    powers: np.ndarray, classes: np.ndarray, names: Sequence[str], starts: Sequence[dict[str, float]] = ()
) -> tuple[dict[str, float], float]:
    """Weights of the largest mean average precision that is reached from any start, and that mean.

    Parameters
    ----------
    powers
        (N, m) -log10 p of each quantity to the power that `specclip_search.queries.anomalies.scoring` takes.
    classes
        (N,) class of oddity, empty for a normal pair.
    starts
        Weights to climb from besides all alike.
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
    from ..evaluation.measures import average_precision

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
        If the atlas holds no simulated survey or no scores.
    """
    from specclip_search.keys import ACCEPTANCE_SPLIT, split_of

    from ..evaluation.truth import Truth
    from ..space.space import open_space
    from .anomalies import score_atlas
    from .local_quantities import NAMES
    from .scoring import POWER, quantity_parts

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
    largest = max(weights.values())  # of a common factor nothing depends but the score's size
    return {
        "weights": {name: round(max(weight / largest, LEAST_WEIGHT), 7) for name, weight in weights.items()},
        "tails": {name: tail.as_json() for name, tail in zip(NAMES, tails, strict=True) if tail is not None},
        "worth": round(reached, 4),
        "pairs": int(used.sum()),
        "odd": int((seen[used] != "").sum()),
        "model_digest": space.model_digest(),
    }


def main(arguments: Sequence[str]) -> None:
    """Fit on the named atlas and keep the weights beside this file."""
    from specclip_search.atlas import Atlas
    from specclip_search.atlas.files import whole_file

    content = fit_weights(Atlas(arguments[0]))
    with whole_file(Path(__file__).parent / "weights" / FILE) as temporary:
        Path(temporary).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
