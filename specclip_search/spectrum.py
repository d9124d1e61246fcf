"""One observed spectrum, as a reader returns it."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np


@dataclass(slots=True)
class Spectrum:
    """An observed spectrum, neither normalised nor resampled.

    Attributes
    ----------
    wavelength
        (P,) float64, strictly increasing; vacuum Angstrom for LAMOST LRS, nm for Gaia XP.
    flux
        (P,) float64, in the file's own units.
    ivar
        (P,) float64 inverse variance of `flux`; 0 for pixels that must not be used.
    modality
        Name of the `Modality`, for example ``lamost_lrs``.
    spec_id
        64-bit key within the modality (obsid or source_id); None if the file has none.
    meta
        Plain values keyed by column name (`ra`, `dec`, `release`, `snrg`, ...); see
        `Modality.meta_columns`.
    epoch
        64-bit number of the visit, transit or exposure; None for a spectrum combined of all that there are.
    frame
        ``barycentric``, ``rest`` (the star's velocity, `meta["rv"]`, taken out) or ``observed``.
    observed
        The spectrum as delivered, where this one has been degraded to another instrument's pixels.
    resolution
        Resolving power, one number or (P,); None where the file does not say it.
    """

    wavelength: np.ndarray
    flux: np.ndarray
    ivar: np.ndarray
    modality: str
    spec_id: int | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    epoch: int | None = None
    frame: str = "barycentric"
    resolution: np.ndarray | float | None = None
    observed: Spectrum | None = None

    def to_specutils(self) -> Any:
        """The spectrum as a `specutils.Spectrum`; see `specclip_search.readers.to_specutils`."""
        return _readers().to_specutils(self)


def _readers() -> ModuleType:
    """What turns a spectrum into others' objects: an import that leads up, because people look for it here."""
    from . import readers

    return readers
