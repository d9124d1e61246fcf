"""Instruments: one file each, and the pair of instruments that translation and anomalies compare."""

from .lamost_lrs import LAMOST_LRS

# instruments are listed in the order in which they are registered
# isort: split
from .gaia_xp import GAIA_XP

# isort: split
from .desi import DESI
from .lamost_mrs import LAMOST_MRS
from .modality import (
    MODALITIES,
    Modality,
    SpectralWindow,
    encoder_of,
    get_modality,
    own_encoders,
    register,
    units_of,
)
from .sdss import SDSS

PAIR = (LAMOST_LRS, GAIA_XP)
"""The two instruments of a pair: what `translate`, `anomalies` and `emp` compare."""

LRS, XP = (modality.name for modality in PAIR)

__all__ = [
    "DESI", "GAIA_XP", "LAMOST_LRS", "LAMOST_MRS", "LRS", "MODALITIES", "PAIR", "SDSS", "XP",
    "Modality", "SpectralWindow", "encoder_of", "get_modality", "own_encoders", "register",
    "units_of",
]
