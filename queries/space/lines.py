"""What a window's residual means, in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BALMER = ("Halpha", "Hbeta", "Hgamma", "Hdelta")
MOLECULES = {"carbon": ("CH", "C2", "CN"), "titanium oxide": ("TiO", "VO", "CaH")}
_GREEK = {"Halpha": "H-alpha", "Hbeta": "H-beta", "Hgamma": "H-gamma", "Hdelta": "H-delta"}
# counterparts of LRS windows among the XP windows, by what both measure
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
    """What a window belongs to: ``Balmer``, ``carbon``, ``titanium oxide``, ``continuum`` or ``metal``."""
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
        Residual in sigma, positive where the observed flux lies above the predicted.
    emission
        Whether the hydrogen lines alone stand out, so that emission explains them.
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
    """Whether a Balmer line stands out above every other line by half again.

    A star that is merely hotter or cooler than predicted shows it in metals and bands, too.
    """
    balmer = np.array([name in BALMER for name in names])
    if not balmer.any():
        return False
    strongest = float(z[balmer].max())
    others = np.abs(z[~balmer]).max() if (~balmer).any() else 0.0
    return strongest > 0 and strongest >= 1.5 * float(others)
