"""Instruments: one file each, and the pair of instruments that translation and anomalies compare."""

from .lamost_lrs import LAMOST_LRS

# instruments are listed in the order in which they are registered
# isort: split
from .gaia_xp import GAIA_XP
from .modality import MODALITIES, Modality, SpectralWindow, get_modality, register

PAIR = (LAMOST_LRS, GAIA_XP)
"""The two instruments of a pair: what `translate`, `anomalies` and `emp` compare."""

LRS, XP = (modality.name for modality in PAIR)

__all__ = [
    "GAIA_XP", "LAMOST_LRS", "LRS", "MODALITIES", "PAIR", "XP",
    "Modality", "SpectralWindow", "get_modality", "register",
]
