"""Residuals of a spectrum in named spectral windows, in sigma with sign, and their description in words."""

from __future__ import annotations

from collections.abc import Sequence
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
        (w, n) bool: grid points of each window.
    """

    names: tuple[str, ...]
    centres: np.ndarray
    unit: str
    members: np.ndarray

    @classmethod
    def of(cls, modality: Any) -> WindowSet:
        """Windows of a `Modality` that contain at least one grid point."""
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

    def plain_means(self, flux: np.ndarray) -> np.ndarray:
        """(N, w) unweighted mean of spectra (N, n) in each window."""
        return np.asarray(flux @ (self.members / self.members.sum(axis=1, keepdims=True)).T)


def window_means(
    residual: np.ndarray, noise: np.ndarray, model_error: np.ndarray, members: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Inverse-variance weighted mean residual of each window and its variance from noise alone.

    mean_w = sum v r / sum v with v = 1 / (noise^2 + model_error^2) over the window's pixels;
    var_w = sum v^2 noise^2 / (sum v)^2.

    Parameters
    ----------
    residual
        (N, n) observed minus predicted.
    noise
        (N, n) 1 sigma of the observation; inf for pixels without information.
    model_error
        (N, n) or (n,) 1 sigma of the prediction.
    members
        (w, n) bool.

    Returns
    -------
    tuple of np.ndarray
        (N, w) mean, NaN if a window has no informative pixel, and (N, w) variance.
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


BALMER = ("Halpha", "Hbeta", "Hgamma", "Hdelta")
MOLECULES = {"carbon": ("CH", "C2", "CN"), "titanium oxide": ("TiO", "VO", "CaH")}
_GREEK = {"Halpha": "H-alpha", "Hbeta": "H-beta", "Hgamma": "H-gamma", "Hdelta": "H-delta"}
# XP windows that measure the same feature as an LRS window
SAME_FEATURE = {
    "Hbeta": ("Hbeta",),
    "Hdelta": ("Hdelta",),
    "Hgamma": ("G band CH",),
    "G band CH": ("G band CH",),
    "C2 4737": ("C2 473",),
    "C2 5165": ("Mg b MgH",),
    "Mg b": ("Mg b MgH",),
    "MgH 5100": ("Mg b MgH",),
}


def is_continuum(name: str) -> bool:
    """Whether a window measures the spectrum's level rather than a line."""
    return any(word in name for word in ("continuum", "end", "join", "jump"))


def family(name: str) -> str:
    """Group of a window: ``Balmer``, ``carbon``, ``titanium oxide``, ``continuum`` or ``metal``."""
    if name in BALMER:
        return "Balmer"
    if is_continuum(name):
        return "continuum"
    for molecule, bands in MOLECULES.items():
        if any(name.startswith(band) or f" {band}" in name for band in bands):
            return molecule
    return "metal"


def line_phrase(name: str, z: float, emission: bool) -> str:
    """`H-beta filled in by emission`, `C2 4737 stronger than predicted`.

    Parameters
    ----------
    z
        Residual in sigma, positive if the observed flux is above the predicted.
    emission
        Whether only the hydrogen lines deviate, so that emission explains them.
    """
    title = _GREEK.get(name, name)
    if is_continuum(name):
        return f"{title} {'above' if z > 0 else 'below'} the prediction"
    if name in BALMER and z > 0 and emission:
        return f"{title} filled in by emission"
    if name.startswith("[") and z > 0:
        return f"{title} in emission"
    return f"{title} {'weaker' if z > 0 else 'stronger'} than predicted"


def leading(z: np.ndarray, count: int = 3) -> np.ndarray:
    """Indices of the windows with the largest |z|, largest first."""
    return np.argsort(-np.abs(z), kind="stable")[:count]


def only_hydrogen(names: Sequence[str], z: np.ndarray) -> bool:
    """Whether a Balmer line exceeds every other line by a factor of at least 1.5.

    A star that is only hotter or cooler than predicted also deviates in metals and bands.
    """
    balmer = np.array([name in BALMER for name in names])
    if not balmer.any():
        return False
    strongest = float(z[balmer].max())
    others = np.abs(z[~balmer]).max() if (~balmer).any() else 0.0
    return strongest > 0 and strongest >= 1.5 * float(others)
