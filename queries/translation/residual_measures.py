"""What one kind of residual says of a spectrum: total, strongest narrow feature, named patterns.

Two kinds a spectrum: ``free``, against what the other instrument predicts, free of dust, velocity
and bends of the continuum; ``own``, against what its own vector gives back.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np

from .matched_filters import FilterScale, Templates, apply_filters, learn_scale, raw_filters, templates
from .nuisance_shapes import lrs_shapes, xp_shapes
from .residual_covariance import ResidualLaw, learn_law, whiten

KINDS = ("free", "own")
RANK = {"lrs": 16, "xp": 12}
# filters are thousands a star: their medians need no more stars than this
SCALE_STARS = 2000


@dataclass(frozen=True, slots=True)
class Measured:
    """Of each spectrum: chi2 (N,), patterns (N, m), strongest narrow filter (N,) in sigma and its wavelength (N,)."""

    chi2: np.ndarray
    patterns: np.ndarray
    peak: np.ndarray
    peak_at: np.ndarray


@dataclass(frozen=True, slots=True)
class SpectrumLaw:
    """Law and scale of the filters of one instrument's residuals of one kind."""

    mean: np.ndarray
    shapes: np.ndarray
    sigma: np.ndarray
    middle: np.ndarray
    scale: np.ndarray

    @property
    def law(self) -> ResidualLaw:
        return ResidualLaw(self.mean, self.shapes, self.sigma)

    def measure(
        self, side: str, kind: str, observed: np.ndarray, noise: np.ndarray, predicted: np.ndarray
    ) -> Measured:
        """Measure spectra (N, n) of `side` (`lrs`, `xp`) against predictions of `kind`."""
        white = whiten(self.law, observed - predicted, noise, own_shapes(side, kind, predicted))
        found = apply_filters(white, filters(side), FilterScale(self.middle, self.scale))
        return Measured(white.chi2.astype(np.float32), found.patterns, found.peak, found.peak_at)


FIELDS = tuple(field.name for field in fields(SpectrumLaw))


def learn(side: str, kind: str, observed: np.ndarray, noise: np.ndarray, predicted: np.ndarray) -> SpectrumLaw:
    """Learn from spectra (N, n) of stars most of which are normal."""
    residual = observed - predicted
    law = learn_law(residual, noise, RANK[side])
    some = slice(0, None, max(len(residual) // SCALE_STARS, 1))
    white = whiten(law, residual[some], noise[some], own_shapes(side, kind, predicted[some]))
    scale = learn_scale(raw_filters(white, filters(side)))
    return SpectrumLaw(law.mean, law.shapes, law.sigma, scale.middle, scale.sigma)


def own_shapes(side: str, kind: str, predicted: np.ndarray) -> np.ndarray | None:
    """(N, e, n) shapes that are no oddity; none for a spectrum against its own reconstruction."""
    if kind == "own":
        return None
    return lrs_shapes(predicted, _wavelength(side)) if side == "lrs" else xp_shapes(predicted, _wavelength(side))


@lru_cache(maxsize=2)
def filters(side: str) -> Templates:
    """Filters on the instrument's own grid."""
    return templates(side, _wavelength(side))


def _wavelength(side: str) -> np.ndarray:
    from specclip_search.surveys import GAIA_XP, LAMOST_LRS

    return np.asarray((LAMOST_LRS if side == "lrs" else GAIA_XP).wavelength)
