"""An instrument's physics: its wavelength grid and how raw flux becomes the model's input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ..errors import QueryError, Reason, SpectrumError
from . import gaia_xp, lamost_lrs
from .windows import LRS_WINDOWS, XP_WINDOWS, SpectralWindow

__all__ = ["GAIA_XP", "LAMOST_LRS", "MODALITIES", "Modality", "SpectralWindow", "get_modality"]


@dataclass(frozen=True, eq=False)
class Modality:
    """One instrument.

    Attributes
    ----------
    name
        Its name in the atlas, for example ``lamost_lrs``.
    prefix
        How its keys begin when written as text, for example ``lamost``.
    wavelength
        (n,) float64 grid of the model's input, in `unit`, vacuum.
    unit
        ``Angstrom`` or ``nm``.
    windows
        Named stretches of the spectrum that mean something to a reader.
    """

    name: str
    prefix: str
    wavelength: np.ndarray
    unit: str
    windows: tuple[SpectralWindow, ...]
    title: str
    _prepare: Callable[[np.ndarray, np.ndarray], np.ndarray] = field(repr=False)

    @property
    def size(self) -> int:
        """Number of grid points."""
        return len(self.wavelength)

    @property
    def meta_columns(self) -> tuple[str, ...]:
        """Names of the columns of `spectra/<name>` that a spectrum's `meta` may fill."""
        from ..atlas.schemas import spectra_schema

        measured = {"spec_id", "simulated", "good_fraction", "n_repaired", "n_clipped", "scale", "sed", "flux", "error"}
        return tuple(name for name in spectra_schema(self.name, self.size).names if name not in measured)

    def prepare(self, wavelength: np.ndarray, flux: np.ndarray) -> np.ndarray:
        """Turn raw flux into the model's input, once, by the published arithmetic.

        Parameters
        ----------
        wavelength
            (P,) in `unit`, vacuum, strictly increasing, covering the grid.
        flux
            (N, P) or (P,) raw flux in any unit, any floating type and byte order, finite.

        Returns
        -------
        ndarray
            (N, n) float64; one row for a single spectrum too.

        Raises
        ------
        SpectrumError
            If wavelengths or flux cannot be used; for many spectra of unknown quality take
            `specclip_search.preparation.prepare_batch`, which sets bad ones aside.
        """
        wavelength = np.asarray(wavelength, dtype=np.float64)
        rows = _rows(flux, wavelength)
        return self._prepare(wavelength, rows)

    def window_mask(self, window: SpectralWindow) -> np.ndarray:
        """(n,) bool: grid points inside a window."""
        return (self.wavelength >= window.lo) & (self.wavelength <= window.hi)

    def __repr__(self) -> str:
        ends = f"{self.wavelength[0]:.1f}-{self.wavelength[-1]:.1f} {self.unit}"
        return f"<Modality {self.name}: {self.size} points, {ends}>"

    def __reduce__(self) -> tuple[Callable[[str], Modality], tuple[str]]:
        return get_modality, (self.name,)


def _rows(flux: np.ndarray, wavelength: np.ndarray) -> np.ndarray:
    """`flux` as (N, P) of the machine's own float32 or float64, refused where it does not fit."""
    rows = np.atleast_2d(np.asarray(flux))
    if rows.ndim != 2 or wavelength.ndim != 1 or rows.shape[1] != len(wavelength):
        raise SpectrumError(
            Reason.LAYOUT_UNKNOWN,
            f"flux must be (N, P) with P = {wavelength.size} wavelengths; found {np.shape(flux)}.",
            "Give one row a spectrum, all on the same wavelengths.",
        )
    rows = rows.astype(np.float32 if rows.dtype.kind == "f" and rows.dtype.itemsize == 4 else np.float64, copy=False)
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise SpectrumError(
            Reason.NOT_FINITE,
            f"flux must be finite; row {bad[0]} holds NaN or infinite values ({len(bad)} such rows).",
            "Take `prepare_batch`, which repairs or sets such spectra aside.",
        )
    return rows


LAMOST_LRS = Modality("lamost_lrs", "lamost", lamost_lrs.GRID, lamost_lrs.UNIT, LRS_WINDOWS, "LAMOST low resolution", lamost_lrs.prepare_lrs)
GAIA_XP = Modality("gaia_xp", "gaia", gaia_xp.GRID, gaia_xp.UNIT, XP_WINDOWS, "Gaia BP/RP", gaia_xp.prepare_xp)
MODALITIES: dict[str, Modality] = {modality.name: modality for modality in (LAMOST_LRS, GAIA_XP)}

for _modality in MODALITIES.values():
    _modality.wavelength.flags.writeable = False


def get_modality(name: str) -> Modality:
    """The modality of that name.

    Raises
    ------
    QueryError
        If there is none; the names there are, are listed.
    """
    try:
        return MODALITIES[name]
    except KeyError:
        raise QueryError(f"There is no modality '{name}'.", f"Choose one of: {', '.join(MODALITIES)}.") from None
