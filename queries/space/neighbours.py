"""Nearest neighbours of many spectra at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from specclip_search.indexing.vectors.keys import KeyTable

    from .space import Space

SEARCH_ROWS = 512


def nearest_rows(
    space: Space, modality: str, rows: np.ndarray, k: int, tick: Callable[[int], None] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest spectra of other stars in the same instrument, for each of `rows`.

    All visits of the star itself are left out: forty spectra of one unusual star are no evidence
    that it is normal.

    Parameters
    ----------
    rows
        (N,) int64 rows of the instrument's vectors.

    Returns
    -------
    tuple of np.ndarray
        (N, k) int64 rows, padded with -1, and (N, k) float32 similarity, padded with 0.
    """
    found = np.full((len(rows), k), -1, dtype=np.int64)
    similarity = np.zeros((len(rows), k), dtype=np.float32)
    for block, near, cosine in nearest_blocks(space, modality, rows, k, tick):
        found[block], similarity[block] = near, cosine
    return found, similarity


def nearest_blocks(
    space: Space, modality: str, rows: np.ndarray, k: int, tick: Callable[[int], None] | None = None
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Results of `nearest_rows` for one block of `rows` at a time, with the block."""
    index, keys = space.index(modality), space.keys(modality)
    for start in range(0, len(rows), SEARCH_ROWS):
        block = slice(start, min(start + SEARCH_ROWS, len(rows)))
        own = rows[block]
        answer = index.search(index.vectors(own), k, query_modality=modality, exclude=own_rows(keys, own), centred=True)
        yield block, answer.rows, np.nan_to_num(answer.similarity)
        if tick is not None:
            tick(block.stop)


def own_rows(keys: KeyTable, rows: np.ndarray) -> np.ndarray:
    """(N, m) int64 rows of all spectra of each row's star, padded with -1; the row itself comes first."""
    visits, queries = keys.rows_of_sources(np.asarray(keys.source_id[rows]))
    place = np.arange(len(queries)) - np.searchsorted(queries, queries)
    own = np.full((len(rows), 2 + int(place.max(initial=-1))), -1, dtype=np.int64)
    own[:, 0] = rows
    own[queries, 1 + place] = visits
    return own
