"""Exact search: the k largest inner products over all rows or a subset, one block at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from ..vectors.float16 import to_single

Block = tuple[np.ndarray, np.ndarray]
"""Row numbers (n,) int64 and their vectors (n, dim), float32 or float16."""


class TopK:
    """Running top k of each query, updated with blocks of similarities.

    Ties go to the smaller row, so the result does not depend on the blocks.
    """

    def __init__(self, queries: int, k: int) -> None:
        self.rows = np.full((queries, k), -1, np.int64)
        self.similarity = np.full((queries, k), -np.inf, np.float32)

    def add(self, rows: np.ndarray, similarity: np.ndarray) -> None:
        """Update with (n,) rows and their (queries, n) similarities."""
        k = self.rows.shape[1]
        if similarity.shape[1] > 4 * k:
            rows, similarity = self._only_promising(rows, similarity, k)
        else:
            rows = np.broadcast_to(rows, similarity.shape)
        if similarity.shape[1]:
            self._merge(rows, similarity, k)

    def _only_promising(self, rows: np.ndarray, similarity: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The entries of a wide block that can enter the top k, padded to a rectangle."""
        threshold = self.similarity[:, -1]
        if np.isneginf(threshold).any():
            # ties with the k-th are kept here; the row number decides among them later
            cut = -np.partition(-similarity, k - 1, axis=1)[:, k - 1]
            threshold = np.maximum(threshold, cut)
        query, column = np.nonzero(similarity >= threshold[:, None])
        counts = np.bincount(query, minlength=len(similarity))
        place = np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)
        width = int(counts.max(initial=0))
        best_rows = np.full((len(similarity), width), -1, np.int64)
        best = np.full((len(similarity), width), -np.inf, np.float32)
        best_rows[query, place] = rows[column]
        best[query, place] = similarity[query, column]
        return best_rows, best

    def _merge(self, rows: np.ndarray, similarity: np.ndarray, k: int) -> None:
        all_rows = np.concatenate([self.rows, rows], axis=1)
        everything = np.concatenate([self.similarity, similarity], axis=1)
        # padding has row -1 and must come last among ties
        tie = np.where(all_rows < 0, np.iinfo(np.int64).max, all_rows)
        order = np.lexsort((tie, -everything), axis=1)[:, :k]
        self.rows = np.take_along_axis(all_rows, order, axis=1)
        self.similarity = np.take_along_axis(everything, order, axis=1)


def in_slices(matrix: np.ndarray, block_rows: int = 16384) -> Iterator[Block]:
    """A whole matrix as blocks of consecutive rows, numbered from 0."""
    for start in range(0, len(matrix), block_rows):
        part = matrix[start : start + block_rows]
        yield np.arange(start, start + len(part), dtype=np.int64), part


def exact_top_k(queries: np.ndarray, blocks: Iterable[Block], k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k rows of largest inner product with each query.

    Parameters
    ----------
    queries
        (Q, dim) float32.
    blocks
        Rows and vectors; each block is held only while it is searched.

    Returns
    -------
    rows, similarity
        (Q, k) int64, -1 where there are fewer than k rows; (Q, k) float32, -inf there.
    """
    best = TopK(len(queries), k)
    for rows, vectors in blocks:
        single = to_single(vectors) if vectors.dtype == np.float16 else vectors
        best.add(rows, queries @ single.T)
    return best.rows, best.similarity
