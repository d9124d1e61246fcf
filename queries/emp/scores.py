"""Evidence of metal-poverty for every star of an atlas, and the probability it amounts to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from specclip_search.progress import Progress
from specclip_search.surveys import LRS, XP

from ..space.space import Space
from .combination import PARTS as VOICES
from .combination import combination_for
from .estimates import SMALLEST_SIGMA, estimates, log_odds
from .flags import flag
from .known_stars import KnownStars
from .neighbour_estimate import neighbours_say
from .schema import PARTS, SIDES
from .stars import Stars, read_stars
from .teachers import taught_evidence

HOT_FACTOR = 0.05


@dataclass
class EmpScores:
    """Probability and evidence of every star.

    Attributes
    ----------
    stars
        The stars, with the rows of their spectra.
    probability, feh, feh_err
        (N,) float64.
    parts
        Evidence columns by name, (N,) float64, NaN where there is none.
    flags
        (N,) object: space-separated words, empty where there is nothing to say.
    notes
        What a user should know about seeds and calibration.
    """

    stars: Stars
    probability: np.ndarray
    feh: np.ndarray
    feh_err: np.ndarray
    parts: dict[str, np.ndarray]
    flags: np.ndarray
    notes: list[str]


@dataclass
class Evidence:
    """Everything that is known of every star before it is put together.

    Attributes
    ----------
    parts
        As in `EmpScores`.
    odds
        (4, thresholds, N) log-odds by `VOICES` of lying below each threshold, NaN where a voice is silent.
    feh, feh_err
        (4, N) what each voice thinks [Fe/H] is.
    label
        (N,) what a catalogue says, NaN where it says nothing.
    """

    stars: Stars
    parts: dict[str, np.ndarray]
    odds: np.ndarray
    feh: np.ndarray
    feh_err: np.ndarray
    label: np.ndarray
    notes: list[str]


def score_stars(
    space: Space,
    below: float,
    known: KnownStars | None = None,
    builtin_seeds: bool = True,
    progress: Progress | None = None,
    only: np.ndarray | None = None,
) -> EmpScores:
    """Evidence and probability of all stars, without storing them; `only` as in `gather_evidence`."""
    evidence = gather_evidence(space, (below,), known, builtin_seeds, progress, only)
    probability = combine(evidence, 0, below, space.model_digest())
    feh, feh_err = together(evidence.feh, evidence.feh_err)
    parts = evidence.parts | {f"p_{voice}": _probability(evidence.odds[i, 0]) for i, voice in enumerate(VOICES)}
    flags, hot = flag(space, evidence.stars, parts, feh, feh_err, probability)
    probability = np.where(hot, HOT_FACTOR * probability, probability)
    return EmpScores(evidence.stars, probability, feh, feh_err, parts, flags, evidence.notes)


def gather_evidence(
    space: Space,
    thresholds: tuple[float, ...],
    known: KnownStars | None = None,
    builtin_seeds: bool = True,
    progress: Progress | None = None,
    only: np.ndarray | None = None,
) -> Evidence:
    """What each voice says of every star; the first threshold decides who serves as a seed.

    Neighbours are looked at for the source_ids `only`, if given; they are what takes time.
    """
    stars = read_stars(space)
    notes: list[str] = []
    instruments = [modality for modality in (LRS, XP) if modality in space.modalities]
    found, label = {}, np.full(len(stars), np.nan)
    for turn, modality in enumerate(instruments):
        if progress is not None:
            progress(turn, len(instruments) + 1, f"evidence of {modality}")
        found[modality], own = taught_evidence(space, modality, thresholds[0], known, builtin_seeds, notes, only)
        # what a catalogue says of the star itself: only ever compared with, never used as evidence for it
        label = np.where(np.isfinite(label), label, stars.take(modality, own))
    if known is not None:
        notes.append(f"{len(known.source_id)} of {known.listed} listed stars found by {known.by}")
    parts = {
        f"{side}_{name}": stars.take(modality, getattr(found[modality], name))
        if modality in found
        else np.full(len(stars), np.nan)
        for side, modality in SIDES.items()
        for name in PARTS
    }
    if progress is not None:
        progress(len(instruments), len(instruments) + 1, "estimates")
    more, estimated = estimates(space, stars, thresholds)
    parts |= more
    odds = np.concatenate([estimated, np.full((1, *estimated.shape[1:]), np.nan)])
    for place, below in enumerate(thresholds):
        probability, feh, feh_err = neighbours_say(stars, parts, label, below, notes if place == 0 else [])
        odds[3, place] = np.where(np.isfinite(feh), log_odds(probability), np.nan)
        if place == 0:
            parts |= {"near_feh": feh, "near_feh_err": feh_err}
    if progress is not None:
        progress(len(instruments) + 1, len(instruments) + 1, "")
    names = ("lrs_est", "xp_est", "xp_net", "near")
    voices, errors = (np.stack([parts[f"{name}_{end}"] for name in names]) for end in ("feh", "feh_err"))
    return Evidence(stars, parts, odds, voices, errors, label, notes)


def combine(evidence: Evidence, place: int, below: float, model_digest: str) -> np.ndarray:
    """(N,) probability of lying below a threshold; 0 where nothing is known of a star."""
    odds = evidence.odds[:, place]
    speaks = np.isfinite(odds)
    probability = np.zeros(odds.shape[1])
    for pattern in np.unique(speaks, axis=1).T:
        if not pattern.any():
            continue
        here = (speaks == pattern[:, None]).all(axis=0)
        parts = tuple(name for name, there in zip(VOICES, pattern, strict=True) if there)
        combination, note = combination_for(parts, model_digest)
        if note and note not in evidence.notes:
            evidence.notes.append(note)
        probability[here] = combination.predict(odds[np.ix_(pattern, here)], below)
    return probability


def together(feh: np.ndarray, feh_err: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of several estimates (voices, N) weighted by 1 / error^2, and its error.

    The estimates are not independent: their errors are averaged (weighted as the values), not
    divided by their number, and how far they lie apart is added.
    """
    known = np.isfinite(feh) & np.isfinite(feh_err)
    weight = np.where(known, np.maximum(np.nan_to_num(feh_err, nan=1.0), SMALLEST_SIGMA) ** -2.0, 0.0)
    total = weight.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (weight * np.nan_to_num(feh)).sum(axis=0) / total
        apart = (weight * np.where(known, feh - mean, 0.0) ** 2).sum(axis=0) / total
        return mean, np.sqrt(known.sum(axis=0) / total + apart)


def _probability(odds: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-odds))
