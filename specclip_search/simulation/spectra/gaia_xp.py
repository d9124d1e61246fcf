"""Model spectra as Gaia XP would see them, and real XP spectra moved to other labels by their ratio."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .xp_correction import xp_correction

if TYPE_CHECKING:
    from .emulator import Emulator
    from .labels import FloatArray

XP_WAVELENGTH_NM = np.arange(336.0, 1021.0, 2.0)

# FWHM in nm at which model spectra at APOGEE labels, smoothed, match real spectra of 3,763 training stars of
# low extinction best, window by window between 370 and 900 nm; the step at 640 nm is the join of BP and RP
_FWHM_NM = {
    336.0: 6.0,
    370.0: 7.5,
    390.0: 8.0,
    430.0: 10.5,
    475.0: 12.0,
    510.0: 12.5,
    638.0: 13.0,
    642.0: 7.0,
    660.0: 7.0,
    720.0: 9.0,
    870.0: 12.0,
    1020.0: 14.0,
}


def xp_fwhm(wavelength_nm: FloatArray) -> FloatArray:
    """Full width at half maximum [nm] of XP's line spread in sampled mean spectra, by wavelength [nm]."""
    return np.interp(wavelength_nm, list(_FWHM_NM), list(_FWHM_NM.values()))


def smoothing_matrix(model_wavelength_nm: FloatArray) -> FloatArray:
    """(343, M) matrix that turns a model on evenly spaced wavelengths into XP's sampling, rows summing to 1."""
    sigma = xp_fwhm(XP_WAVELENGTH_NM) / np.sqrt(8.0 * np.log(2.0))
    offset = (XP_WAVELENGTH_NM[:, None] - model_wavelength_nm[None, :]) / sigma[:, None]
    weight = np.exp(-0.5 * offset**2)
    return weight / weight.sum(axis=1, keepdims=True)


def model_xp(emulator: Emulator, labels: FloatArray) -> FloatArray:
    """(N, 343) surface flux at XP's resolution [erg s-1 cm-2 A-1] of stars with these labels.

    The models end at 1039 nm and begin at 330 nm; nearer to an end than the line spread's half
    width the missing part is left out of the mean.
    """
    return emulator.sed(labels) @ smoothing_matrix(emulator.sed_wavelength / 10.0).T


def moved_xp(emulator: Emulator, flux: FloatArray, labels: FloatArray, target: FloatArray) -> FloatArray:
    """Real XP spectra of stars with `labels` as they would look at `target` labels.

    The real spectrum is multiplied by the ratio of two model spectra seen at XP's resolution, so
    that what the models lack, and the star's own reddening and calibration, cancel to first order;
    what the models lack at one of the two labels more than at the other is corrected by `xp_correction`.

    Parameters
    ----------
    flux
        (N, 343) observed flux on `XP_WAVELENGTH_NM`.
    labels, target
        (N, 5) labels of the observed stars and those wished for; both must be covered.

    Returns
    -------
    ndarray
        (N, 343) flux in the units of `flux`.
    """
    ratio = model_xp(emulator, target) / model_xp(emulator, labels)
    return flux * ratio * (xp_correction(target) / xp_correction(labels))
