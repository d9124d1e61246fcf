"""Gaia XP: flux divided by the flux at 550 nm, on the archive's grid of 343 points."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ..atlas.schemas import described
from ..errors import Reason, SpectrumError
from ..preparation.gridding import UNKNOWN_VARIANCE, LinearMap, check_wavelength, linear_map
from ..preparation.prepared import Prepared
from ..preparation.quality import good_pixels, reason_for_pixels, repair
from .modality import Modality, register, windows

GRID = np.arange(336.0, 1021.0, 2.0)
UNIT = "nm"
REFERENCE_NM = 550.0
REFERENCE_INDEX = int(np.searchsorted(GRID, REFERENCE_NM))


def xp_map(wavelength: np.ndarray) -> LinearMap:
    """The map from a wavelength array (P,), nm, onto the grid; raises an error if it does not cover the grid."""
    wavelength = np.asarray(wavelength, dtype=np.float64)
    check_wavelength(wavelength, GRID, UNIT)
    return linear_map(wavelength, GRID)


def prepare_xp(wavelength: np.ndarray, flux: np.ndarray) -> np.ndarray:
    """Published XP input: (N, P) finite flux to (N, 343) float64, 1 at 550 nm.

    Raises
    ------
    SpectrumError
        `no_flux_at_550nm`, if the flux at 550 nm is not positive.
    """
    gridded = xp_map(wavelength).values(np.asarray(flux, dtype=np.float64))
    reference = gridded[:, REFERENCE_INDEX]
    bad = np.flatnonzero(~(reference > 0))
    if len(bad):
        raise SpectrumError(
            Reason.NO_FLUX_AT_550NM,
            f"the flux at 550 nm must be positive; row {bad[0]} has {reference[bad[0]]:.3g} ({len(bad)} such rows).",
            "Remove these spectra; they cannot be normalised.",
        )
    return gridded / reference[:, None]


# BP alone ends at 640 nm, RP alone begins at 635 nm: a spectrum without any good sample on one side
# of the join has only one of the two
BP_ALONE_NM, RP_ALONE_NM = 630.0, 645.0


def prepare_xp_rows(wavelength: np.ndarray, flux: np.ndarray, ivar: np.ndarray, result: Prepared) -> None:
    """Fill `result` from (N, P) rows."""
    onto_grid = xp_map(wavelength)
    good = good_pixels(flux, ivar)
    window = onto_grid.window
    n_good = np.count_nonzero(good[:, window], axis=1)
    width = window.stop - window.start
    result.good_fraction[:] = n_good / width
    result.n_repaired[:] = width - n_good
    gridded = onto_grid.values(repair(wavelength, flux, good).astype(np.float64, copy=False))
    reference = gridded[:, REFERENCE_INDEX]
    usable = np.isfinite(reference) & (reference > 0)
    divisor = np.where(usable, reference, 1.0)[:, None]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        variance = np.where(good, 1.0 / np.where(good, ivar, 1.0), UNKNOWN_VARIANCE)
        sigma = onto_grid.sigma_from_variance(variance)
        result.flux[:] = gridded / divisor
        result.error[:] = sigma / divisor
        result.snr[:] = np.median(np.where(np.isfinite(sigma), gridded / sigma, 0.0), axis=1)
        result.scale[:] = reference
    result.n_clipped[:] = np.count_nonzero(gridded <= 0.0, axis=1)
    _reject_rows(wavelength[window], flux[:, window], good[:, window], reference, usable, result)


def _reject_rows(wavelength: np.ndarray, flux: np.ndarray, good: np.ndarray, reference: np.ndarray, usable: np.ndarray,
               result: Prepared) -> None:
    blue, red = wavelength < BP_ALONE_NM, wavelength > RP_ALONE_NM
    suspect = ~good.all(axis=1) | (flux.min(axis=1) == flux.max(axis=1))
    for row in np.flatnonzero(suspect):
        has_blue, has_red = good[row, blue].any(), good[row, red].any()
        found = reason_for_pixels(flux[row], good[row])
        if has_blue != has_red:
            missing = "RP" if has_blue else "BP"
            found = Reason.MISSING_BP_OR_RP, f"both BP and RP are needed; {missing} has no good sample"
        if found is not None:
            result.reject(int(row), *found)
    for row in np.flatnonzero(~usable):
        if result.reasons[row] is None:
            result.reject(int(row), Reason.NO_FLUX_AT_550NM,
                             f"the flux at {REFERENCE_NM:.0f} nm must be positive; found {reference[row]:.3g}")


# XP resolves 30-100 nm^-1: windows are as wide as the line-spread function, about 10 nm in the blue
WINDOWS = windows(
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

FLUX_UNIT = "W m-2 nm-1"
COLUMNS = (
    described(
        "scale", pa.float32(), "flux at 550 nm that the spectrum was divided by", FLUX_UNIT, "phot.flux.density"
    ),
)

GAIA_XP = register(
    Modality(
        "gaia_xp", "gaia", GRID, UNIT, WINDOWS, "Gaia BP/RP", prepare_xp, prepare_xp_rows, COLUMNS,
        short="xp", id_name="source_id", flux_label="flux / flux at 550 nm", flux_unit=FLUX_UNIT,
        names_stars=True, line_width=1.6,
    )
)
