"""The list of one instrument's oddest spectra, as a user sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from specclip_search.errors import QueryError
from specclip_search.tables.provenance_part import stamp

from ..space.pairs import LRS
from ..space.space import open_space
from ..translation.law_columns import PATTERNS, UNITS
from .one_instrument import WithinScores, score_within
from .reasons import PATTERN_WORDS

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from specclip_search.atlas import Atlas

CLEAR_Z = 4.0


def anomalies_within(
    atlas: Atlas,
    modality: str,
    top: int = 100,
    model: Any = None,
    k: int = 32,
    *,
    group: bool = True,
    progress: Callable[..., None] | None = None,
) -> pd.DataFrame:
    """The `top` oddest spectra of one instrument, with or without a partner in the other.

    Parameters
    ----------
    model
        A model's name, a loaded model, or None for the atlas's active one.
    k
        Neighbours that isolation and reconstruction error are judged by.
    group
        One row a star, its oddest spectrum.

    Returns
    -------
    pandas.DataFrame
        rank, modality, spec_id, release, source_id, score, p_value, q_value, reason, own_chi2,
        own_peak [sigma], own_peak_at [Angstrom or nm], then the robust z of every quantity
        (see `specclip_search.queries.anomalies.one_instrument`) and position and labels of the star.

    Raises
    ------
    QueryError
        If `top` or `k` is not usable or the instrument has no vectors.
    """
    from ..similar.similar import to_frame
    from ..views.annotate import annotate
    from ..views.connection import connect

    if top < 1 or not 4 <= k <= 1000:
        raise QueryError(f"top must be at least 1, k between 4 and 1000; found {top} and {k}.", "100 and 32 are usual.")
    loaded = None if model is None or isinstance(model, str) else model
    space = open_space(atlas, model if loaded is None else loaded.name)
    total = 2 * len(space.keys(modality)) if modality in space.modalities else 0
    tick = None if progress is None else lambda done: progress(done, total, f"{modality} neighbours")
    found = score_within(space, modality, k, loaded, tick)
    keys = space.keys(modality)
    order = np.lexsort((np.asarray(keys.spec_id), -found.score))
    if group:
        star = np.where(np.asarray(keys.source_id) > 0, keys.source_id, keys.spec_id)[order]
        order = order[np.sort(np.unique(star, return_index=True)[1])]
    order = order[:top]
    names = list(keys.releases)
    hits = pa.table(
        {
            "modality": pa.array([modality] * len(order), pa.string()),
            "release": pa.array([names[code] for code in np.asarray(keys.release)[order]], pa.string()),
            "spec_id": pa.array(np.asarray(keys.spec_id)[order], pa.int64()),
        }
    )
    with connect(atlas) as connection:
        extra = annotate(connection, hits)
    table = hits.add_column(0, "rank", pa.array(np.arange(1, len(order) + 1)))
    for name, values in _columns(found, modality, order).items():
        table = table.append_column(name, pa.array(values))
    for name in extra.column_names:
        if name not in table.column_names:
            table = table.append_column(name, extra[name])
    options = {"modality": modality, "top": top, "k": k, "group": group}
    account = {"reference": found.reference, "reference_stars": found.reference_stars}
    return stamp(to_frame(table), "anomalies", options, **{**space.origin(), **account})


def _columns(found: WithinScores, modality: str, rows: np.ndarray) -> dict[str, Any]:
    measured = found.measured
    return {
        "score": found.score[rows],
        "p_value": found.p_value[rows],
        "q_value": found.q_value[rows],
        "reason": [within_reason(found, modality, int(row)) for row in rows],
        "own_chi2": measured.chi2[rows],
        "own_peak": measured.peak[rows],
        "own_peak_at": measured.peak_at[rows],
        **{f"z_{name}": found.z[rows, i] for i, name in enumerate(found.names)},
    }


def within_reason(found: WithinScores, modality: str, row: int) -> str:
    """Why a spectrum is odd, in words, the strongest ground first."""
    z = dict(zip(found.names, found.z[row].tolist(), strict=True))
    side = "lrs" if modality == LRS else "xp"
    unit = "A" if UNITS[side] == "Angstrom" else UNITS[side]
    peak, place = float(found.measured.peak[row]), float(found.measured.peak_at[row])
    grounds = [(z[name], PATTERN_WORDS[name]) for name in (*PATTERNS[side], "double_lined") if name in z]
    grounds = [(value, f"{words}, {value:+.0f} sigma") for value, words in grounds]
    grounds += [
        (z["own_peak"], f"a feature at {place:.0f} {unit} that its vector does not give back, {peak:+.0f} sigma"),
        (z["isolation"], f"no close neighbours, {z['isolation']:+.0f} sigma farther than stars of its kind"),
        (max(z["own"], z["own_local"]), f"the model does not give it back, {max(z['own'], z['own_local']):+.0f} sigma"),
    ]
    ordered = sorted(grounds, key=lambda ground: -ground[0])
    clear = [words for value, words in ordered[:3] if value >= CLEAR_Z]
    return "; ".join(clear or [ordered[0][1]])
