"""specutils in both directions: its loaders for formats without a reader here; spectra and loaders for it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MissingExtra, Reason, SpectrumError
from ..spectrum import Spectrum
from ..surveys import units_of
from .content import Content, look
from .lamost import read_lamost
from .registry import ReadOptions
from .wavelengths import Columns, to_spectrum

LOADER_NAME = "LAMOST LRS"
OWN_NAME = "specclip-search spectrum"
OWN_COLUMNS = ["wavelength", "flux", "error"]


def specutils_is_there(content: Content) -> bool:
    """Whether specutils is installed and the file is FITS."""
    return content.kind == "fits" and find_spec("specutils") is not None


def read_with_specutils(content: Content, options: ReadOptions) -> Iterator[Spectrum]:
    """Read a file with the loader that specutils finds for it.

    Raises
    ------
    SpectrumError
        `layout_unknown`, if it finds none.
    """
    import warnings

    from specutils import Spectrum as Theirs

    with content.open_fits():
        pass  # its headers are sound: specutils opens the file by its name
    try:
        with warnings.catch_warnings(action="ignore"):
            theirs = Theirs.read(str(content.path))
    except Exception as error:  # any exception of a third-party loader
        text = (str(error) or type(error).__name__).splitlines()[0][:100]
        raise SpectrumError(Reason.LAYOUT_UNKNOWN,
                            f"{content.path} is in no layout supported here or by specutils ({text}).",
                            "Give it as a table with columns wavelength, flux and flux_error.") from None
    flux = np.asarray(theirs.flux.value, np.float64)
    if flux.ndim != 1:
        raise SpectrumError(Reason.LAYOUT_UNKNOWN, f"{content.path} holds an array of spectra {flux.shape}.",
                            "Give one spectrum per file.")
    angstrom = np.asarray(theirs.spectral_axis.to_value("Angstrom"), np.float64)
    columns = Columns(angstrom, flux, _ivar(theirs), "Angstrom")
    yield to_spectrum(columns, options, str(content.path))


def _ivar(theirs: Any) -> np.ndarray | None:
    if theirs.uncertainty is None:
        return None
    from astropy.nddata import InverseVariance

    ivar = np.asarray(theirs.uncertainty.represent_as(InverseVariance).array, np.float64)
    return ivar if theirs.mask is None else np.where(np.asarray(theirs.mask, bool), 0.0, ivar)


def to_specutils(spectrum: Spectrum) -> Any:
    """The spectrum as a `specutils.Spectrum`.

    Returns
    -------
    specutils.Spectrum
        Flux and wavelength with their units, the inverse variance as its uncertainty, pixels of `ivar` 0 masked. A
        relative flux, as of LAMOST LRS, has no dimension. Wavelengths are in vacuum; `meta["frame"]` says in which
        frame.

    Raises
    ------
    MissingExtra
        If specutils is not installed.

    Examples
    --------
    >>> from specclip_search import read_spectrum
    >>> theirs = read_spectrum("spec-55859-F5902_sp08-171.fits.gz").to_specutils()    # doctest: +SKIP
    """
    _require("A spectrum of specutils")
    from astropy import units
    from astropy.nddata import InverseVariance
    from specutils import Spectrum as Theirs

    axis, unit = (units.Unit(name) for name in units_of(spectrum))
    meta = {"spec_id": spectrum.spec_id, "modality": spectrum.modality, "frame": spectrum.frame, **spectrum.meta}
    return Theirs(flux=spectrum.flux * unit, spectral_axis=spectrum.wavelength * axis,
                  uncertainty=InverseVariance(spectrum.ivar), mask=spectrum.ivar <= 0, meta=meta)


def register_with_specutils() -> None:
    """Teach specutils the files of LAMOST LRS and the spectra that this package writes.

    ``specutils.Spectrum.read(path)`` then reads both layouts of LAMOST, and what `specclip-search spectrum --output
    FILE.fits` writes. Without it specutils reads the latter only where the flux has a unit.

    Raises
    ------
    MissingExtra
        If specutils is not installed.
    """
    _require("Registering loaders")
    from specutils import Spectrum as Theirs
    from specutils.io.registers import data_loader

    for name, identifier, load in ((LOADER_NAME, _is_lamost, _load_lamost), (OWN_NAME, _is_own, _load_own)):
        data_loader(name, identifier=identifier, dtype=Theirs, extensions=["fits", "fits.gz"], priority=10,
                    force=True)(load)


def _require(purpose: str) -> None:
    if find_spec("specutils") is None:
        raise MissingExtra("specutils", "specutils", purpose)


def _file(path: Any, args: tuple[Any, ...]) -> str | Path | None:
    return path if isinstance(path, str | Path) else args[0] if args and isinstance(args[0], str | Path) else None


def _is_lamost(origin: str, path: Any, fileobj: Any, *args: Any, **kwargs: Any) -> bool:
    from .lamost import is_lamost

    name = _file(path, args)
    try:
        return name is not None and is_lamost(look(name))
    except SpectrumError:
        return False


def _load_lamost(file_obj: Any, **kwargs: Any) -> Any:
    ours = read_lamost(Path(getattr(file_obj, "name", file_obj)))
    theirs = to_specutils(ours)
    theirs.meta["obsid"] = ours.spec_id
    return theirs


def _is_own(origin: str, path: Any, fileobj: Any, *args: Any, **kwargs: Any) -> bool:
    name = _file(path, args)
    if origin != "read" or name is None:
        return False
    try:
        content = look(name)
        if content.kind != "fits":
            return False
        from astropy.io import fits

        with content.open_fits() as file, fits.open(file) as hdus:
            return len(hdus) == 2 and [column.name for column in getattr(hdus[1], "columns", ())] == OWN_COLUMNS
    except (SpectrumError, OSError):
        return False


def _load_own(file_obj: Any, **kwargs: Any) -> Any:
    from astropy import units
    from astropy.nddata import StdDevUncertainty
    from astropy.table import QTable
    from specutils import Spectrum as Theirs

    # a missing error stays NaN: masked quantities are not what specutils takes
    table = QTable.read(getattr(file_obj, "name", file_obj), hdu=1, mask_invalid=False)
    flux, error = (units.Quantity(table[name]) for name in ("flux", "error"))
    return Theirs(flux=flux, spectral_axis=table["wavelength"], uncertainty=StdDevUncertainty(error),
                  mask=~(error.value > 0), meta={"header": table.meta})
