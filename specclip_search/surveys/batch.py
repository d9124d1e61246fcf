"""Preparation of many spectra at once: model input, errors, quality and rejections."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import Reason, SpectrumError
from ..preparation.bands import band_levels
from ..preparation.gridding import check_wavelength
from ..preparation.prepared import Prepared
from ..spectrum import Spectrum
from .modality import Modality

# errors are stored in 16 bits; one as large as this carries no information
LARGEST_ERROR = 6e4


def prepare_arrays(modality: Modality, wavelength: np.ndarray, flux: np.ndarray, ivar: np.ndarray) -> Prepared:
    """Prepare spectra that share one wavelength array.

    Parameters
    ----------
    modality
        The instrument.
    wavelength
        (P,) in the modality's unit, vacuum.
    flux, ivar
        (N, P) observed flux and its inverse variance; `ivar` at or below zero, or a flux that
        is not finite, marks a pixel that is interpolated over and counted.

    Returns
    -------
    Prepared
        A spectrum without a bad pixel has exactly the published input of `Modality.prepare`.

    Raises
    ------
    SpectrumError
        If the wavelengths are invalid or do not cover the modality's grid.
    """
    rows = _prepared(modality, wavelength, flux, ivar)
    if modality.keeps_bands:
        rows.sed[:] = _shape(wavelength, flux, ivar)
    return rows


def _shape(wavelength: np.ndarray, flux: np.ndarray, ivar: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return band_levels(np.asarray(wavelength, dtype=np.float64), _native(flux), _native(ivar))


def _prepared(modality: Modality, wavelength: np.ndarray, flux: np.ndarray, ivar: np.ndarray) -> Prepared:
    rows = Prepared.empty(len(flux), modality.size)
    with np.errstate(all="ignore"):  # overflows are detected below, row by row
        modality.prepare_rows(np.asarray(wavelength, dtype=np.float64), _native(flux), _native(ivar), rows)
    rows.error[~(rows.error <= LARGEST_ERROR)] = np.inf
    for row in np.flatnonzero(~np.isfinite(rows.flux).all(axis=1)):
        if rows.reasons[row] is None:
            rows.reject(int(row), Reason.NOT_FINITE, "the flux divided by its continuum overflows")
    return rows


def prepare_batch(modality: Modality, spectra: Sequence[Spectrum]) -> Prepared:
    """Prepare any spectra of one modality; unusable ones are rejected with their reason.

    Spectra on identical wavelengths are prepared together. Bad values in a spectrum's arrays never raise.
    """
    result = Prepared.empty(len(spectra), modality.size)
    for wavelength, pixels, places in _groups(modality, spectra, result):
        flux = np.stack([np.asarray(spectra[place].flux)[:pixels] for place in places])
        ivar = np.stack([np.asarray(spectra[place].ivar)[:pixels] for place in places])
        try:
            check_wavelength(np.asarray(spectra[places[0]].wavelength), modality.wavelength, modality.unit)
            result.put(places, _prepared(modality, wavelength, flux, ivar))
            if modality.keeps_bands:
                # checked for each spectrum, because a group shares only the pixels that the model's input uses
                for place in places:
                    one = spectra[place]
                    rows = (np.asarray(values)[None] for values in (one.flux, one.ivar))
                    result.sed[place] = _shape(one.wavelength, *rows)[0]
        except SpectrumError as error:
            for place in places:
                result.reject(place, error.reason, error.message)
    return result


def _groups(modality: Modality, spectra: Sequence[Spectrum], result: Prepared,
            ) -> list[tuple[np.ndarray, int, list[int]]]:
    """Spectra of equal wavelengths: (wavelength, number of pixels, places).

    LAMOST files of one plate share their blue pixels but end at different red ones, so wavelengths
    are compared only as far as they affect the result.
    """
    groups: list[tuple[np.ndarray, int, list[int]]] = []
    for place, spectrum in enumerate(spectra):
        wavelength = np.asarray(spectrum.wavelength)
        problem = _shape_problem(spectrum, modality)
        if problem is not None:
            result.reject(place, *problem)
            continue
        pixels = len(wavelength)
        if modality.reach is not None:
            pixels = max(2, int(np.searchsorted(wavelength, modality.reach)))
        for known, count, places in reversed(groups):
            if count == pixels and np.array_equal(known, wavelength[:pixels]):
                places.append(place)
                break
        else:
            groups.append((wavelength[:pixels], pixels, [place]))
    return groups


def _shape_problem(spectrum: Spectrum, modality: Modality) -> tuple[Reason, str] | None:
    shapes = np.shape(spectrum.wavelength), np.shape(spectrum.flux), np.shape(spectrum.ivar)
    if len(set(shapes)) != 1 or len(shapes[0]) != 1:
        return Reason.LAYOUT_UNKNOWN, f"wavelength, flux and ivar must be 1-D arrays of equal length; found {shapes}"
    if shapes[0][0] < 2:
        return Reason.NO_COVERAGE, f"a spectrum of {shapes[0][0]} pixels"
    if spectrum.modality != modality.name:
        return Reason.LAYOUT_UNKNOWN, f"a {modality.name} spectrum was expected; found {spectrum.modality}"
    wavelength = np.asarray(spectrum.wavelength)
    if not np.all(wavelength[1:] > wavelength[:-1]):
        if not np.isfinite(wavelength).all():
            return Reason.NOT_FINITE, "wavelengths must be finite; some are NaN or infinite"
        return Reason.NOT_MONOTONIC, "wavelengths must strictly increase"
    return None


def _native(values: np.ndarray) -> np.ndarray:
    """The same values in native byte order; float32 is kept, everything else becomes float64."""
    array = np.asarray(values)
    single = array.dtype.kind == "f" and array.dtype.itemsize == 4
    return array.astype(np.float32 if single else np.float64, copy=False)
