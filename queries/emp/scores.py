"""Evidence for low metallicity of every star of an atlas, and the resulting probability."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from specclip_search.progress import Progress
from specclip_search.surveys import LRS, XP
from specclip_search.training.xp_metallicity.weighting import REFERENCE, depth

from ..space.space import Space
from .combination import SOURCES, combination_for
from .estimates import SMALLEST_SIGMA, estimates, log_odds
from .flags import flag
from .known_stars import KnownStars
from .neighbour_estimate import neighbours_say
from .schema import INSTRUMENT_COLUMNS, INSTRUMENTS
from .stars import Stars, read_stars
from .teachers import taught_evidence

# stars that are hot, unlike the training stars, without signal, or faint or reddened and unsure cannot lead the list
DOUBTFUL_FACTOR = 0.05
# smallest share of the neighbours' weight in [Fe/H]; 0 would leave stars without other estimates without any
LEAST_SHARE = 1e-3


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
        (N,) object: space-separated words, empty if there are no flags.
    notes
        Notes on seeds and calibration for the user.
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
    """Evidence for every star before it is combined.

    Attributes
    ----------
    parts
        As in `EmpScores`.
    odds
        (4, thresholds, N) log-odds by `SOURCES` of being below each threshold, NaN if a source has no value.
    feh, feh_err
        (4, N) [Fe/H] from each source.
    label
        (N,) [Fe/H] from a catalogue, NaN if there is none.
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
    """Evidence and probability of all stars, without storing them; `only` as in `gather_evidence`.

    Below -2 the probability is P([Fe/H] < -2) P([Fe/H] < below). Real stars calibrate the combination down to
    -2; deeper ones are learned from simulated metal-poor stars, among which a spectrum that says nothing is
    deep with a high probability. The first factor is what real stars say of such a spectrum.
    """
    thresholds = (below, REFERENCE) if below < REFERENCE else (below,)
    evidence = gather_evidence(space, thresholds, known, builtin_seeds, progress, only)
    digest = space.model_digest()
    probability = np.prod([combine(evidence, i, limit, digest) for i, limit in enumerate(thresholds)], axis=0)
    feh, feh_err = combined_feh(evidence.feh, evidence.feh_err)
    parts = evidence.parts | {f"p_{source}": _probability(evidence.odds[i, 0]) for i, source in enumerate(SOURCES)}
    flags, doubtful = flag(space, evidence.stars, parts, feh, feh_err, probability)
    probability = np.where(doubtful, DOUBTFUL_FACTOR * probability, probability)
    return EmpScores(evidence.stars, probability, feh, feh_err, parts, flags, evidence.notes)


def gather_evidence(
    space: Space,
    thresholds: tuple[float, ...],
    known: KnownStars | None = None,
    builtin_seeds: bool = True,
    progress: Progress | None = None,
    only: np.ndarray | None = None,
) -> Evidence:
    """Evidence from each source for every star; the first threshold decides which stars serve as seeds.

    Neighbours, the slow part, are searched only for the source_ids `only`, if given.
    """
    stars = read_stars(space)
    notes: list[str] = []
    instruments = [modality for modality in (LRS, XP) if modality in space.modalities]
    found, label = {}, np.full(len(stars), np.nan)
    for turn, modality in enumerate(instruments):
        if progress is not None:
            progress(turn, len(instruments) + 1, f"evidence of {modality}")
        found[modality], own = taught_evidence(space, modality, thresholds[0], known, builtin_seeds, notes, only)
        # the star's own catalogue label: for comparison only, never used as evidence for it
        label = np.where(np.isfinite(label), label, stars.take(modality, own))
    if known is not None:
        with_feh = int(np.isfinite(known.feh).sum())
        found_of = f"{len(known.source_id)} of {known.listed}"
        notes.append(f"{found_of} listed stars found by {known.by}, {with_feh} with [Fe/H]")
        notes.extend(known.notes)
    parts = {
        f"{side}_{name}": stars.take(modality, getattr(found[modality], name))
        if modality in found
        else np.full(len(stars), np.nan)
        for side, modality in INSTRUMENTS.items()
        for name in INSTRUMENT_COLUMNS
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
    values, errors = (np.stack([parts[f"{name}_{end}"] for name in names]) for end in ("feh", "feh_err"))
    return Evidence(stars, parts, odds, values, errors, label, notes)


def combine(evidence: Evidence, place: int, below: float, model_digest: str) -> np.ndarray:
    """(N,) probability of being below a threshold; 0 for stars without evidence."""
    odds = evidence.odds[:, place]
    speaks = np.isfinite(odds)
    probability = np.zeros(odds.shape[1])
    for pattern in np.unique(speaks, axis=1).T:
        if not pattern.any():
            continue
        here = (speaks == pattern[:, None]).all(axis=0)
        parts = tuple(name for name, there in zip(SOURCES, pattern, strict=True) if there)
        combination, note = combination_for(parts, model_digest)
        if note and note not in evidence.notes:
            evidence.notes.append(note)
        probability[here] = combination.predict(odds[np.ix_(pattern, here)], below)
    return probability


def combined_feh(feh: np.ndarray, feh_err: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the sources' estimates (4, N), by `SOURCES`, and its error.

    Neighbours lose their weight between -2 and -3: labels end at about -2.5, so that the labelled neighbours
    of a more metal-poor star are all more metal-rich than it is.
    """
    others, _ = together(feh[:3], feh_err[:3])
    share = 1.0 - depth(np.nan_to_num(others))
    errors = feh_err.copy()
    errors[3] = feh_err[3] / np.sqrt(np.maximum(share, LEAST_SHARE))
    return together(feh, errors)


def together(feh: np.ndarray, feh_err: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of several estimates (sources, N) weighted by 1 / error^2, and its error.

    The estimates are not independent: their errors are averaged (weighted as the values), not
    divided by their number, and their scatter is added.
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
