"""Learning rate over the steps of a run."""

from __future__ import annotations

import math


def rate_at(step: int, total: int, warmup: int, highest: float, final_fraction: float) -> float:
    """Linear rise over `warmup` steps, then a cosine to `final_fraction` of the highest rate.

    Parameters
    ----------
    step
        0 for the first step.
    total
        Steps of the whole run; later steps keep the last rate.
    """
    warmup = min(warmup, max(1, total // 2))
    if step < warmup:
        return highest * (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, total - warmup))
    lowest = highest * final_fraction
    return lowest + (highest - lowest) * 0.5 * (1.0 + math.cos(math.pi * done))
