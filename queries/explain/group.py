"""What the members of a group have in common that other stars do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..statistics.robust_trend import MAD_TO_SIGMA

LEAST_MEMBERS = 5
SIGNIFICANT = 0.01


@dataclass(frozen=True, slots=True)
class Trait:
    """One quantity of the members against that of others.

    Attributes
    ----------
    name
        Column or window.
    members, others
        Number of values.
    median, usual
        Median of the members and of the others.
    shift
        Their difference in robust standard deviations of the others.
    narrowness
        Robust standard deviation of the members over that of the others.
    p
        Two-sided p-value of the Mann-Whitney test.
    q
        The same corrected for the number of traits (Benjamini & Hochberg 1995).
    """

    name: str
    members: int
    others: int
    median: float
    usual: float
    shift: float
    narrowness: float
    p: float
    q: float


def common_traits(members: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]) -> list[Trait]:
    """Traits of a group, the most significant first.

    Parameters
    ----------
    members, others
        Values by name, NaN where unknown; names with fewer than five members or others are left out.
    """
    from scipy.stats import false_discovery_control, mannwhitneyu

    found = []
    for name in members:
        own, rest = (np.asarray(side[name], np.float64) for side in (members, others))
        own, rest = own[np.isfinite(own)], rest[np.isfinite(rest)]
        if min(len(own), len(rest)) < LEAST_MEMBERS or (own == rest[0]).all():
            continue
        p = float(mannwhitneyu(own, rest, alternative="two-sided").pvalue)
        middle, usual = float(np.median(own)), float(np.median(rest))
        spread = MAD_TO_SIGMA * float(np.median(np.abs(rest - usual)))
        width = MAD_TO_SIGMA * float(np.median(np.abs(own - middle)))
        shift = (middle - usual) / spread if spread > 0 else float("nan")
        found.append((name, len(own), len(rest), middle, usual, shift, width / spread if spread > 0 else np.nan, p))
    if not found:
        return []
    corrected = false_discovery_control([row[-1] for row in found])
    traits = [Trait(*row, float(q)) for row, q in zip(found, corrected, strict=True)]
    return sorted(traits, key=lambda trait: (trait.q, -abs(trait.shift)))
