"""Measures of a spectrum's residuals: total chi2, strongest narrow feature, named patterns.

Each spectrum has two kinds of residual. ``cross`` (``free`` in column names): against the prediction
from the other instrument, with dust, velocity and slow continuum changes marginalised. ``self``
(``own`` in column names): against the reconstruction from its own vector.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np

from .matched_filters import FilterScale, Templates, apply_filters, learn_scale, raw_filters, templates
from .nuisance_shapes import lrs_shapes, xp_shapes
from .residual_covariance import ResidualModel, learn_residual_model, whiten

# kinds of residual, as column names spell them
CROSS, SELF = "free", "own"
KINDS = (CROSS, SELF)
RANK = {"lrs": 16, "xp": 12}
# there are thousands of filters per star; their medians need no more stars than this
SCALE_STARS = 2000


@dataclass(frozen=True, slots=True)
class Measured:
    """Per spectrum: chi2 (N,), patterns (N, m), strongest narrow filter (N,) in sigma and its wavelength (N,)."""

    chi2: np.ndarray
    patterns: np.ndarray
    peak: np.ndarray
    peak_at: np.ndarray


@dataclass(frozen=True, slots=True)
class SpectrumResidualModel:
    """Residual model and filter scale of one instrument for one kind of residual."""

    mean: np.ndarray
    shapes: np.ndarray
    sigma: np.ndarray
    middle: np.ndarray
    scale: np.ndarray

    @property
    def residual_model(self) -> ResidualModel:
        return ResidualModel(self.mean, self.shapes, self.sigma)

    def measure(
        self, side: str, kind: str, observed: np.ndarray, noise: np.ndarray, predicted: np.ndarray
    ) -> Measured:
        """Measure spectra (N, n) of `side` (`lrs`, `xp`) against predictions of `kind`."""
        white = whiten(self.residual_model, observed - predicted, noise, star_shapes(side, kind, predicted))
        found = apply_filters(white, filters(side), FilterScale(self.middle, self.scale))
        return Measured(white.chi2.astype(np.float32), found.patterns, found.peak, found.peak_at)


FIELDS = tuple(field.name for field in fields(SpectrumResidualModel))


def learn(
    side: str, kind: str, observed: np.ndarray, noise: np.ndarray, predicted: np.ndarray
) -> SpectrumResidualModel:
    """Learn from spectra (N, n) of mostly normal stars."""
    residual = observed - predicted
    model = learn_residual_model(residual, noise, RANK[side])
    some = slice(0, None, max(len(residual) // SCALE_STARS, 1))
    white = whiten(model, residual[some], noise[some], star_shapes(side, kind, predicted[some]))
    scale = learn_scale(raw_filters(white, filters(side)))
    return SpectrumResidualModel(model.mean, model.shapes, model.sigma, scale.middle, scale.sigma)


def star_shapes(side: str, kind: str, predicted: np.ndarray) -> np.ndarray | None:
    """(N, e, n) nuisance shapes; None for a spectrum against its own reconstruction."""
    if kind == SELF:
        return None
    return lrs_shapes(predicted, _wavelength(side)) if side == "lrs" else xp_shapes(predicted, _wavelength(side))


@lru_cache(maxsize=2)
def filters(side: str) -> Templates:
    """Filters on the grid of the instrument."""
    return templates(side, _wavelength(side))


def _wavelength(side: str) -> np.ndarray:
    from specclip_search.surveys import GAIA_XP, LAMOST_LRS

    return np.asarray((LAMOST_LRS if side == "lrs" else GAIA_XP).wavelength)
