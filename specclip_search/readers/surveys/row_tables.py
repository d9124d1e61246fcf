"""FITS tables in which every row is a spectrum: MaStar, and others with vector columns of wavelength and flux."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ...errors import Reason, SpectrumError
from ...spectrum import Spectrum
from ..containers.fits_bytes import Hdu, number_of, open_fits, text_of
from ..content import Content
from ..registry import Reader, ReadOptions
from ..survey_rows import Refused, good_ivar, ivar_of_error, median_snr, whole
from ..wavelengths import Columns, to_spectrum

_WAVELENGTH, _FLUX = ("WAVE", "WAVELENGTH", "LOGLAM", "LAMBDA"), ("FLUX", "SPEC", "FLUX_DENSITY")
_IVAR, _ERROR, _MASK = ("IVAR", "INVVAR"), ("FLUX_ERROR", "ERROR", "ERR", "SIGMA"), ("MASK", "AND_MASK")
_IDS = ("SOURCE_ID", "TARGETID", "OBSID", "SPECOBJID", "CATALOGID", "SPEC_ID", "ID")
_MANGA = re.compile(r"(\d{1,3})-(\d{1,12})")
MASTAR_RESOLUTION = 1800.0  # Yan et al. 2019, ApJ 883, 175


def has_row_spectra(content: Content) -> bool:
    """Whether a FITS file's first table has vector columns of wavelength and flux, a row a spectrum."""
    if content.kind != "fits" or b"BINTABLE" not in content.head or b"LAMOST" in content.head:
        return False
    try:
        return _table(open_fits(content)) is not None
    except SpectrumError:
        return False


def read_row_tables(content: Content, options: ReadOptions) -> Iterator[Spectrum | Refused]:
    """Every row of the table.

    Raises
    ------
    SpectrumError
        As `to_spectrum`, where neither the file nor the caller says unit or medium.
    """
    hdus = open_fits(content)
    found = _table(hdus)
    if found is None:
        raise SpectrumError(
            Reason.LAYOUT_UNKNOWN,
            f"{content.path} has no table of spectra in rows.",
            f"Expected vector columns {_WAVELENGTH[0]}, {_FLUX[0]} and {_IVAR[0]}.",
        )
    hdu, columns = found
    names = {
        role: next((name for name in choices if name in columns and columns[name].ndim == 2), None)
        for role, choices in (
            ("wavelength", _WAVELENGTH),
            ("flux", _FLUX),
            ("ivar", _IVAR),
            ("error", _ERROR),
            ("mask", _MASK),
        )
    }
    units = {
        str(hdu.header.get(f"TTYPE{number}", "")).strip().upper(): text_of(hdu.header.get(f"TUNIT{number}"))
        for number in range(1, len(columns) + 1)
    }
    medium = _medium(hdu.header) or _medium(hdus[0].header)
    mastar = "MANGAID" in columns
    for row in range(len(columns[str(names["flux"])])):
        values = {role: np.asarray(columns[name][row], np.float64) for role, name in names.items() if name is not None}
        flux = values["flux"]
        ivar = _ivar(values, flux)
        about = {
            name: text_of(column[row]) if column.dtype.kind == "S" else column[row]
            for name, column in columns.items()
            if column.ndim == 1
        }
        key = (
            _manga_key(about.get("MANGAID"))
            if mastar
            else next((whole(about[name]) for name in _IDS if whole(about.get(name)) is not None), None)
        )
        source = f"{content.path}#{row}"
        meta = {
            "ra": _first(about, "RA", "OBJRA", "PLUG_RA"),
            "dec": _first(about, "DEC", "OBJDEC", "PLUG_DEC"),
            "instrument": "MaStar" if mastar else None,
            "snr": median_snr(flux, ivar) if ivar is not None else None,
        }
        wavelength = values["wavelength"]
        unit = units.get(str(names["wavelength"]))
        if names["wavelength"] == "LOGLAM":
            wavelength, unit, medium = 10.0**wavelength, "Angstrom", medium or "vacuum"
        if mastar:
            unit, medium = unit or "Angstrom", medium or "vacuum"
            yield Spectrum(
                wavelength,
                flux,
                good_ivar(flux, np.zeros_like(flux) if ivar is None else ivar),
                "sdss",
                key,
                {
                    **meta,
                    "release": options.release or "mastar",
                    "source_id": None,
                    "source": source,
                    "medium": medium,
                    "flux_unit": "1e-17 erg s-1 cm-2 Angstrom-1",
                    "mangaid": about.get("MANGAID"),
                },
                whole(about.get("MJD")),
                "barycentric",
                MASTAR_RESOLUTION,
            )
            continue
        try:
            yield to_spectrum(Columns(wavelength, flux, ivar, unit, medium, key, meta), options, source)
        except SpectrumError as error:
            yield Refused(source, key, options.release, error.reason, f"{error.message} {error.hint}".strip())


def _table(hdus: list[Hdu]) -> tuple[Hdu, Mapping[str, np.ndarray]] | None:
    for hdu in hdus[1:]:
        if not hdu.is_table:
            continue
        columns = hdu.columns()
        wide = {name for name, values in columns.items() if values.ndim == 2 and values.shape[1] > 1}
        if wide & set(_WAVELENGTH) and wide & set(_FLUX):
            return hdu, columns
    return None


def _ivar(values: dict[str, np.ndarray], flux: np.ndarray) -> np.ndarray | None:
    bad = values["mask"] != 0 if "mask" in values else None
    if "ivar" in values:
        return good_ivar(flux, values["ivar"], bad)
    return ivar_of_error(flux, values["error"], bad) if "error" in values else None


def _manga_key(name: Any) -> int | None:
    """MaNGA's id ``catalogue-number`` as int64: catalogue times 10**12 plus number."""
    found = _MANGA.fullmatch(str(name or "").strip())
    return int(found[1]) * 10**12 + int(found[2]) if found else None


def _medium(header: Any) -> str | None:
    value = header.get("VACUUM")
    return None if not isinstance(value, bool) else "vacuum" if value else "air"


def _first(about: dict[str, Any], *names: str) -> float | None:
    return next((number for name in names if (number := number_of(about.get(name))) is not None), None)


READER = Reader(
    "row_tables", "FITS tables of spectra in rows (MaStar; columns WAVE, FLUX, IVAR)", has_row_spectra, read_row_tables
)
