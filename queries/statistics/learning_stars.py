"""Split of validation stars into a half to learn model errors from and a reference half for p-values.

Model errors fit the stars they were learned from slightly better than others. If the same stars were
the reference for ranks, p-values would be too small.
"""

from __future__ import annotations

import numpy as np

from specclip_search.keys import ACCEPTANCE_SPLIT, VALIDATION_SPLIT, split_of


def scattered(source_id: np.ndarray) -> np.ndarray:
    """(N,) uint64 hash that orders stars independently of position, always the same (Fibonacci hashing)."""
    return (np.asarray(source_id, dtype=np.int64).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(16)


def in_learning_half(source_id: np.ndarray) -> np.ndarray:
    """(N,) bool: whether a star is in the half that model errors are learned from."""
    return (scattered(source_id) >> np.uint64(20)) & np.uint64(1) == 1


def first_visits(source_id: np.ndarray) -> np.ndarray:
    """(N,) bool: the first pair of each star, so that repeated visits do not count more than once."""
    once = np.zeros(len(source_id), dtype=bool)
    once[np.unique(source_id, return_index=True)[1]] = True
    return once


def pairs_in_half(source_id: np.ndarray, half: np.ndarray, enough: int) -> tuple[np.ndarray, str]:
    """(N,) bool: pairs in one half, one per star, from validation stars or else from all but acceptance stars.

    Parameters
    ----------
    half
        (N,) bool, `in_learning_half` or its negation.
    enough
        Minimum number of validation stars.

    Returns
    -------
    The pairs, and ``validation`` or ``all but acceptance``; none if all are acceptance stars.
    """
    split = split_of(source_id)
    usable = first_visits(source_id) & half
    chosen = usable & (split == VALIDATION_SPLIT)
    if chosen.sum() >= enough:
        return chosen, "validation"
    return usable & (split != ACCEPTANCE_SPLIT), "all but acceptance"


def learning_rows(source_id: np.ndarray, enough: int, most: int) -> tuple[np.ndarray, str]:
    """Rows of the stars to learn model errors from, ascending, and their split (see `pairs_in_half`).

    Parameters
    ----------
    enough
        Minimum number of validation stars.
    most
        Maximum number of rows; a stable choice as a survey grows, spread over the sky.
    """
    able, label = pairs_in_half(source_id, in_learning_half(source_id), enough)
    chosen = np.flatnonzero(able)
    return np.sort(chosen[np.argsort(scattered(source_id[chosen]), kind="stable")[:most]]), label
