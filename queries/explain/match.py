"""What makes two spectra alike or unlike, window by window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..space.windows import BALMER, family
from ..statistics.robust_trend import median_and_sigma

#: both spectra must be this far from the common star for a window to tell that they are alike [population sigma]
TELLING = 1.0
#: nearer to each other than this, in the same unit, counts as equal
EQUAL = 0.5
#: a difference must exceed its noise by this factor
SIGNIFICANT = 4.0
_ELEMENTS = {
    "G band": "carbon", "C2": "carbon", "CN": "nitrogen and carbon", "Mg": "magnesium", "Ca ": "calcium",
    "Fe ": "iron", "Sr": "strontium", "Ba ": "barium", "Na ": "sodium", "TiO": "titanium oxide", "He ": "helium",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class WindowVerdict:
    """One spectral window of two spectra.

    Attributes
    ----------
    name
        Window.
    first, second
        Mean flux in the window, relative to the median of the population, in its robust standard deviations; below 0
        where a line is stronger than usual.
    difference
        First minus second in the same unit.
    significance
        The difference over the noise of both spectra; NaN where one has no error, as a translation.
    verdict
        ``alike``: both are unusual in the same way. ``unlike``: they differ beyond noise and by more than half a
        standard deviation of the population. Else empty.
    """

    name: str
    first: float
    second: float
    difference: float
    significance: float
    verdict: str


COLOUR = "colour"
#: from this spread of ln(blue/red continuum) on, spectra keep their shape, which then dominates every window
KEEPS_SHAPE = 0.1


def without_colour(names: Sequence[str], means: np.ndarray, population: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Window means with what goes with the spectrum's colour taken off.

    Every window of a spectrum that keeps its shape follows temperature and dust. The colour is
    ln(bluest/reddest continuum window); a parabola in it is fitted to each window over the population.

    Parameters
    ----------
    names
        The w windows.
    means
        (M, w) means of the spectra that are judged.
    population
        (N, w) means of ordinary spectra.

    Returns
    -------
    tuple of np.ndarray
        (M, w + 1) and (N, w + 1): residuals, and the colour itself last; unchanged, without a last column, if the
        spectra do not keep their shape.
    """
    level = [i for i, name in enumerate(names) if name.startswith("continuum")]
    if len(level) < 2:
        return means, population
    blue, red = level[0], level[-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        colours = [np.log(np.maximum(side[:, blue], 1e-3) / np.maximum(side[:, red], 1e-3))
                   for side in (means, population)]
    middle, spread = median_and_sigma(colours[1])
    if not spread > KEEPS_SHAPE:
        return means, population
    scaled = [np.clip((colour - middle) / spread, -3.0, 3.0) for colour in colours]
    terms = [np.stack([np.ones_like(c), c, c**2], axis=1) for c in scaled]
    usual = np.abs(scaled[1]) < 2.9
    fitted = np.linalg.lstsq(terms[1][usual], population[usual], rcond=None)[0]
    both = zip((means, population), terms, colours, strict=True)
    first, second = (np.column_stack([side - term @ fitted, colour]) for side, term, colour in both)
    return first, second


def judge_windows(
    names: Sequence[str], means: np.ndarray, variances: np.ndarray, population: np.ndarray
) -> list[WindowVerdict]:
    """Verdict on every window.

    Parameters
    ----------
    names
        The w windows.
    means, variances
        (2, w) mean flux of both spectra in each window and its variance from noise; inf where there is no error.
    population
        (N, w) means of ordinary spectra of the same instrument.
    """
    middle, spread = median_and_sigma(population)
    spread = np.maximum(spread, 1e-6)
    first, second = (means - middle) / spread
    noise = np.sqrt(variances.sum(axis=0))
    result = []
    for i, name in enumerate(names):
        difference = float(first[i] - second[i])
        known = np.isfinite(noise[i]) and noise[i] > 0
        significance = float((means[0, i] - means[1, i]) / noise[i]) if known else float("nan")
        verdict = ""
        if abs(difference) > EQUAL and (not known or abs(significance) > SIGNIFICANT):
            verdict = "unlike"
        elif abs(difference) <= EQUAL and min(abs(first[i]), abs(second[i])) > TELLING and first[i] * second[i] > 0:
            verdict = "alike"
        result.append(WindowVerdict(name, float(first[i]), float(second[i]), difference, significance, verdict))
    return result


def in_words(verdicts: Sequence[WindowVerdict], most: int = 4) -> list[str]:
    """Sentences: what both share against other stars, and where they differ; elements named where lines agree."""
    alike = sorted((v for v in verdicts if v.verdict == "alike"), key=lambda v: -min(abs(v.first), abs(v.second)))
    unlike = sorted((v for v in verdicts if v.verdict == "unlike"), key=lambda v: -abs(v.difference))
    lines = []
    if alike:
        told = ", ".join(f"{v.name} {_strength(v.name, 0.5 * (v.first + v.second))}" for v in alike[:most])
        lines.append(f"Alike against other stars: {told}.")
    if unlike:
        told = ", ".join(
            f"{v.name} {_strength(v.name, v.difference)} in the first ({abs(v.difference):.1f} sigma of the population)"
            for v in unlike[:most]
        )
        lines.append(f"Unlike: {told}.")
    elements = _elements(unlike)
    if elements:
        lines.append(f"The differences are in {elements}.")
    if not lines:
        lines.append("No window tells: both are ordinary where the windows lie, and no difference exceeds the noise.")
    return lines


def _strength(name: str, z: float) -> str:
    if name == COLOUR:
        return "bluer" if z > 0 else "redder"
    kind = family(name)
    if kind == "continuum":
        return "brighter" if z > 0 else "fainter"
    return "weaker" if z > 0 else "stronger"


def _elements(unlike: Sequence[WindowVerdict]) -> str:
    found = dict.fromkeys(
        "hydrogen" if v.name in BALMER else next((_ELEMENTS[key] for key in _ELEMENTS if v.name.startswith(key)), "")
        for v in unlike
    )
    return ", ".join(word for word in found if word)
