"""One spectrum in a FITS file of another survey: SDSS and BOSS, DESI, a table, a one-dimensional image."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import Reason, SpectrumError
from ..keys import INT64_MAX
from ..labels import standard_name
from ..spectrum import Spectrum
from .content import Content, decoding
from .registry import ReadOptions
from .wavelengths import Columns, columns_from_arrays, to_spectrum


def is_fits(content: Content) -> bool:
    """Whether the file is FITS; this reader is registered last of the FITS readers."""
    return content.kind == "fits"


def read_fits_spectrum(content: Content, options: ReadOptions) -> Iterator[Spectrum]:
    """The spectra of a FITS file, according to the layout of its HDUs.

    Raises
    ------
    SpectrumError
        `layout_unknown` if no layout fits; the message lists the supported layouts.
    """
    from astropy.io import fits

    with (decoding(content), warnings.catch_warnings(action="ignore"), content.open_fits() as stream,
          fits.open(stream, memmap=False) as hdus):
        found = list(_layouts(hdus))
    if not found:
        raise SpectrumError(
            Reason.LAYOUT_UNKNOWN, f"{content.path} is FITS, but holds no spectrum in a supported layout.",
            "Expected LAMOST, SDSS or DESI spectra, a table with wavelength and flux, or a 1-D image with "
            "CRVAL1 and CDELT1.")
    for row, columns in enumerate(found):
        yield to_spectrum(columns, options, f"{content.path}#{row}" if len(found) > 1 else str(content.path))


def _layouts(hdus: Any) -> Iterator[Columns]:
    names = [hdu.name.upper() for hdu in hdus]
    if "B_WAVELENGTH" in names and "B_FLUX" in names:
        yield from _desi(hdus)
        return
    for hdu in hdus[1:]:
        if getattr(hdu, "columns", None) is None or hdu.data is None or not len(hdu.data):
            continue
        rows = len(hdu.data) if _has_vectors(hdu) else 1
        found = 0
        for row in range(rows):
            columns = _table(hdu, hdus[0].header, row)
            if columns is None:
                break
            found += 1
            yield columns
        if found:
            return
    image = hdus[0].data
    if image is not None and np.squeeze(image).ndim == 1:
        columns = _image(np.squeeze(image), hdus[0].header)
        if columns is not None:
            yield columns


def _desi(hdus: Any) -> Iterator[Columns]:
    """DESI's blue arm, vacuum Angstrom, the only arm that covers the LAMOST LRS input; one row per target."""
    wavelength = np.asarray(hdus["B_WAVELENGTH"].data, np.float64)
    flux, ivar = (np.atleast_2d(np.asarray(hdus[name].data, np.float64)) for name in ("B_FLUX", "B_IVAR"))
    if "B_MASK" in hdus:
        ivar = np.where(np.atleast_2d(hdus["B_MASK"].data) != 0, 0.0, ivar)
    targets = hdus["FIBERMAP"].data if "FIBERMAP" in hdus else None
    for row in range(len(flux)):
        meta: dict[str, Any] = {"instrument": "DESI"}
        spec_id = None
        if targets is not None:
            spec_id = _whole(targets["TARGETID"][row])
            meta |= {"ra": float(targets["TARGET_RA"][row]), "dec": float(targets["TARGET_DEC"][row])}
        yield Columns(wavelength, flux[row], ivar[row], "Angstrom", "vacuum", spec_id, meta)


def _has_vectors(hdu: Any) -> bool:
    """Whether a table has a row a spectrum (MaStar), not a row a pixel (SDSS)."""
    names = hdu.columns.names
    return any(np.ndim(hdu.data[name][0]) == 1 for name in names if hdu.columns[name].format[-1:] in "EDJIKPQ")


def _table(hdu: Any, primary: Any, row: int) -> Columns | None:
    """A table of one row a pixel, or rows of vectors; SDSS and BOSS are the former, with `loglam` in vacuum."""
    names = hdu.columns.names
    vectors = _has_vectors(hdu)
    arrays: dict[str, np.ndarray] = {}
    for name in names:
        values = np.asarray(hdu.data[name][row] if vectors else hdu.data[name])
        if values.ndim == 1 and values.dtype.kind in "fiub":
            arrays[name] = values
    main = ("flux", "wavelength", "loglam", "wave")
    lengths = {len(values) for name, values in arrays.items() if name.lower() in main}
    arrays = {name: values for name, values in arrays.items() if len(values) in lengths}
    units = {name: hdu.columns[name].unit for name in names}
    columns = columns_from_arrays(arrays, units) if len(lengths) == 1 else None
    if columns is None:
        return None
    if vectors:
        columns.meta = _row_meta(hdu, row)
    columns.medium = columns.medium or _medium(hdu.header) or _medium(primary)
    if "loglam" in {name.lower() for name in names}:
        columns.medium = columns.medium or "vacuum"  # SDSS and BOSS: log10 of vacuum wavelength
        position = {"ra": _number(primary.get("PLUG_RA")), "dec": _number(primary.get("PLUG_DEC"))}
        columns.meta = {"instrument": "SDSS", **position}
    return columns


def _row_meta(hdu: Any, row: int) -> dict[str, Any]:
    """Position of a row's star, by the usual names."""
    found: dict[str, Any] = {}
    for name in hdu.columns.names:
        ours = {"objra": "ra", "objdec": "dec"}.get(name.lower(), standard_name(name))
        value = hdu.data[name][row] if ours in ("ra", "dec") else None
        if isinstance(value, float | np.floating) and np.isfinite(value):
            found.setdefault(ours, float(value))
    return found


def _image(flux: np.ndarray, header: Any) -> Columns | None:
    """A 1-D image with a linear or log-linear wavelength axis (Greisen et al. 2006, A&A 446, 747)."""
    start, step = header.get("CRVAL1"), header.get("CDELT1", header.get("CD1_1"))
    if not isinstance(start, int | float) or not isinstance(step, int | float) or step == 0:
        return None
    pixel = np.arange(len(flux)) + 1.0 - float(header.get("CRPIX1", 1.0))
    wavelength = start + step * pixel
    kind = str(header.get("CTYPE1", "")).upper()
    if header.get("DC-FLAG") == 1 or "LOG10" in kind:
        wavelength = 10.0**wavelength
    medium = "air" if kind.startswith("AWAV") else "vacuum" if kind.startswith("WAVE") else _medium(header)
    return Columns(wavelength, np.asarray(flux, np.float64), None, header.get("CUNIT1"), medium)


def _medium(header: Any) -> str | None:
    if isinstance(header.get("VACUUM"), bool | int):
        return "vacuum" if header["VACUUM"] else "air"
    stated = str(header.get("AIRORVAC", "")).strip().lower()
    return {"vac": "vacuum", "vacuum": "vacuum", "air": "air"}.get(stated)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(value: Any) -> int | None:
    number = int(value) if isinstance(value, int | np.integer) else -1
    return number if 0 <= number <= INT64_MAX else None
