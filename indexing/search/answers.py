"""Answers of a search: choosing the best, leaving out the excluded, padding what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Strategy = Literal["flat", "ivfpq", "exact", "exact subset"]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Answers of one search.

    Attributes
    ----------
    rows
        (Q, k) int64, best first; -1 where there are fewer than k answers.
    similarity
        (Q, k) float32: cosine of the centred vectors; NaN where `rows` is -1.
    strategy
        How the answer was found; all but `ivfpq` are exact.
    """

    rows: np.ndarray
    similarity: np.ndarray
    strategy: Strategy


def best_places(scores: np.ndarray, k: int) -> np.ndarray:
    """Places of the k largest, best first, equals in their order."""
    if len(scores) <= k:
        return np.argsort(-scores, kind="stable")
    cut = np.partition(scores, len(scores) - k)[len(scores) - k]
    places = np.nonzero(scores >= cut)[0]
    return places[np.argsort(-scores[places], kind="stable")][:k]


def without(rows: np.ndarray, similarity: np.ndarray, banned: list[np.ndarray] | None,
            k: int) -> tuple[np.ndarray, np.ndarray]:
    """The first k answers that are not banned."""
    if banned is None:
        return rows[:, :k], similarity[:, :k]
    out_rows = np.full((len(rows), k), -1, np.int64)
    out = np.full((len(rows), k), -np.inf, np.float32)
    for number, ban in enumerate(banned):
        keep = np.nonzero(~np.isin(rows[number], ban))[0][:k]
        out_rows[number, : len(keep)] = rows[number, keep]
        out[number, : len(keep)] = similarity[number, keep]
    return out_rows, out


def as_result(rows: np.ndarray, similarity: np.ndarray, strategy: Strategy) -> SearchResult:
    # rounding may lift a cosine just above one
    clipped = np.where(rows < 0, np.float32(np.nan), np.minimum(similarity, np.float32(1)))
    return SearchResult(rows, clipped.astype(np.float32), strategy)
