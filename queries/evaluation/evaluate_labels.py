"""The part of an evaluation that asks how far estimated labels lie from the truth, and whether their errors hold."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from specclip_search.keys import ACCEPTANCE_SPLIT, split_of

from ..space.pairs import LRS, XP
from .measures import Measured, middle, share
from .truth import Truth

if TYPE_CHECKING:
    import pyarrow as pa

    from ..space.space import Space

ESTIMATED = {"teff": "K", "logg": "dex", "feh": "dex", "alpha_fe": "dex", "c_fe": "dex", "rv": "km/s"}
FEH_EDGES = (-5.0, -3.0, -2.0, -1.0, 1.0)
SHORT = {LRS: "LRS", XP: "XP"}


def estimated_labels(space: Space, truth: Truth) -> Iterator[Measured]:
    """Errors of the label estimates that stand in the atlas, of normal spectra; nothing where there are none."""
    for modality, short in SHORT.items():
        stage = space.atlas.estimates(modality, space.model)
        if stage.exists:
            columns = ["spec_id", "source_id", *ESTIMATED, *(f"{name}_err" for name in ESTIMATED)]
            yield from label_errors(stage.read(columns), short, truth)


def label_errors(estimates: pa.Table, short: str, truth: Truth) -> Iterator[Measured]:
    """Median distance from the truth and the share within the stated error, by true [Fe/H].

    That share is 0.683 where errors are Gaussian and true.
    """
    source_id = estimates["source_id"].fill_null(-1).to_numpy()
    star = truth.stars(source_id)
    if short == SHORT[LRS]:
        seen = truth.spectra(estimates["spec_id"].to_numpy())
        normal = (seen >= 0) & (truth.seen[np.maximum(seen, 0)] == "")
    else:
        normal = (star >= 0) & np.isin(truth.kind[np.maximum(star, 0)], ("", "instrumental", "identity"))
    rows = np.flatnonzero(normal & (star >= 0))
    feh = truth.numbers["true_feh"][star[rows]]
    accepted = split_of(source_id[rows]) == ACCEPTANCE_SPLIT
    groups = [("all", np.ones(len(rows), dtype=bool)), ("acceptance stars", accepted)]
    groups += [(f"[Fe/H] {low:g} to {high:g}", (feh >= low) & (feh < high)) for low, high in pairwise(FEH_EDGES)]
    for name, unit in ESTIMATED.items():
        value, error = (estimates[c].to_numpy().astype(np.float64)[rows] for c in (name, f"{name}_err"))
        apart = np.abs(value - truth.numbers[f"true_{name}"][star[rows]])
        known = np.isfinite(apart) & np.isfinite(error)
        for group, inside in groups:
            if (known & inside).any():
                yield middle(f"{short} estimate of {name} off by [{unit}]", group, apart[inside])
                yield share(f"{short} {name} within stated error", group, (apart < error)[known & inside])
