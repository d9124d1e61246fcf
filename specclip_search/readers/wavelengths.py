"""Conversion of a spectrum's wavelengths to those of a modality.

Unit and medium (air or vacuum) must be given by the file or the user; they are never guessed.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import QueryError, Reason, SpectrumError
from ..spectrum import Spectrum
from ..surveys import GAIA_XP, MODALITIES, XP, Modality, get_modality, own_encoders

if TYPE_CHECKING:
    from .registry import ReadOptions

def air_to_vacuum(wavelength: np.ndarray) -> np.ndarray:
    """Convert wavelengths in standard air to vacuum, both in Angstrom.

    The refractive index is that of Birch & Downs (1994, Metrologia 31, 315), as used by the VALD
    database (N. Piskunov's inverse of it); accurate to 0.001 Angstrom between 2000 and 100000 Angstrom.

    Parameters
    ----------
    wavelength
        (P,) float64, Angstrom.
    """
    s2 = (1e4 / np.asarray(wavelength, dtype=np.float64)) ** 2
    index = (1.0 + 8.336624212083e-5 + 2.408926869968e-2 / (130.1065924522 - s2)
             + 1.599740894897e-4 / (38.92568793293 - s2))
    return wavelength * index


# a factor to nm is exact for every unit below
_PER_ANGSTROM = {"angstrom": 1.0, "nm": 10.0, "um": 1e4, "m": 1e10}
_UNIT_NAMES = {
    "angstrom": "angstrom", "angstroms": "angstrom", "aa": "angstrom", "a": "angstrom", "å": "angstrom",
    "0.1nm": "angstrom", "0.1 nm": "angstrom",
    "nm": "nm", "nanometer": "nm", "nanometers": "nm", "nanometre": "nm", "um": "um", "micron": "um", "microns": "um",
    "micrometer": "um", "µm": "um", "m": "m", "meter": "m", "metre": "m",
}
_MEDIA = {"vacuum": "vacuum", "vac": "vacuum", "air": "air"}


@dataclass(slots=True)
class Columns:
    """A spectrum as stored in a file, with the file's metadata.

    Attributes
    ----------
    wavelength, flux
        (P,) numbers in the file's units.
    ivar
        (P,) inverse variance, or None if the file has no errors.
    unit, medium
        Wavelength unit and ``air`` or ``vacuum``, as given by the file; None if it does not give them.
    """

    wavelength: np.ndarray
    flux: np.ndarray
    ivar: np.ndarray | None
    unit: str | None = None
    medium: str | None = None
    spec_id: int | None = None
    meta: dict[str, Any] | None = None


def to_spectrum(columns: Columns, options: ReadOptions, source: str) -> Spectrum:
    """The spectrum in vacuum and in its modality's unit, in increasing wavelength.

    Raises
    ------
    SpectrumError
        `layout_unknown`, if neither the file nor the caller gives the unit, the medium or the modality;
        `no_coverage`, if no modality's range is covered.
    """
    known = _archive_grid(columns)
    unit = known or _unit(options.unit or columns.unit, source)
    medium = "vacuum" if known else _medium(options.medium or columns.medium, source)
    angstrom = np.asarray(columns.wavelength, dtype=np.float64) * _PER_ANGSTROM[unit]
    if medium == "air":
        angstrom = air_to_vacuum(angstrom)
    modality = _modality(XP if known else options.modality, angstrom, source)
    wavelength = angstrom / _PER_ANGSTROM[modality.unit.lower()]
    if known:
        wavelength = GAIA_XP.wavelength.copy()
    flux = np.asarray(columns.flux, dtype=np.float64)
    ivar, estimated = (columns.ivar, False) if columns.ivar is not None else (_estimated_ivar(flux), True)
    ivar = np.asarray(ivar, dtype=np.float64)
    if len(wavelength) > 1 and wavelength[0] > wavelength[-1]:
        wavelength, flux, ivar = wavelength[::-1].copy(), flux[::-1].copy(), ivar[::-1].copy()
    meta = {"release": options.release, "source_id": None, **(columns.meta or {}), "source": source}
    if estimated:
        meta["ivar_estimated"] = True
    return Spectrum(wavelength, flux, ivar, modality.name, columns.spec_id, meta)


def _archive_grid(columns: Columns) -> str | None:
    """'nm' for the Gaia archive's grid of 343 values, which is unambiguous; else None."""
    grid = GAIA_XP.wavelength
    wavelength = np.asarray(columns.wavelength)
    return "nm" if wavelength.shape == grid.shape and np.allclose(wavelength, grid, rtol=0, atol=1e-6) else None


def _unit(text: str | None, source: str) -> str:
    if text is None:
        raise SpectrumError(Reason.LAYOUT_UNKNOWN, f"{source} does not give the unit of its wavelengths.",
                            "State it with --unit Angstrom (or nm, um); in Python unit='Angstrom'.")
    try:
        return _UNIT_NAMES[text.strip().lower()]
    except KeyError:
        raise SpectrumError(Reason.LAYOUT_UNKNOWN, f"{source}: '{text}' is not a known wavelength unit.",
                            "State one of Angstrom, nm, um, m with --unit.") from None


def _medium(text: str | None, source: str) -> str:
    if text is None:
        raise SpectrumError(Reason.LAYOUT_UNKNOWN, f"{source} does not say whether wavelengths are in air or vacuum.",
                            "State it with --medium air or --medium vacuum; in Python medium='air'.")
    try:
        return _MEDIA[text.strip().lower()]
    except KeyError:
        raise SpectrumError(Reason.LAYOUT_UNKNOWN, f"{source}: '{text}' is not a medium; expected air or vacuum.",
                            "State it with --medium air or --medium vacuum; in Python medium='air'.") from None


def _with_encoders() -> list[Modality]:
    return [MODALITIES[name] for name in own_encoders()]


def _modality(name: str | None, angstrom: np.ndarray, source: str) -> Modality:
    if name is not None:
        try:
            return get_modality(name)
        except QueryError as error:
            raise SpectrumError(Reason.LAYOUT_UNKNOWN, error.message, error.hint) from None
    finite = angstrom[np.isfinite(angstrom)]
    low, high = (finite.min(), finite.max()) if len(finite) else (math.nan, math.nan)
    covered = []
    for modality in _with_encoders():
        scale = _PER_ANGSTROM[modality.unit.lower()]
        if low <= modality.wavelength[0] * scale and high >= modality.wavelength[-1] * scale:
            covered.append(modality)
    if len(covered) == 1:
        return covered[0]
    names = " or ".join(modality.name for modality in _with_encoders())
    if covered:
        raise SpectrumError(Reason.LAYOUT_UNKNOWN, f"{source} covers the range of more than one modality.",
                            f"State it with --as {names}; in Python modality='{next(iter(MODALITIES))}'.")
    needs = ", ".join(repr(modality) for modality in _with_encoders())
    raise SpectrumError(Reason.NO_COVERAGE, f"{source} covers {low:.0f}-{high:.0f} Angstrom, the range of no modality.",
                        f"Needed: {needs}. Check the unit.")


def _estimated_ivar(flux: np.ndarray) -> np.ndarray:
    """One inverse variance for all pixels from the scatter of third differences, for files without errors.

    DER_SNR: Stoehr et al. 2008, ASP Conf. 394, 505.
    """
    good = flux[np.isfinite(flux)]
    if len(good) < 5:
        return np.zeros_like(flux)
    noise = 1.482602 / math.sqrt(6.0) * float(np.median(np.abs(2.0 * good[2:-2] - good[:-4] - good[4:])))
    scale = float(np.median(np.abs(good)))
    noise = max(noise, 1e-4 * scale)  # limits the accuracy of noise-free model spectra
    return np.where(np.isfinite(flux), 1.0 / noise**2 if noise > 0 else 0.0, 0.0)


# -- column names ---------------------------------------------------------------------------

_NAMES = {
    "wavelength": ("wavelength", "wave", "lambda", "lam", "wl", "loglam", "wavelength_vac", "wave_vac",
                   "wavelength_air", "wave_air", "spectral_axis"),
    "flux": ("flux", "flux_density", "intensity", "spec", "f_lambda", "flam"),
    "ivar": ("ivar", "inverse_variance", "invvar"),
    "error": ("flux_error", "error", "err", "sigma", "uncertainty", "flux_err", "noise", "std", "stdev"),
    "mask": ("mask", "and_mask", "andmask"),
}


def columns_from_arrays(arrays: dict[str, np.ndarray], units: dict[str, str | None] | None = None) -> Columns | None:
    """A spectrum from arrays (P,) with the usual names; None if wavelength or flux is missing."""
    lowered = {re.sub(r"[^a-z0-9_]", "", name.lower()): name for name in arrays}
    found = {role: next((lowered[name] for name in names if name in lowered), None) for role, names in _NAMES.items()}
    if found["wavelength"] is None or found["flux"] is None:
        return None
    name = found["wavelength"]
    wavelength, unit = np.asarray(arrays[name], np.float64), (units or {}).get(name)
    medium = next((m for m in ("air", "vacuum") if m[:3] in name.lower().split("_")), None)
    if name.lower() == "loglam":
        wavelength, unit = 10.0**wavelength, "Angstrom"
    return Columns(wavelength, np.asarray(arrays[found["flux"]], np.float64), _ivar(arrays, found), unit, medium)


def _ivar(arrays: dict[str, np.ndarray], found: dict[str, str | None]) -> np.ndarray | None:
    if found["ivar"] is not None:
        ivar = np.asarray(arrays[found["ivar"]], np.float64)
    elif found["error"] is not None:
        error = np.asarray(arrays[found["error"]], np.float64)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ivar = np.where(error > 0, error**-2.0, 0.0)
    else:
        return None
    if found["mask"] is not None:
        ivar = np.where(np.asarray(arrays[found["mask"]]) != 0, 0.0, ivar)
    return ivar
