"""The Multimodal Universe's Parquet files: one nested column ``spectrum{flux, ivar, lambda, mask}`` a row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ...errors import Reason, SpectrumError
from ...spectrum import Spectrum
from ...surveys import LRS
from ..containers import any_table
from ..content import Content
from ..registry import Reader, ReadOptions
from ..survey_rows import Refused, good_ivar, median_snr, whole

_NESTED = "spectrum"
#: LAMOST's files have the arrays in columns of their own
_FLAT = {"spectrum_flux", "spectrum_wavelength"}
_WAVELENGTH = ("lambda", "wavelength", "wave")
#: survey: columns that only its files have, wavelength unit, prefix of its id
_MARKS = {
    "desi": {"targetid", "fiberflux_g", "fibertotflux_g", "zwarn", "ebv"},
    "sdss": {"spectroflux_u", "vdisp", "spectrosynflux_u", "specobjid"},
    "apogee": {"m_h", "alpha_m", "apogee_id"},
    LRS: {"obsid", "planid", "lmjd", "snrg"},
}
_FOLDERS = ("desi", "sdss", "apogee", "lamost", "gaia")
_ANGSTROM_LOW, _ANGSTROM_HIGH = 2000.0, 30000.0


def is_mmu(content: Content) -> bool:
    """Whether a Parquet file has the nested column; Gaia's XP coefficients have their own reader."""
    if content.kind != "parquet":
        return False
    names = {name.lower() for name in any_table.column_names(content)}
    return _NESTED in names or names >= _FLAT


def read_mmu(content: Content, options: ReadOptions) -> Iterator[Spectrum | Refused]:
    """Every row of the file.

    Raises
    ------
    SpectrumError
        `layout_unknown`, where neither the file nor the caller says which survey it is of.
    """
    survey = survey_of(content, options.modality)
    for number, row in enumerate(any_table.iter_table(content)):
        yield _spectrum(row, survey, f"{content.path}#{number}", options)


def survey_of(content: Content, assumed: str | None = None) -> str:
    """The survey of a file by its columns, else the one that is `assumed`, else by the folders that it lies in.

    Raises
    ------
    SpectrumError
        `layout_unknown`, where nothing says it.
    """
    names = {name.lower() for name in any_table.column_names(content)}
    found = max(_MARKS, key=lambda survey: len(_MARKS[survey] & names))
    if _MARKS[found] & names or assumed is not None:
        return found if _MARKS[found] & names else str(assumed)
    parts = " ".join(part.lower() for part in content.path.parts[-4:])
    named = next((survey for survey in _FOLDERS if survey in parts), None)
    if named is None or named == "gaia":
        raise SpectrumError(
            Reason.LAYOUT_UNKNOWN,
            f"{content.path} does not say which survey its spectra are of.",
            f"Say it: --as sdss, --as desi, --as apogee or --as {LRS}.",
        )
    return LRS if named == "lamost" else named


def _spectrum(row: dict[str, Any], survey: str, source: str, options: ReadOptions) -> Spectrum | Refused:
    key = _key(row)
    release = options.release or (str(row["release"]) if row.get("release") else "mmu")
    nested = row.get(_NESTED)
    if nested is None and row.get("spectrum_flux") is not None:
        mark = "spectrum_"
        nested = {name.removeprefix(mark): values for name, values in row.items() if name.startswith(mark)}
    if not isinstance(nested, dict):
        return Refused(source, key, release, Reason.LAYOUT_UNKNOWN, "the row's spectrum is missing")
    given = next((nested[name] for name in _WAVELENGTH if nested.get(name) is not None), None)
    if given is None or nested.get("flux") is None:
        return Refused(
            source,
            key,
            release,
            Reason.LAYOUT_UNKNOWN,
            f"the spectrum has {', '.join(nested)}; flux and lambda are needed",
        )
    wavelength, flux = np.asarray(given, np.float64), np.asarray(nested["flux"], np.float64)
    ivar = nested.get("ivar")
    ivar = np.ones_like(flux) if ivar is None else np.asarray(ivar, np.float64)
    mask = nested.get("mask")
    if not len(wavelength) == len(flux) == len(ivar) or (mask is not None and len(mask) != len(flux)):
        return Refused(
            source,
            key,
            release,
            Reason.LAYOUT_UNKNOWN,
            f"lambda, flux, ivar and mask differ in length ({len(wavelength)}, {len(flux)}, {len(ivar)})",
        )
    real = (wavelength > _ANGSTROM_LOW) & (wavelength < _ANGSTROM_HIGH)  # rows are padded with -1 or 0 to one length
    if real.sum() < 2:
        return Refused(source, key, release, Reason.NO_COVERAGE, "no wavelength between 2000 and 30000 Angstrom")
    ivar = good_ivar(flux, ivar, None if mask is None else np.asarray(mask, bool))
    sigma = nested.get("lsf_sigma")
    resolution = None
    if sigma is not None and len(sigma) == len(flux):
        resolution = _resolution(survey, wavelength, np.asarray(sigma, np.float64))[real]
    meta = {
        "release": release,
        "source": source,
        "instrument": survey,
        "source_id": whole(row.get("source_id")),
        "ra": _number(row.get("ra")),
        "dec": _number(row.get("dec")),
        "snr": median_snr(flux[real], ivar[real]),
        "z": _number(row.get("z")),
        "medium": "vacuum",
        "ivar_estimated": nested.get("ivar") is None,
    }
    frame = "rest" if row.get("restframe") else "barycentric"
    return Spectrum(wavelength[real], flux[real], ivar[real], survey, key, meta, None, frame, resolution)


def _resolution(survey: str, wavelength: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Resolving power; SDSS gives sigma in pixels of 1e-4 dex, DESI and APOGEE in Angstrom."""
    width = sigma * wavelength * 1e-4 * np.log(10.0) if survey == "sdss" else sigma
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(width > 0, wavelength / (np.sqrt(8.0 * np.log(2.0)) * width), np.nan)


def _key(row: dict[str, Any]) -> int | None:
    """The survey's id; object_id is text in these files, at times with the quotes of a Python bytes literal."""
    for name in ("targetid", "obsid", "source_id", "specobjid", "object_id"):
        value = row.get(name)
        if isinstance(value, bytes):
            value = value.decode("ascii", "replace")
        if isinstance(value, str):
            value = value.strip().removeprefix("b'").removesuffix("'").strip()
        if (key := whole(value)) is not None:
            return key
    return None


def _number(value: Any) -> float | None:
    return (
        float(value) if isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value) else None
    )


READER = Reader("mmu", "Multimodal Universe spectra (Parquet with a nested column 'spectrum')", is_mmu, read_mmu)
