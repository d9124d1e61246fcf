"""A spectrum of any survey as an encoder's own instrument would have seen it.

The encoders know LAMOST LRS and Gaia XP. A spectrum whose range covers such an instrument's grid wholly or
partly is degraded to its resolution, resampled with its errors, and masked (inverse variance 0) where it
measured nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..constants import C_KM_S
from ..errors import Reason, SpectrumError
from ..preparation.continuum import median_of_seven
from ..preparation.line_spread import (
    GAP_STEPS,
    LAMOST_GRID,
    cached_matrix,
    lrs_resolution,
    pixel_widths,
    sigma_of_power,
    xp_fwhm,
)
from ..spectrum import Spectrum
from .gaia_xp import GAIA_XP
from .gaia_xp import GRID as XP_GRID
from .lamost_lrs import GRID as LRS_GRID
from .lamost_lrs import LAMOST_LRS

LRS, XP = LAMOST_LRS.name, GAIA_XP.name
#: W m-2 nm-1 of each calibrated flux unit
_WATTS = {"1e-17 erg s-1 cm-2 Angstrom-1": 1e-19, "erg s-1 cm-2 Angstrom-1": 1e-2, "W m-2 nm-1": 1.0}
#: share of an encoder's grid below which a spectrum says too little to be seen as that instrument's
LEAST_SHARE = 0.1
#: resolving power of a spectrum that does not say its own: taken as sharp enough to be degraded
UNKNOWN_POWER = 1e6
COVARIANCE_LAGS = 8
LEAST_GOOD_WEIGHT = 0.6
ENVELOPE_PASSES = 10
CONTINUUM_SPAN = (3700.0, 5700.0)
CONTINUUM_DEGREE = 5
LEAST_STRETCH = 60
# an arm of LAMOST MRS (490 Angstrom, its blaze uncorrected) needs degree 4 or 5, measured on three nights of one star
ANGSTROM_A_DEGREE = 90.0


@dataclass(frozen=True, slots=True)
class SeenAs:
    """A spectrum on another instrument's pixels.

    Attributes
    ----------
    spectrum
        Of that instrument's modality; `ivar` is 0 where the original measured nothing.
    share
        Covered share of the encoder's grid, 0 to 1.
    matrix
        (n, P) sparse weights of the original's pixels in each of the new ones.
    source_ivar
        (P,) of the original.
    """

    spectrum: Spectrum
    share: float
    matrix: Any
    source_ivar: np.ndarray

    def covariance(self, lags: int = COVARIANCE_LAGS) -> np.ndarray:
        """(lags, n) covariance of each pixel with itself, the next, and so on; NaN where either is not covered.

        Neighbours share pixels of the original: a mean over many is less certain than its errors alone say.
        """
        with np.errstate(divide="ignore"):
            variance = np.where(self.source_ivar > 0, 1.0 / self.source_ivar, 0.0)
        weights = _usable_weights(self.matrix, self.source_ivar > 0)
        square = (weights * variance) @ weights.T
        size = weights.shape[0]
        result = np.full((lags, size), np.nan)
        known = self.spectrum.ivar > 0
        for lag in range(min(lags, size)):
            both = known[: size - lag] & known[lag:]
            result[lag, : size - lag] = np.where(both, square.diagonal(lag), np.nan)
        return result


@dataclass(frozen=True, slots=True)
class _Target:
    wavelength: np.ndarray
    grid: np.ndarray
    unit_angstrom: float
    sigma: Callable[[np.ndarray], np.ndarray]
    title: str


def _targets() -> dict[str, _Target]:
    return {
        LRS: _Target(LAMOST_GRID, LRS_GRID, 1.0, lambda wave: sigma_of_power(wave, lrs_resolution(wave)), "LAMOST LRS"),
        XP: _Target(
            10.0 * XP_GRID,
            10.0 * XP_GRID,
            10.0,
            lambda wave: 10.0 * xp_fwhm(wave / 10.0) / np.sqrt(8.0 * np.log(2.0)),
            "Gaia XP",
        ),
    }


def seen_as(spectrum: Spectrum, modality: str, *, least_share: float = LEAST_SHARE) -> SeenAs:
    """The spectrum as the instrument `modality` would show it.

    Parameters
    ----------
    spectrum
        Vacuum Angstrom of any survey, its resolution in `spectrum.resolution`.
    modality
        ``lamost_lrs`` or ``gaia_xp``; the latter needs a calibrated flux.
    least_share
        Share of the encoder's grid that must be covered.

    Raises
    ------
    SpectrumError
        `no_coverage`, where less is covered; `layout_unknown`, where the flux is not calibrated or there is no such
        instrument.
    """
    targets = _targets()
    target = targets.get(modality)
    if target is None:
        raise SpectrumError(
            Reason.LAYOUT_UNKNOWN, f"No spectrum can be seen as '{modality}'.", f"Choose one of: {', '.join(targets)}."
        )
    scale = 1.0
    if modality == XP:
        unit = spectrum.meta.get("flux_unit")
        if unit not in _WATTS or spectrum.meta.get("normalised"):
            raise SpectrumError(
                Reason.LAYOUT_UNKNOWN,
                f"{_name(spectrum)} has relative flux; Gaia XP needs a calibrated one.",
                f"See it as another instrument: --as {LRS}.",
            )
        scale = _WATTS[unit]
    wavelength = _barycentric(spectrum)
    share = _share(wavelength, np.asarray(spectrum.ivar) > 0, target.grid)
    if share < least_share:
        raise SpectrumError(
            Reason.NO_COVERAGE,
            f"{_name(spectrum)} covers {wavelength[0]:.0f}-{wavelength[-1]:.0f} Angstrom, {share:.0%} of what "
            f"{target.title} input needs ({target.grid[0]:.0f}-{target.grid[-1]:.0f}).",
            f"At least {least_share:.0%} is needed; give an optical spectrum of the star.",
        )
    flux, ivar = np.asarray(spectrum.flux, np.float64), np.asarray(spectrum.ivar, np.float64)
    matrix = cached_matrix(
        wavelength, _source_sigma(spectrum, wavelength), target.wavelength, target.sigma(target.wavelength)
    )
    new_flux, new_ivar = resample(matrix, flux, ivar)
    seen = replace(
        spectrum,
        wavelength=target.wavelength / target.unit_angstrom,
        flux=new_flux * scale,
        ivar=new_ivar / scale**2,
        modality=modality,
        resolution=None,
        meta={**spectrum.meta, "seen_from": spectrum.modality, "covered": share},
    )
    return SeenAs(seen, share, matrix, ivar)


def best_seen_as(
    spectrum: Spectrum, modalities: tuple[str, ...], *, least_share: float = LEAST_SHARE
) -> SeenAs:
    """The spectrum seen as whichever of an encoder's instruments it covers the larger share of.

    Raises
    ------
    SpectrumError
        The reason of the first instrument, where it can be seen as none.
    """
    found: list[SeenAs] = []
    problem: SpectrumError | None = None
    for modality in modalities:
        try:
            found.append(seen_as(spectrum, modality, least_share=least_share))
        except SpectrumError as error:
            problem = problem or error
    if not found:
        raise problem or SpectrumError(Reason.NO_COVERAGE, "There is no instrument to be seen as.", f"Name one: {LRS}.")
    return max(found, key=lambda one: one.share)  # the first of equals: the sharper instrument


def resample(matrix: Any, flux: np.ndarray, ivar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) flux and inverse variance through `matrix`; bad pixels are left out of the means.

    A target pixel more than 40 per cent of whose weight lies on bad pixels gets inverse variance 0 and flux NaN.
    """
    good = ivar > 0
    weight = matrix @ good.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (matrix @ np.where(good, flux, 0.0)) / weight
        variance = (_squared(matrix) @ np.where(good, 1.0 / ivar, 0.0)) / weight**2
        covered = weight >= LEAST_GOOD_WEIGHT
        return np.where(covered, mean, np.nan), np.where(covered & (variance > 0), 1.0 / variance, 0.0)


def _squared(matrix: Any) -> Any:
    squared = matrix.copy()
    squared.data = matrix.data**2
    return squared


def _usable_weights(matrix: Any, good: np.ndarray) -> Any:
    from scipy.sparse import diags_array

    weight = matrix @ good.astype(np.float64)
    inverse = np.where(weight >= LEAST_GOOD_WEIGHT, 1.0 / np.where(weight > 0, weight, 1.0), 0.0)
    return (diags_array(inverse) @ (matrix * good)).tocsr()


def _barycentric(spectrum: Spectrum) -> np.ndarray:
    wavelength = np.asarray(spectrum.wavelength, np.float64)
    correction = spectrum.meta.get("barycentric_correction")
    if spectrum.frame == "observed" and correction is not None:
        wavelength = wavelength * (1.0 + float(correction) / C_KM_S)
    return wavelength


def _source_sigma(spectrum: Spectrum, wavelength: np.ndarray) -> np.ndarray:
    power = UNKNOWN_POWER if spectrum.resolution is None else spectrum.resolution
    power = np.broadcast_to(np.asarray(power, np.float64), wavelength.shape)
    known = np.isfinite(power) & (power > 0)
    if not known.any():
        power = np.full(wavelength.shape, UNKNOWN_POWER)
    elif not known.all():
        power = np.interp(wavelength, wavelength[known], power[known])
    return sigma_of_power(wavelength, power)


def _share(wavelength: np.ndarray, good: np.ndarray, grid: np.ndarray) -> float:
    """Share of `grid` that lies between good pixels no further apart than grid points or eight pixels."""
    known = wavelength[good]
    if len(known) < 2:
        return 0.0
    after = np.searchsorted(known, grid)
    inside = (after > 0) & (after < len(known))
    after = np.clip(after, 1, len(known) - 1)
    apart = known[after] - known[after - 1]
    allowed = np.maximum(GAP_STEPS * np.interp(grid, wavelength, pixel_widths(wavelength)), 2.0 * np.gradient(grid))
    return float((inside & (apart <= allowed)).mean())


def _name(spectrum: Spectrum) -> str:
    return str(spectrum.meta.get("source") or f"a {spectrum.modality} spectrum")


# -- model input of a spectrum that covers LRS's range only partly -------------------------------------------------


def partial_lrs_input(seen: SeenAs) -> tuple[np.ndarray, np.ndarray]:
    """Flux over continuum, and its error, of what is covered; 1 and inf elsewhere.

    The published continuum is a polynomial of degree 5 over 3700-5700 Angstrom. Here the same fit is made to each
    stretch for itself, with degree 5 where it is longer than 450 Angstrom and a lower one else; a whole spectrum
    should be prepared by `prepare_batch`.

    Returns
    -------
    flux, error : (1462,) float32
        On the encoder's grid.
    """
    one = seen.spectrum
    flux, error = np.ones(len(LRS_GRID), np.float32), np.full(len(LRS_GRID), np.inf, np.float32)
    near = (one.wavelength >= CONTINUUM_SPAN[0]) & (one.wavelength <= CONTINUUM_SPAN[1])
    for first, beyond in _stretches((one.ivar > 0) & near):
        wavelength = one.wavelength[first:beyond]
        level = _envelope(wavelength, one.flux[first:beyond])
        with np.errstate(divide="ignore", invalid="ignore"):
            sigma = np.where(level > 0, one.ivar[first:beyond] ** -0.5 / level, np.inf)
        inside = (wavelength[0] <= LRS_GRID) & (wavelength[-1] >= LRS_GRID)
        ratio = np.where(level > 0, one.flux[first:beyond] / np.where(level > 0, level, 1.0), 1.0)
        flux[inside] = np.interp(np.log(LRS_GRID[inside]), np.log(wavelength), ratio)
        error[inside] = np.interp(np.log(LRS_GRID[inside]), np.log(wavelength), np.minimum(sigma, 1e6))
    error[error >= 1e5] = np.inf
    return flux, error


def _stretches(covered: np.ndarray) -> list[tuple[int, int]]:
    """Runs of covered pixels that are long enough for a continuum; holes of up to seven pixels do not end one."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], covered, [False]]).astype(np.int8)))
    runs = [(int(first), int(beyond)) for first, beyond in edges.reshape(-1, 2)]
    return [(first, beyond) for first, beyond in runs if beyond - first >= LEAST_STRETCH]


def _envelope(wavelength: np.ndarray, flux: np.ndarray) -> np.ndarray:
    degree = int(np.clip((wavelength[-1] - wavelength[0]) / ANGSTROM_A_DEGREE, 1, CONTINUUM_DEGREE))
    scaled = np.interp(wavelength, (wavelength[0], wavelength[-1]), (-1.0, 1.0))
    basis, _ = np.linalg.qr(np.polynomial.chebyshev.chebvander(scaled, degree))
    target = np.asarray(median_of_seven(np.pad(flux, 3, mode="edge")[None])[0, 3:-3], np.float64)
    fit = basis @ (basis.T @ target)
    for _ in range(ENVELOPE_PASSES):
        target = np.maximum(fit, target)
        fit = basis @ (basis.T @ target)
    return fit
