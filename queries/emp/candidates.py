"""Candidates for extremely metal-poor stars: one calibrated probability a star, its evidence beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from specclip_search.errors import QueryError
from specclip_search.tables.provenance_part import stamp

from ..space.space import open_space
from .emp_store import store, top_rows
from .known_stars import read_known
from .scores import EmpScores, Progress, score_stars

if TYPE_CHECKING:
    import pandas as pd

    from specclip_search.atlas import Atlas

__all__ = ["EmpScores", "emp_candidates", "score_stars"]


def emp_candidates(
    atlas: Atlas,
    below: float = -3.0,
    known: Any = None,
    top: int = 100,
    model: str | None = None,
    *,
    builtin_seeds: bool = True,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Stars most likely to be of [Fe/H] < `below`.

    Parameters
    ----------
    below
        The metallicity asked for, between -6 and 0.
    known
        The user's own known metal-poor stars: a file or table with `source_id`, or `ra` and `dec`
        in degrees (matched within 3 arcsec), and `feh` where known.
    top
        How many rows to return.
    model
        Whose vectors; the active model by default.
    builtin_seeds
        Use the emulator's model spectra as reference stars, too.
    progress
        Called with (done, total, note).

    Returns
    -------
    pandas.DataFrame
        rank, source_id, lrs_spec_id, xp_spec_id, probability, feh (combined estimate), feh_err,
        the probabilities by each part alone (`p_...`: the model's estimator of either instrument, the
        XP networks, the neighbours), evidence of each instrument (`lrs_...`, `xp_...`: labelled
        neighbours' median and scatter, linear estimate, similarity to the nearest EMP seed, seeds
        among the neighbours, similarity to the nearest labelled star, what the estimators say), flags,
        then position and labels. A star's own label is never evidence for itself. `.attrs` holds
        model, digests, options, seeds and calibration.

    Raises
    ------
    QueryError
        If nothing is labelled and there are no seeds, or an argument is not usable.
    """
    if not -6.0 <= below <= 0.0:
        raise QueryError(f"below must lie between -6 and 0; found {below:g}.", "-3 is extremely, -2 very metal-poor.")
    if top < 1:
        raise QueryError(f"top must be at least 1; found {top}.", "Ask for one row or more.")
    space = open_space(atlas, model)
    known_stars = None if known is None else read_known(atlas, known)
    scores = score_stars(space, below, known_stars, builtin_seeds, progress)
    store(space, scores, below)
    frame = top_rows(space, scores, top)
    options = {
        "below": below,
        "known": None if known is None else str(known) if not hasattr(known, "columns") else "table",
        "top": top,
        "builtin_seeds": builtin_seeds,
    }
    return stamp(frame, "emp", options, **space.origin(), notes=scores.notes)
