"""How good the searches are, scored against a simulated survey whose truth is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from specclip_search.errors import QueryError
from specclip_search.progress import Progress
from specclip_search.tables.provenance import stamp

from ..anomalies.anomalies import score_atlas
from ..anomalies.pair_table import PairTable
from ..space.space import open_space
from .anomalies import FINDS, strangeness
from .measures import Measured
from .parts import estimated_labels, metal_poor, retrieval, translation
from .truth import Truth

if TYPE_CHECKING:
    import pandas as pd

    from specclip_search.atlas import Atlas



def evaluate(
    atlas: Atlas,
    model: str | None = None,
    *,
    below: float = -3.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Every figure of merit that a simulated survey allows, one row each.

    Parameters
    ----------
    model
        Whose vectors and translations; the active model by default.
    below
        [Fe/H] below which a star counts as metal-poor.
    seed
        Of the resampling, and of the choice of 5,000 spectra where more could be asked.
    progress
        Called with (done, total, note).

    Returns
    -------
    pandas.DataFrame
        metric, class, value, low, high (95 %), n. Shares have Wilson's interval, medians that of order
        statistics, average precision a bootstrap's, rank correlations Fisher's.

    Raises
    ------
    QueryError
        If the atlas holds no simulated survey, or its pairs are not translated.
    """
    import pandas as pd

    if not -6.0 <= below <= 0.0:
        raise QueryError(f"below must lie between -6 and 0; found {below:g}.", "-3 is extremely metal-poor.")
    truth = Truth.read(atlas)
    space = open_space(atlas, model)
    pairs = PairTable.read(space)
    if not (truth.spectra(pairs.lrs_spec_id) >= 0).any():
        raise QueryError(
            "No pair of the simulated survey is embedded and translated yet.",
            "Run `specclip-search embed`, `translate` and `index build` first.",
        )
    score_atlas(space)
    own = sorted(set(FINDS.values()))
    stored = atlas.results("anomalies").read(["lrs_spec_id", "source_id", "score", *(f"z_{name}" for name in own)])
    obsid, score, star = (stored[name].to_numpy() for name in ("lrs_spec_id", "score", "source_id"))
    quantities = {name: stored[f"z_{name}"].to_numpy() for name in own}
    steps: tuple[tuple[str, Callable[[], list[Measured]]], ...] = (
        ("retrieval", lambda: list(retrieval(space, truth, pairs, seed))),
        ("label estimates", lambda: list(estimated_labels(space, truth))),
        ("translation", lambda: list(translation(truth, pairs))),
        ("metal-poor stars", lambda: list(metal_poor(space, truth, below, seed))),
        ("anomalies", lambda: list(strangeness(truth, obsid, score, star, seed, quantities))),
    )
    measured: list[Measured] = []
    for done, (note, step) in enumerate(steps):
        if progress is not None:
            progress(done, len(steps), note)
        measured += step()
    frame = pd.DataFrame([figure.row() for figure in measured])
    frame["n"] = frame["n"].astype(np.int64)
    return stamp(frame, "evaluate", {"below": below, "seed": seed}, **space.origin())
