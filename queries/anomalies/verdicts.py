"""User verdicts on anomalies, stored in the atlas, and a ranking that learns from them.

A verdict also applies to similar stars: anomalous in the same quantities and nearby in the space. What the
user would say of a candidate is predicted by a Gaussian process (Rasmussen & Williams 2006, eq. 2.25)
from the stored verdicts, and shifts its score; far from all verdicts the prediction is zero and the score
is unchanged. Astronomaly (Lochner & Bassett 2021) does the same with a random forest. Measured gain:
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
# length scale of the kernel in pattern distance (between unit vectors)
PATTERN_WIDTH = 0.35
# fraction of the covariance that also requires nearby vectors (root of 1 - cosine)
VECTOR_SHARE, VECTOR_WIDTH = 0.9, 0.4
# variances relative to that of the prediction (1): of the user's mean verdict, and of a single verdict
MOOD, DOUBT = 1.0, 0.3
# the score changes by at most a factor e^1.5
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
    """Pairs with a verdict, each with its latest one."""

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
    """All verdicts stored in the atlas, in order of their ids."""
    stage = atlas.results(STAGE)
    if not stage.exists or not stage.parts():
        empty = np.empty(0, np.int64)
        return Verdicts(empty, empty, np.empty(0, object))
    table = stage.read()
    return Verdicts(
        table["lrs_spec_id"].to_numpy(), table["xp_spec_id"].to_numpy(), np.array(table["verdict"].to_pylist(), object)
    )


def record_verdict(atlas: Atlas, key: str, verdict: str) -> int:
    """Store a verdict for every scored pair of a spectrum given by its key; return the number of pairs.

    Raises
    ------
    QueryError
        If the key or verdict is invalid, or no pair of that spectrum has a score.
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
    """Store a verdict on a pair, replacing an earlier one.

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
    """(n, m) of unit length: pattern of anomalous quantities from (n, m) robust z, on a log scale."""
    patterns = np.log1p(np.maximum(np.asarray(z, dtype=np.float64), 0.0))
    return np.asarray(patterns / np.maximum(np.linalg.norm(patterns, axis=1, keepdims=True), 1e-9))


def learned_shift(vectors: np.ndarray, patterns: np.ndarray, judged: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Shift of candidates by verdicts, between -1 and 1; candidates with a verdict are shifted by that verdict.

    k_ij = exp(-|dp|^2 / 2 w^2) (1 - a + a exp(-(1 - cos) / 2 w_v^2)), shift = k (k_jj + doubt I)^-1 (v - mood).
    `mood` is the mean verdict, but never below 0: a user who likes everything shown may like the rest as
    well; a user who likes none of it wants something else, so dissimilar candidates must rise.

    Parameters
    ----------
    vectors
        (n, d) unit vectors of candidates (both instruments' side by side, each of length 1/sqrt 2).
    patterns
        (n, m) from `odd_patterns`.
    judged
        (v,) positions of candidates with a verdict.
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
