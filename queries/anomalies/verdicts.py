"""The user's verdicts on anomalies, kept in the atlas, and a ranking that learns from them.

A verdict speaks for the stars that are alike: odd in the same way and nearby in the space. What the
user would say of a candidate is predicted by a Gaussian process (Rasmussen & Williams 2006, eq. 2.25)
from the verdicts given, and moves its score; far from all verdicts nothing is predicted and the score
stays. Astronomaly (Lochner & Bassett 2021) does the like with a forest. How much it helps:
tests/benchmarks/feedback.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from specclip_search.atlas.arrays import table_from_columns
from specclip_search.atlas.schemas import described
from specclip_search.errors import QueryError
from specclip_search.keys import parse_key
from specclip_search.surveys import LRS

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas

STAGE = "anomaly_verdicts"
VALUES = {"interesting": 1.0, "artifact": -1.0, "normal": -1.0}
# patterns this far apart are hardly alike: distance of unit vectors
PATTERN_WIDTH = 0.35
# of what two stars' verdicts have in common, so much asks that their vectors be near too (root of 1 - cosine)
VECTOR_SHARE, VECTOR_WIDTH = 0.9, 0.4
# variances beside that of the prediction, 1: of the user's mood, and of a single verdict
MOOD, DOUBT = 1.0, 0.3
# the score rises or sinks by up to a factor e^1.5
STRENGTH = 1.5

SCHEMA = pa.schema(
    [
        described("lrs_spec_id", pa.int64(), "LAMOST obsid of the pair", ucd="meta.id;meta.main"),
        described("xp_spec_id", pa.int64(), "Gaia XP spectrum of the pair", ucd="meta.id"),
        described("verdict", pa.string(), "interesting, artifact or normal, as a user judged"),
    ]
)


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Pairs that were judged, each with its latest verdict."""

    lrs_spec_id: np.ndarray
    xp_spec_id: np.ndarray
    verdict: np.ndarray

    def __len__(self) -> int:
        return len(self.verdict)

    @property
    def value(self) -> np.ndarray:
        """(n,) 1 for interesting, -1 for artifact and normal."""
        return np.array([VALUES[str(name)] for name in self.verdict], dtype=np.float64)


def read_verdicts(atlas: Atlas) -> Verdicts:
    """All verdicts kept in the atlas, in order of their ids."""
    stage = atlas.results(STAGE)
    if not stage.exists:
        empty = np.empty(0, np.int64)
        return Verdicts(empty, empty, np.empty(0, object))
    table = stage.read()
    return Verdicts(
        table["lrs_spec_id"].to_numpy(), table["xp_spec_id"].to_numpy(), np.array(table["verdict"].to_pylist(), object)
    )


def judge(atlas: Atlas, key: str, verdict: str) -> int:
    """Keep a verdict on every scored pair of a spectrum named by its key; their number.

    Raises
    ------
    QueryError
        If the key or verdict is not usable, or no pair of that spectrum has a score.
    """
    spectrum = parse_key(key)
    column = "lrs_spec_id" if spectrum.modality == LRS else "xp_spec_id"
    scores = atlas.results("anomalies")
    if not scores.exists:
        raise _nothing_to_judge()
    pairs = scores.read(["lrs_spec_id", "xp_spec_id"]).to_pydict()
    here = [i for i, value in enumerate(pairs[column]) if value == spectrum.spec_id]
    if not here:
        raise QueryError(f"{key} is in no pair that has an anomaly score.", "`anomalies` lists those that have.")
    for i in here:
        give_verdict(atlas, pairs["lrs_spec_id"][i], pairs["xp_spec_id"][i], verdict)
    return len(here)


def _nothing_to_judge() -> QueryError:
    return QueryError("The atlas holds no anomaly scores to judge.", "Run `specclip-search anomalies` first.")


def give_verdict(atlas: Atlas, lrs_spec_id: int, xp_spec_id: int, verdict: str) -> Verdicts:
    """Keep a verdict on a pair, in place of an earlier one on the same pair.

    Raises
    ------
    QueryError
        If the verdict is not one of interesting, artifact, normal, or the pair has no score.
    """
    if verdict not in VALUES:
        raise QueryError(f"A verdict is one of {', '.join(VALUES)}; found '{verdict}'.", "Choose one of these.")
    scores = atlas.results("anomalies")
    if not scores.exists:
        raise _nothing_to_judge()
    known = scores.read(["lrs_spec_id", "xp_spec_id"])
    here = (known["lrs_spec_id"].to_numpy() == lrs_spec_id) & (known["xp_spec_id"].to_numpy() == xp_spec_id)
    if not here.any():
        raise QueryError(
            f"There is no pair lamost:{lrs_spec_id} and gaia:{xp_spec_id} among the anomaly scores.",
            "Take both ids from one row of `specclip-search anomalies`.",
        )
    stage = atlas.results(STAGE)
    with stage.lock():
        old = read_verdicts(atlas)
        other = (old.lrs_spec_id != lrs_spec_id) | (old.xp_spec_id != xp_spec_id)
        lrs = np.append(old.lrs_spec_id[other], lrs_spec_id).astype(np.int64)
        xp = np.append(old.xp_spec_id[other], xp_spec_id).astype(np.int64)
        words = np.append(old.verdict[other], verdict)
        order = np.lexsort((xp, lrs))
        columns = {"lrs_spec_id": lrs[order], "xp_spec_id": xp[order], "verdict": words[order].tolist()}
        stage.write(0, table_from_columns(columns, SCHEMA), schema=SCHEMA, inputs="user")
    return read_verdicts(atlas)


def odd_patterns(z: np.ndarray) -> np.ndarray:
    """(n, m) of unit length: in what each of (n, m) robust z is odd; logarithms, lest the largest hide the others."""
    patterns = np.log1p(np.maximum(np.asarray(z, dtype=np.float64), 0.0))
    return np.asarray(patterns / np.maximum(np.linalg.norm(patterns, axis=1, keepdims=True), 1e-9))


def learned_shift(vectors: np.ndarray, patterns: np.ndarray, judged: np.ndarray, value: np.ndarray) -> np.ndarray:
    """How far verdicts move candidates, between -1 and 1; the judged ones go as far as their own verdict says.

    k_ij = exp(-|dp|^2 / 2 w^2) (1 - a + a exp(-(1 - cos) / 2 w_v^2)), shift = k (k_jj + doubt I)^-1 (v - mood).
    The mood is the mean verdict, but never below 0: who likes all that was shown may like the rest as
    well, and who likes nothing of it wants something else, so that what is unlike it rises.

    Parameters
    ----------
    vectors
        (n, d) unit vectors of candidates (both instruments' side by side, each of length 1/sqrt 2).
    patterns
        (n, m) from `odd_patterns`.
    judged
        (v,) positions of the judged ones among the candidates.
    value
        (v,) verdicts, 1 or -1.
    """
    if len(judged) == 0:
        return np.zeros(len(vectors))
    apart = 2.0 - 2.0 * patterns @ patterns[judged].T
    near = np.exp(-0.5 * (1.0 - vectors @ vectors[judged].T) / VECTOR_WIDTH**2)
    kernel = np.exp(-0.5 * apart / PATTERN_WIDTH**2) * (1.0 - VECTOR_SHARE + VECTOR_SHARE * near)
    given = kernel[judged] + DOUBT * np.eye(len(judged))
    ones, answer = np.linalg.solve(given, np.column_stack([np.ones(len(judged)), value])).T
    mood = max(float(answer.sum() / (ones.sum() + 1.0 / MOOD)), 0.0)
    shift = np.clip(kernel @ (answer - mood * ones), -1.0, 1.0)
    shift[judged] = value
    return np.asarray(shift)
