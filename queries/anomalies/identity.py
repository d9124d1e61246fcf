"""Are two spectra one star's? What every quantity says of it, added up as it is worth.

A wrong match shows a little in each of five quantities: of a sum, unlike of the score's high power,
weak signals add up and noise averages out. Each counts by its inverse hyperbolic sine, in proportion
while it is small and as its logarithm where it is far out, and by a weight of its own. The sum is a
log likelihood ratio: `python -m specclip_search.queries.anomalies.identity ATLAS` sets the weights by logistic
regression on a simulated survey with many wrong matches (`specclip-search simulate --rate wrong_match=0.04`, `embed`,
`estimate`, `translate`, `index build`, `anomalies`), its acceptance stars left out. Before
`specclip_search.queries.anomalies.weights`, and again whenever the shipped model changes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas

FILE = "identity.json"
IDENTITY = ("mutual", "disagreement", "color", "match", "labels")
LOW, HIGH = -3.0, 60.0
# where a quantity stops to count in proportion, in sigma
KNEE = 2.0
RIDGE = 1.0


@cache
def load_identity() -> tuple[float, ...]:
    """The shipped weights in the order of `IDENTITY`."""
    path = files(__package__).joinpath("weights", FILE)
    kept = json.loads(path.read_text(encoding="utf-8"))["weights"]
    return tuple(float(kept[name]) for name in IDENTITY)


def bent(z: np.ndarray) -> np.ndarray:
    """(N, m) arsinh of robust z over the knee, z held between -3 and 60."""
    return np.asarray(np.arcsinh(np.clip(z, LOW, HIGH) / KNEE), dtype=np.float64)


def identity_sum(z: np.ndarray) -> np.ndarray:
    """(N,) log likelihood ratio, but for a constant, of two stars against one.

    Parameters
    ----------
    z
        (N, 5) robust z in the order of `IDENTITY`; 0 where a quantity is not known.
    """
    return bent(z) @ np.array(load_identity())


def logistic_weights(values: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """(m,) weights of a logistic regression; a little ridge keeps them finite.

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
        If the atlas holds no simulated survey or no scores.
    """
    from specclip_search.keys import ACCEPTANCE_SPLIT, split_of

    from ..evaluation.truth import Truth

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


def main(arguments: Sequence[str]) -> None:
    """Fit on the named atlas and keep the weights beside this file."""
    from specclip_search.atlas import Atlas
    from specclip_search.atlas.files import whole_file

    content = fit_identity(Atlas(arguments[0]))
    with whole_file(Path(__file__).parent / "weights" / FILE) as temporary:
        Path(temporary).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
