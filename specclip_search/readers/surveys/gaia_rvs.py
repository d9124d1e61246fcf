"""Gaia RVS spectra: mean spectra (DR3 on) and the spectra of single transits (DR4 on)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import numpy as np

from ...errors import Reason, SpectrumError
from ...spectrum import Spectrum
from .. import gaia_xp as gaia
from ..containers import any_table
from ..content import Content
from ..registry import Reader, ReadOptions
from ..survey_rows import Refused, ivar_of_error, median_snr, whole

MODALITY = "gaia_rvs"
RESOLUTION = 11500.0  # Cropper et al. 2018, A&A 616, A5
START_NM = 846.0
#: samples of a spectrum: its step in nm; both end at 870 nm
STEPS_NM = {2401: 0.01, 961: 0.025}
MJD_OF_J2010 = 55197.0
_NS_A_DAY = 86_400_000_000_000
#: DR4: spectra with double lines, and those of negative flux, are not divided by their level
NORMALISED = 3


def is_gaia_rvs(content: Content) -> bool:
    """Whether a table holds RVS spectra: by its product's name, its columns, or wavelengths about the Ca triplet."""
    if content.kind == "avro" or (content.kind == "fits" and b"BINTABLE" not in content.head):
        return False
    if content.kind == "text" and b"flux" not in content.head[:4096].lower():
        return False
    name = content.path.name.rpartition("!")[2].upper()
    if "RVS" in name or b"rvs_" in content.head.lower() or b"RVS" in content.head[:6000]:
        return "flux" in _names(content)
    names = _names(content)
    if "flux" not in names:
        return False
    if {"combined_transits", "combined_ccds"} & names and "bp_coefficients" not in names:
        return True
    return "wavelength" in names and "source_id" in names and _first_wavelength(content) == START_NM


def _names(content: Content) -> set[str]:
    try:
        return {name.lower() for name in any_table.column_names(content)}
    except SpectrumError:
        return set()


def _first_wavelength(content: Content) -> float | None:
    value = next(iter(any_table.iter_table(content)), {}).get("wavelength")
    return float(value) if isinstance(value, int | float) else None


def read_gaia_rvs(content: Content, options: ReadOptions) -> Iterator[Spectrum | Refused]:
    """One spectrum a row, or a star's rows of wavelengths where a row is a wavelength."""
    rows = any_table.iter_table(content)
    names = _names(content)
    if "wavelength" in names and "flux" in names:
        rows = _one_a_star(rows, content, names)
    for number, row in enumerate(rows):
        yield _spectrum(row, f"{content.path}#{number}", options)


def _one_a_star(rows: Iterator[dict[str, Any]], content: Content, names: set[str]) -> Iterator[dict[str, Any]]:
    """Rows a wavelength, gathered by star and transit; rows that hold whole spectra pass as they are."""
    known = gaia._datalink_id(content) if "source_id" not in names else None
    for (star, transit), group in groupby(rows, key=lambda row: (row.get("source_id"), row.get("transit_id"))):
        gathered = list(group)
        if any(isinstance(row.get("flux"), np.ndarray) for row in gathered):
            yield from gathered
            continue
        series = {
            name: np.array([np.nan if row.get(name) is None else row[name] for row in gathered], np.float64)
            for name in ("wavelength", "flux", "flux_error")
        }
        yield {**gathered[0], **series, "source_id": known if star is None else star, "transit_id": transit}


def _spectrum(row: dict[str, Any], source: str, options: ReadOptions) -> Spectrum | Refused:
    star, transit = whole(row.get("source_id")), whole(row.get("transit_id"))
    flux, error = (
        np.asarray(row[name], np.float64) if isinstance(row.get(name), np.ndarray) else np.empty(0)
        for name in ("flux", "flux_error")
    )
    release = options.release or ("dr4" if transit is not None or len(flux) == 961 else gaia.DEFAULT_RELEASE)
    if star is None:
        return Refused(source, None, release, Reason.LAYOUT_UNKNOWN, "the row names no source_id")
    step = STEPS_NM.get(len(flux))
    if step is None or len(error) != len(flux):
        return Refused(
            source,
            star,
            release,
            Reason.LAYOUT_UNKNOWN,
            f"expected {' or '.join(map(str, STEPS_NM))} values of flux and flux_error; found {len(flux)} and "
            f"{len(error)}",
        )
    wavelength = 10.0 * (START_NM + step * np.arange(len(flux)))
    given = row.get("wavelength")
    if isinstance(given, np.ndarray) and not np.allclose(10.0 * given, wavelength, rtol=0, atol=0.01):
        return Refused(
            source,
            star,
            release,
            Reason.LAYOUT_UNKNOWN,
            f"expected wavelengths from 846 nm by {step} nm; found {given[0]:g} to {given[-1]:g}",
        )
    ivar = ivar_of_error(flux, error)
    method = whole(row.get("normalisation_method"))
    time, scale = _time(row)
    meta = {
        "source_id": star,
        "release": release,
        "source": source,
        "instrument": "Gaia RVS",
        "ra": _number(row.get("ra")),
        "dec": _number(row.get("dec")),
        "snr": median_snr(flux, ivar),
        "combined_ccds": whole(row.get("combined_ccds")),
        "deblended_ccds": whole(row.get("deblended_ccds")),
        "combined_transits": whole(row.get("combined_transits")),
        "normalised": True if method is None else method == NORMALISED,
        "time": time,
        "time_scale": scale,
        "medium": "vacuum",
        "flux_unit": "relative",
    }
    # mean spectra have each transit's velocity taken out; transits are barycentric (DR4 data model)
    frame = "rest" if transit is None else "barycentric"
    return Spectrum(wavelength, flux, ivar, MODALITY, star, meta, transit, frame, RESOLUTION)


def _time(row: dict[str, Any]) -> tuple[float | None, str | None]:
    """MJD of a transit and its scale; nanoseconds are divided as whole numbers first, so that none is lost."""
    nanoseconds = whole(row.get("obs_time_tcb"))
    if nanoseconds is not None:
        correction = row.get("obs_time_bary_corr")
        bary = isinstance(correction, int | float) and np.isfinite(correction)
        nanoseconds += round(correction) if bary and correction is not None else 0
        days, rest = divmod(nanoseconds, _NS_A_DAY)
        return MJD_OF_J2010 + days + rest / _NS_A_DAY, "BMJD_TCB" if bary else "MJD_TCB at Gaia"
    days_rv = _number(row.get("obs_time_rv"))
    return (None, None) if days_rv is None else (MJD_OF_J2010 + days_rv, "BMJD_TCB")


def _number(value: Any) -> float | None:
    return (
        float(value) if isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value) else None
    )


READER = Reader(
    "gaia_rvs", "Gaia RVS mean and epoch spectra (CSV, ECSV, FITS, VOTable, Parquet)", is_gaia_rvs, read_gaia_rvs
)
