"""Residuals of a spectrum gathered in named windows, in sigma and with their sign."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class WindowSet:
    """The spectral windows of one instrument on its own grid.

    Attributes
    ----------
    names
        Names of the windows, in the order of every window column.
    centres
        (w,) middle of each window in the grid's unit.
    unit
        ``Angstrom`` or ``nm``.
    members
        (w, n) bool: which grid points each window holds.
    """

    names: tuple[str, ...]
    centres: np.ndarray
    unit: str
    members: np.ndarray

    @classmethod
    def of(cls, modality: Any) -> WindowSet:
        """Windows of a `Modality` that hold at least one of its grid points."""
        wavelength = np.asarray(modality.wavelength)
        kept = []
        for window in modality.windows:
            inside = (wavelength >= window.lo) & (wavelength <= window.hi)
            if inside.any():
                kept.append((window.name, 0.5 * (window.lo + window.hi), inside))
        names, centres, members = zip(*kept, strict=True)
        return cls(tuple(names), np.array(centres), str(modality.unit), np.array(members))

    def __len__(self) -> int:
        return len(self.names)


def window_means(
    residual: np.ndarray, noise: np.ndarray, model_error: np.ndarray, members: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Inverse-variance mean residual of each window and the variance that noise alone gives it.

    mean_w = sum v r / sum v with v = 1 / (noise^2 + model_error^2) over the window's pixels;
    var_w = sum v^2 noise^2 / (sum v)^2.

    Parameters
    ----------
    residual
        (N, n) observed minus predicted.
    noise
        (N, n) 1 sigma of the observation; inf where a pixel says nothing.
    model_error
        (N, n) or (n,) 1 sigma of the prediction.
    members
        (w, n) bool.

    Returns
    -------
    tuple of np.ndarray
        (N, w) mean, NaN where a window holds no informative pixel, and (N, w) variance.
    """
    good = np.isfinite(noise) & np.isfinite(residual)
    sigma = np.where(good, noise, 1.0)
    weight = np.where(good, 1.0 / np.maximum(sigma**2 + model_error**2, 1e-20), 0.0)
    select = members.T.astype(np.float64)
    total = weight @ select
    safe = np.where(total > 0, total, 1.0)
    mean = (weight * np.where(good, residual, 0.0)) @ select / safe
    variance = (weight**2 * sigma**2) @ select / safe**2
    return np.where(total > 0, mean, np.nan), np.where(total > 0, variance, np.inf)
