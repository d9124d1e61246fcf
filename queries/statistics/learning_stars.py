"""Which validation stars teach the model's error, and which are the reference of p-values.

A table of errors fits the very stars it was learned from a little better than others; were they
also what others are ranked against, p-values would come out too small. So the stars are halved.
"""

from __future__ import annotations

import numpy as np

from specclip_search.keys import ACCEPTANCE_SPLIT, VALIDATION_SPLIT, split_of


def scattered(source_id: np.ndarray) -> np.ndarray:
    """(N,) uint64 that orders stars without regard to the sky, the same for ever (Fibonacci hashing)."""
    return (np.asarray(source_id, dtype=np.int64).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(16)


def teaches(source_id: np.ndarray) -> np.ndarray:
    """(N,) bool: whether a star belongs to the half that model errors are learned from."""
    return (scattered(source_id) >> np.uint64(20)) & np.uint64(1) == 1


def first_visits(source_id: np.ndarray) -> np.ndarray:
    """(N,) bool: one pair a star, so that a star seen many times does not count many times."""
    once = np.zeros(len(source_id), dtype=bool)
    once[np.unique(source_id, return_index=True)[1]] = True
    return once


def choose(source_id: np.ndarray, half: np.ndarray, enough: int) -> tuple[np.ndarray, str]:
    """(N,) bool: pairs of one half, one a star: of validation stars, else of all but acceptance stars.

    Parameters
    ----------
    half
        (N,) bool, `teaches` or its opposite.
    enough
        Fewer validation stars than this do not suffice.

    Returns
    -------
    The pairs, and ``validation`` or ``all but acceptance``; none where all are acceptance stars.
    """
    split = split_of(source_id)
    usable = first_visits(source_id) & half
    chosen = usable & (split == VALIDATION_SPLIT)
    if chosen.sum() >= enough:
        return chosen, "validation"
    return usable & (split != ACCEPTANCE_SPLIT), "all but acceptance"


def learners(source_id: np.ndarray, enough: int, most: int) -> tuple[np.ndarray, str]:
    """Rows of the stars that model errors are learned from, ascending, and of which split they are (see `choose`).

    Parameters
    ----------
    enough
        Fewer validation stars than this do not suffice.
    most
        No more rows than these: the same choice as a survey grows, from all over the sky.
    """
    able, label = choose(source_id, teaches(source_id), enough)
    chosen = np.flatnonzero(able)
    return np.sort(chosen[np.argsort(scattered(source_id[chosen]), kind="stable")[:most]]), label
