"""Combination of neighbours, seeds and linear estimates into one [Fe/H] and probability per star."""

from __future__ import annotations

import numpy as np

from .probability import Calibration, fit
from .schema import INSTRUMENTS
from .stars import Stars


def neighbours_say(
    stars: Stars, parts: dict[str, np.ndarray], label: np.ndarray, below: float, notes: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probability, [Fe/H] and error of every star; stars with both, one or the other instrument separately."""
    probability, feh, feh_err = np.zeros(len(stars)), np.full(len(stars), np.nan), np.full(len(stars), np.nan)
    has = {side: np.isfinite(parts[f"{side}_feh"]) for side in INSTRUMENTS}
    for sides in (("lrs", "xp"), ("lrs",), ("xp",)):
        here = np.all([has[side] if side in sides else ~has[side] for side in INSTRUMENTS], axis=0)
        if not here.any():
            continue
        evidence, terms = _columns(stars, parts, sides)
        everyone = np.all([has[side] for side in sides], axis=0)
        learn = everyone & np.isfinite(label) & np.isfinite(evidence).all(axis=1)
        calibration: Calibration = fit(evidence[learn], terms[learn], label[learn], below)
        if calibration.note:
            notes.append(f"{' and '.join(sides)}: {calibration.note}")
        rows = np.flatnonzero(here)
        feh[rows], feh_err[rows], probability[rows] = calibration.predict(evidence[rows], terms[rows], below)
    return np.nan_to_num(probability), feh, feh_err


def _columns(stars: Stars, parts: dict[str, np.ndarray], sides: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Evidence columns ([Fe/H] estimates) and error terms, for stars with these instruments."""
    evidence, terms = [], []
    for side in sides:
        neighbours, linear = parts[f"{side}_feh"], parts[f"{side}_linear_feh"]
        seeded = parts[f"{side}_seeded_feh"]
        evidence += [neighbours, *(np.where(np.isfinite(column), column, neighbours) for column in (linear, seeded))]
        snr = stars.snr[INSTRUMENTS[side]]
        terms += [
            np.nan_to_num(np.log10(np.maximum(snr, 1.0)), nan=1.0),
            np.nan_to_num(parts[f"{side}_feh_sigma"], nan=0.5),
            np.nan_to_num(np.abs(linear - neighbours), nan=0.5),
        ]
    return np.column_stack(evidence), np.column_stack(terms)
