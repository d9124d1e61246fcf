"""specutils in both directions: its loaders for formats without a reader here, and a LAMOST loader for it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MissingExtra, Reason, SpectrumError
from ..spectrum import Spectrum
from .content import Content, look
from .lamost import read_lamost
from .registry import ReadOptions
from .wavelengths import Columns, to_spectrum

LOADER_NAME = "LAMOST LRS"


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


def register_with_specutils() -> None:
    """Register a LAMOST LRS loader with specutils: ``Spectrum.read(path)`` then reads both layouts.

    Raises
    ------
    MissingExtra
        If specutils is not installed.
    """
    if find_spec("specutils") is None:
        raise MissingExtra("specutils", "specutils", "Registering the LAMOST loader")
    from specutils import Spectrum as Theirs
    from specutils.io.registers import data_loader

    data_loader(LOADER_NAME, identifier=_is_lamost, dtype=Theirs, extensions=["fits", "fits.gz"], priority=10,
                force=True)(_load)


def _is_lamost(origin: str, path: Any, fileobj: Any, *args: Any, **kwargs: Any) -> bool:
    from .lamost import is_lamost

    name = path if isinstance(path, str | Path) else args[0] if args and isinstance(args[0], str | Path) else None
    try:
        return name is not None and is_lamost(look(name))
    except SpectrumError:
        return False


def _load(file_obj: Any, **kwargs: Any) -> Any:
    from astropy import units
    from astropy.nddata import InverseVariance
    from specutils import Spectrum as Theirs

    ours = read_lamost(Path(getattr(file_obj, "name", file_obj)))
    # LAMOST's fluxes are relative: the header gives no unit
    return Theirs(flux=ours.flux * units.dimensionless_unscaled, spectral_axis=ours.wavelength * units.AA,
                  uncertainty=InverseVariance(ours.ivar), mask=ours.ivar <= 0,
                  meta={"obsid": ours.spec_id, **ours.meta})
