"""An instrument's physics: its wavelength grid and how raw flux becomes the model's input.

Named stretches of the two instruments' spectra, for readers and for residuals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ..errors import QueryError, Reason, SpectrumError
from . import gaia_xp, lamost_lrs


@dataclass(frozen=True, slots=True)
class SpectralWindow:
    """A stretch of spectrum with a name.

    Attributes
    ----------
    lo, hi
        Ends, inclusive, vacuum, in `unit`.
    note
        What it measures, in a few words.
    """

    name: str
    lo: float
    hi: float
    unit: str
    note: str


def _windows(unit: str, rows: list[tuple[str, float, float, str]]) -> tuple[SpectralWindow, ...]:
    return tuple(SpectralWindow(name, lo, hi, unit, note) for name, lo, hi, note in rows)


# Line wavelengths: NIST Atomic Spectra Database; band heads: Pearse & Gaydon; index bands follow the
# Lick/IDS definitions (Worthey et al. 1994, ApJS 94, 687; Worthey & Ottaviani 1997, ApJS 111, 377), shifted
# to vacuum and widened by the 350 km/s of halo stars, because spectra are not at rest.
LRS_WINDOWS = _windows(
    "Angstrom",
    [
        ("Fe I 4046", 4040.0, 4055.0, "neutral iron"),
        ("Sr II 4078", 4072.0, 4086.0, "ionised strontium: s-process, giants"),
        ("Hdelta", 4085.0, 4122.0, "hydrogen: temperature; width of hot and degenerate stars"),
        ("CN 4216", 4144.0, 4178.0, "CN violet band: nitrogen and carbon in giants"),
        ("Ca I 4227", 4219.0, 4237.0, "neutral calcium: cool dwarfs"),
        ("G band CH", 4284.0, 4319.0, "CH: carbon"),
        ("Hgamma", 4322.0, 4362.0, "hydrogen: temperature"),
        ("Fe I 4383", 4370.0, 4422.0, "neutral iron"),
        ("Mg II 4481", 4474.0, 4490.0, "ionised magnesium: A and B stars"),
        ("He I 4471", 4463.0, 4474.0, "neutral helium: B stars, hot subdwarfs"),
        ("Fe I 4531", 4515.0, 4561.0, "neutral iron and titanium"),
        ("Ba II 4554", 4549.0, 4562.0, "ionised barium: s-process"),
        ("C2 4737", 4668.0, 4742.0, "C2 Swan band: carbon stars"),
        ("He II 4686", 4680.0, 4694.0, "ionised helium: O stars, hot subdwarfs, emission"),
        ("Hbeta", 4842.0, 4882.0, "hydrogen: temperature, emission"),
        ("TiO 4955", 4955.0, 5005.0, "titanium oxide: M stars"),
        ("[O III] 5007", 4998.0, 5018.0, "nebular emission; Fe II in giants"),
        ("MgH 5100", 5070.0, 5140.0, "magnesium hydride: cool dwarfs"),
        ("C2 5165", 5100.0, 5167.0, "C2 Swan band: carbon stars"),
        ("Mg b", 5161.0, 5195.0, "neutral magnesium: gravity, alpha elements"),
        ("Fe I 5270", 5247.0, 5288.0, "neutral iron, calcium"),
        ("Fe I 5328", 5315.0, 5354.0, "neutral iron"),
        ("Fe I 5406", 5390.0, 5417.0, "neutral iron, chromium"),
        ("TiO 5448", 5448.0, 5500.0, "titanium oxide: M stars"),
        ("continuum 4000", 4000.0, 4040.0, "blue end: metallicity, flux calibration"),
        ("continuum 4600", 4600.0, 4665.0, "few lines"),
        ("continuum 5550", 5530.0, 5598.8, "few lines; red end of the model's range"),
    ],
)

# XP resolves 30-100 nm^-1: windows are as wide as the line-spread function, about 10 nm in the blue
XP_WINDOWS = _windows(
    "nm",
    [
        ("XP blue end", 336.0, 362.0, "ultraviolet: hot companions, extinction, metallicity"),
        ("Balmer jump", 362.0, 388.0, "Balmer jump: gravity of A and F stars"),
        ("Ca HK", 388.0, 402.0, "calcium H and K: metallicity"),
        ("Hdelta", 402.0, 416.0, "hydrogen: temperature"),
        ("G band CH", 422.0, 444.0, "CH and Hgamma: carbon, temperature"),
        ("continuum 460", 450.0, 468.0, "blue continuum; C2 4737 begins after"),
        ("C2 473", 466.0, 477.0, "C2 Swan band: carbon stars"),
        ("Hbeta", 478.0, 496.0, "hydrogen: temperature, emission"),
        ("Mg b MgH", 506.0, 526.0, "Mg b, MgH and C2 5165: gravity, metallicity, carbon"),
        ("continuum 540", 530.0, 556.0, "around the flux that all is divided by"),
        ("Na D", 580.0, 600.0, "sodium D: cool dwarfs, interstellar gas"),
        ("TiO 617", 612.0, 634.0, "titanium oxide, CaH 6385: M stars"),
        ("BP RP join", 634.0, 646.0, "where BP hands over to RP: calibration"),
        ("Halpha", 648.0, 666.0, "hydrogen: emission, temperature"),
        ("CaH TiO 680", 674.0, 704.0, "CaH and TiO: M dwarfs and giants"),
        ("TiO 710", 705.0, 732.0, "titanium oxide: M stars"),
        ("continuum 750", 740.0, 756.0, "pseudo-continuum peak of M stars"),
        ("TiO VO 760", 757.0, 776.0, "titanium and vanadium oxide: M stars"),
        ("CN 790", 785.0, 812.0, "CN red system: carbon stars"),
        ("Na I TiO 820", 814.0, 834.0, "sodium doublet: gravity of M stars"),
        ("Ca triplet", 846.0, 872.0, "calcium triplet: metallicity, gravity, emission"),
        ("Paschen jump", 818.0, 846.0, "Paschen jump: A and B stars"),
        ("TiO 890", 880.0, 900.0, "titanium oxide: late M"),
        ("CN 920", 912.0, 940.0, "CN 9140 of carbon stars"),
        ("FeH 990", 980.0, 1000.0, "Wing-Ford band: late M dwarfs"),
        ("XP red end", 1000.0, 1020.0, "red continuum: cool companions, extinction"),
    ],
)


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


LAMOST_LRS = Modality(
    "lamost_lrs", "lamost", lamost_lrs.GRID, lamost_lrs.UNIT, LRS_WINDOWS, "LAMOST low resolution",
    lamost_lrs.prepare_lrs,
)
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
