"""LAMOST low resolution (LRS): flux divided by the pseudo-continuum, on a logarithmic grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ..atlas.schemas import described
from ..errors import Reason
from ..preparation.continuum import CHUNK_ROWS, ContinuumGrid, continuum, continuum_grid, positive
from ..preparation.gridding import UNKNOWN_VARIANCE, LinearMap, check_wavelength, linear_map
from ..preparation.prepared import Prepared
from ..preparation.quality import MAX_CLIPPED_FRACTION, good_pixels, reason_for_pixels, repair
from .modality import Modality, register, windows

LOG_START, LOG_STEP, SIZE = 3.602, 1e-4, 1462
LOG_GRID = np.linspace(LOG_START, LOG_START + LOG_STEP * (SIZE - 1), SIZE)
GRID = 10.0**LOG_GRID
UNIT = "Angstrom"


@dataclass(frozen=True, slots=True)
class LrsGrids:
    """The two fixed maps of one wavelength grid: to its continuum, and onto the model's grid."""

    continuum: ContinuumGrid
    onto_model: LinearMap

    @property
    def used(self) -> slice:
        return self.continuum.used


def lrs_grids(wavelength: np.ndarray) -> LrsGrids:
    """Fixed quantities of a wavelength array (P,), Angstrom; raises an error if it does not cover the grid."""
    wavelength = np.asarray(wavelength, dtype=np.float64)
    check_wavelength(wavelength, GRID, UNIT)
    grid = continuum_grid(wavelength)
    return LrsGrids(grid, linear_map(np.log10(wavelength[grid.used]), LOG_GRID))


def prepare_lrs(wavelength: np.ndarray, flux: np.ndarray) -> np.ndarray:
    """Published LRS input: (N, P) finite flux to (N, 1462) float64."""
    grids = lrs_grids(wavelength)
    used = flux[:, grids.used]
    result = np.empty((len(flux), SIZE))
    for start in range(0, len(flux), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        result[rows] = grids.onto_model.values(used[rows] / positive(continuum(grids.continuum, used[rows])))
    return result


ROWS_AT_ONCE = 24
# Angstrom; the fit ends at 5700, pixels beyond serve only to interpolate over a mask that crosses that end
REACH = 5900.0


def prepare_lrs_rows(wavelength: np.ndarray, flux: np.ndarray, ivar: np.ndarray, result: Prepared) -> None:
    """Fill `result` from (N, P) rows; a few rows at once, so that the data stay in the processor's cache."""
    grids = lrs_grids(wavelength)
    near = slice(grids.used.start, max(grids.used.stop, int(np.searchsorted(wavelength, REACH))))
    for start in range(0, len(flux), ROWS_AT_ONCE):
        rows = slice(start, min(start + ROWS_AT_ONCE, len(flux)))
        _prepare_rows(grids, wavelength[near], flux[rows, near], ivar[rows, near], start, result)


def _prepare_rows(grids: LrsGrids, wavelength: np.ndarray, flux: np.ndarray, ivar: np.ndarray, start: int,
                  result: Prepared) -> None:
    rows, pixels = slice(start, start + len(flux)), grids.used.stop - grids.used.start
    window = grids.onto_model.window
    good = good_pixels(flux, ivar)
    repaired = repair(wavelength, flux, good)[:, :pixels]
    flux, ivar, good = flux[:, :pixels], ivar[:, :pixels], good[:, :pixels]
    n_good = np.count_nonzero(good[:, window], axis=1)
    width = window.stop - window.start
    result.good_fraction[rows] = n_good / width
    result.n_repaired[rows] = width - n_good
    levels = continuum(grids.continuum, repaired)
    clipped = levels[:, window] <= 0.0
    result.n_clipped[rows] = np.count_nonzero(clipped, axis=1)
    divisor = positive(levels)
    result.flux[rows] = grids.onto_model.values(repaired / divisor)
    variance = _variance(ivar, good, divisor, window, clipped)
    result.error[rows] = grids.onto_model.sigma_from_variance(variance)
    result.snr[rows] = _median_snr(repaired[:, window], ivar[:, window], good[:, window])
    _reject_rows(flux[:, window], good[:, window], start, width, result)


def _variance(ivar: np.ndarray, good: np.ndarray, divisor: np.ndarray, window: slice,
              clipped: np.ndarray) -> np.ndarray:
    """(N, U) float32 variance of flux over continuum; unknown if a pixel is bad or has no continuum."""
    with np.errstate(divide="ignore", over="ignore", invalid="ignore", under="ignore"):
        variance = (1.0 / (ivar * divisor * divisor)).astype(np.float32)
    variance[~good] = UNKNOWN_VARIANCE
    variance[:, window][clipped] = UNKNOWN_VARIANCE
    return variance


def _median_snr(flux: np.ndarray, ivar: np.ndarray, good: np.ndarray) -> np.ndarray:
    """(N,) median over good pixels of flux times the square root of its inverse variance."""
    with np.errstate(over="ignore", invalid="ignore"):
        ratio = (flux * np.sqrt(np.where(good, ivar, 0.0))).astype(np.float32, copy=False)
    result = np.median(ratio, axis=1)
    for row in np.flatnonzero(~good.all(axis=1)):
        chosen = ratio[row, good[row]]
        result[row] = np.median(chosen) if len(chosen) else np.nan
    return result


def _reject_rows(flux: np.ndarray, good: np.ndarray, start: int, width: int, result: Prepared) -> None:
    limit = int(MAX_CLIPPED_FRACTION * width)
    suspect = ~good.all(axis=1) | (flux.min(axis=1) == flux.max(axis=1))
    for row in np.flatnonzero(suspect):
        found = reason_for_pixels(flux[row], good[row])
        if found is not None:
            result.reject(start + int(row), *found)
    for row in np.flatnonzero(result.n_clipped[start : start + len(flux)] > limit):
        if result.reasons[start + row] is None:
            count = int(result.n_clipped[start + row])
            result.reject(
                start + int(row), Reason.CONTINUUM_NOT_POSITIVE,
                f"at most {limit} pixels of the model's window may have no positive continuum; found {count}")


# Line wavelengths: NIST Atomic Spectra Database; band heads: Pearse & Gaydon; index bands follow the
# Lick/IDS definitions (Worthey et al. 1994, ApJS 94, 687; Worthey & Ottaviani 1997, ApJS 111, 377), shifted
# to vacuum and widened by the 350 km/s of halo stars, because spectra are not at rest.
WINDOWS = windows(
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

COLUMNS = (
    *(
        described(f"snr{band}", pa.float32(), f"signal to noise in the {band} band", ucd="stat.snr")
        for band in "ugriz"
    ),
    described(
        "z", pa.float32(), "redshift from the survey's header; c*z is the radial velocity", ucd="src.redshift"
    ),
    described("object_class", pa.string(), "class from the survey's header", ucd="src.class"),
    described("subclass", pa.string(), "subclass from the survey's header", ucd="src.spType"),
    described("lmjd", pa.int32(), "local modified Julian day of the observation", "d", "time.epoch"),
    described("planid", pa.string(), "plate plan"),
    described("spid", pa.int16(), "spectrograph number"),
    described("fiberid", pa.int16(), "fibre number"),
    described("fibermask", pa.int16(), "the survey's fibre mask; 0 is good", ucd="meta.code.qual"),
    described("uid", pa.string(), "the survey's identifier that groups visits of one star", ucd="meta.id"),
    described(
        "sed",
        pa.list_(pa.float32(), 15),
        "ln of the raw flux's mean in 15 bands from 4000 to 8850 Angstrom, less their mean; NaN where unknown",
        ucd="phot.flux.density",
    ),
)

LAMOST_LRS = register(
    Modality(
        "lamost_lrs", "lamost", GRID, UNIT, WINDOWS, "LAMOST low resolution", prepare_lrs, prepare_lrs_rows, COLUMNS,
        short="lrs", id_name="obsid", flux_label="flux / continuum", reach=REACH, keeps_bands=True, line_width=0.9,
        small_files=True,
    )
)
