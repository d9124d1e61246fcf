"""Gaia XP spectra: sampled and continuous mean spectra in the archive's formats."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import QueryError, Reason, SpectrumError
from ..keys import parse_int64
from ..spectrum import Spectrum
from ..surveys import XP
from ..surveys.gaia_xp import GRID
from . import gaia_calibration, gaia_tables
from .content import Content, as_text_stream, decoding

DEFAULT_RELEASE = "dr3"


@dataclass(slots=True)
class XpBatch:
    """Spectra of one batch of rows on the archive's grid.

    Attributes
    ----------
    row
        (N,) int64, row numbers in the file.
    spec_id
        (N,) int64.
    ra, dec
        (N,) float64 deg, NaN if the table has none.
    flux, error
        (N, 343) float64, W m-2 nm-1.
    rejected
        Rows that could not be used: (row, source_id or None, reason, message).
    """

    row: np.ndarray
    spec_id: np.ndarray
    ra: np.ndarray
    dec: np.ndarray
    flux: np.ndarray
    error: np.ndarray
    rejected: list[tuple[int, int | None, Reason, str]] = field(default_factory=list)


def is_gaia_xp(names: list[str], content: Content) -> bool:
    """Whether a table of these columns holds XP spectra."""
    have = {name.lower() for name in names}
    if {"source_id", "flux", "flux_error"} <= have or {"bp_coefficients", "rp_coefficients"} <= have:
        return True
    # DataLink's table of one star has no id column
    named = b"source_id" in content.head or content.path.name.upper().startswith("XP_")
    return {"wavelength", "flux", "flux_error"} <= have and named


def iter_xp(content: Content) -> Iterator[XpBatch]:
    """XP spectra of a file, in batches of at most 512 rows.

    Raises
    ------
    SpectrumError
        If the file is unreadable or is not an XP table; errors of single rows are recorded in the batch.
    """
    names = gaia_tables.column_names(content)
    if not is_gaia_xp(names, content):
        raise SpectrumError(
            Reason.LAYOUT_UNKNOWN, f"{content.path} has no columns of Gaia XP spectra (found {', '.join(names[:6])}).",
            "Expected source_id, flux, flux_error, or source_id, bp_coefficients, rp_coefficients and their errors.")
    if "wavelength" in names and "bp_coefficients" not in names:
        yield _datalink(content)
        return
    start, convert = 0, _continuous if "bp_coefficients" in names else _sampled
    for rows in gaia_tables.iter_rows(content):
        yield convert(rows, start)
        start += len(rows)
    if start == 0:
        raise SpectrumError(Reason.UNREADABLE, f"{content.path} has the columns of XP spectra but no rows.",
                            "The query or download returned nothing; get the file again.")


class _Rows:
    """Collects good rows and records bad ones."""

    def __init__(self) -> None:
        self.good: list[tuple[int, int, dict[str, Any]]] = []
        self.rejected: list[tuple[int, int | None, Reason, str]] = []

    def take(self, rows: gaia_tables.Rows, start: int, problem: Any) -> _Rows:
        for row, values in enumerate(rows, start):
            try:
                source_id = parse_int64(values.get("source_id"), "source_id")
            except QueryError as error:
                self.rejected.append((row, None, Reason.LAYOUT_UNKNOWN, error.message))
                continue
            found = problem(values)
            if found is None:
                self.good.append((row, source_id, values))
            else:
                self.rejected.append((row, source_id, *found))
        return self

    def batch(self, flux: np.ndarray, error: np.ndarray) -> XpBatch:
        position = np.array([[_degrees(v, "ra"), _degrees(v, "dec")] for _, _, v in self.good]).reshape(-1, 2)
        return XpBatch(np.array([row for row, _, _ in self.good], np.int64),
                       np.array([key for _, key, _ in self.good], np.int64),
                       position[:, 0], position[:, 1], flux, error, self.rejected)

    def matrix(self, name: str, width: int) -> np.ndarray:
        return np.array([values[name] for _, _, values in self.good], dtype=np.float64).reshape(-1, width)


def _degrees(values: dict[str, Any], name: str) -> float:
    value = values.get(name)
    return float(value) if isinstance(value, int | float) else float("nan")


def _sampled(rows: gaia_tables.Rows, start: int) -> XpBatch:
    def problem(values: dict[str, Any]) -> tuple[Reason, str] | None:
        lengths = [_length(values.get(name)) for name in ("flux", "flux_error")]
        if lengths != [len(GRID)] * 2:
            return (Reason.LAYOUT_UNKNOWN,
                    f"expected {len(GRID)} values of flux and flux_error; found {lengths[0]}, {lengths[1]}")
        return None

    taken = _Rows().take(rows, start, problem)
    return taken.batch(taken.matrix("flux", len(GRID)), taken.matrix("flux_error", len(GRID)))


def _length(values: Any) -> int:
    return 0 if values is None else int(np.size(values))


def _continuous(rows: gaia_tables.Rows, start: int) -> XpBatch:
    taken = _Rows().take(rows, start, _coefficient_problem)
    bp, rp = (taken.matrix(f"{band}_coefficients", gaia_calibration.N_COEFFICIENTS) for band in ("bp", "rp"))
    width = gaia_calibration.N_CORRELATIONS
    for _, _, values in taken.good:
        _errors_from_covariances(values)
    error = gaia_calibration.calibrate_errors(
        taken.matrix("bp_coefficient_errors", bp.shape[1]), taken.matrix("bp_coefficient_correlations", width),
        taken.matrix("rp_coefficient_errors", rp.shape[1]), taken.matrix("rp_coefficient_correlations", width))
    return taken.batch(gaia_calibration.calibrate(bp, rp), error)


def _coefficient_problem(values: dict[str, Any]) -> tuple[Reason, str] | None:
    expected = gaia_calibration.N_COEFFICIENTS
    for band in ("bp", "rp"):
        coefficients, count = values.get(f"{band}_coefficients"), _length(values.get(f"{band}_coefficients"))
        if not count:
            return Reason.MISSING_BP_OR_RP, f"both BP and RP are needed; {band.upper()} has no coefficients"
        if count != expected:
            return (Reason.LAYOUT_UNKNOWN,
                    f"{count} {band.upper()} coefficients; the available calibration (DR3) is for {expected}")
        sizes = {name: _length(values.get(f"{band}_coefficient_{name}"))
                 for name in ("errors", "correlations", "covariances")}
        by_correlation = sizes["errors"] == expected and sizes["correlations"] == gaia_calibration.N_CORRELATIONS
        if not by_correlation and sizes["covariances"] != gaia_calibration.N_CORRELATIONS + expected:
            return (Reason.LAYOUT_UNKNOWN, f"{band.upper()} has neither {expected} errors with their correlations "
                                           "nor the triangle of covariances")
        if not np.isfinite(np.asarray(coefficients, dtype=np.float64)).all():
            return Reason.NOT_FINITE, f"{band.upper()} coefficients hold NaN or infinite values"
    return None


def _errors_from_covariances(values: dict[str, Any]) -> None:
    """Errors and correlations from a lower triangle of covariances in units of the fit's scatter (Avro files)."""
    for band in ("bp", "rp"):
        if values.get(f"{band}_coefficient_errors") is not None:
            continue
        size = gaia_calibration.N_COEFFICIENTS
        below, left = np.tril_indices(size)
        triangle = np.asarray(values[f"{band}_coefficient_covariances"], dtype=np.float64)
        on = below == left
        scatter = values.get(f"{band}_standard_deviation")
        bare = np.sqrt(triangle[on])
        values[f"{band}_coefficient_errors"] = bare * float(scatter if scatter is not None else np.nan)
        values[f"{band}_coefficient_correlations"] = triangle[~on] / (bare[below[~on]] * bare[left[~on]])


def _datalink(content: Content) -> XpBatch:
    """One star in DataLink's format: one row per wavelength; the source_id is in the header or the file name."""
    columns = _columns(content)
    source_id = _datalink_id(content)
    wavelength = columns["wavelength"]
    if len(wavelength) != len(GRID) or not np.allclose(wavelength, GRID, rtol=0, atol=1e-6):
        raise SpectrumError(
            Reason.LAYOUT_UNKNOWN, f"{content.path}: expected 336-1020 nm by 2 nm; found {len(wavelength)} of them.",
            "Download the sampled mean spectrum of the archive (XP_SAMPLED).")
    nan = np.full(1, np.nan)
    return XpBatch(np.zeros(1, np.int64), np.array([source_id]), nan, nan, columns["flux"][None],
                   columns["flux_error"][None])


def _columns(content: Content) -> dict[str, np.ndarray]:
    with decoding(content):
        return _named_columns(content, ("wavelength", "flux", "flux_error"))


def _named_columns(content: Content, wanted: tuple[str, ...]) -> dict[str, np.ndarray]:
    if content.kind not in ("ecsv", "text"):
        table = gaia_tables.astropy_table(content)
        return {name: np.ma.filled(np.ma.asarray(table[name], dtype=np.float64), np.nan) for name in wanted}
    with as_text_stream(content) as stream:
        rows = [row for row in csv.reader(line for line in stream if not line.startswith("#")) if row]
    places = {name.strip(): place for place, name in enumerate(rows[0])}
    return {name: np.array([float(row[places[name]]) for row in rows[1:]]) for name in wanted}


def _datalink_id(content: Content) -> int:
    found = re.search(rb"source_id[^0-9]{1,40}?(\d{5,19})", content.head, re.IGNORECASE)
    named = int(found.group(1)) if found else gaia_tables.id_in_name(content.path.name)
    if named is None:
        raise SpectrumError(Reason.LAYOUT_UNKNOWN, f"{content.path} has no source_id, neither inside nor in its name.",
                            "Keep the file name given by the archive.")
    return named


def to_spectra(batch: XpBatch, release: str | None, source: str) -> list[Spectrum]:
    """The spectra of a batch, one per row."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ivar = np.where(batch.error > 0, batch.error**-2.0, 0.0)
    return [
        Spectrum(GRID, flux, weight, XP, int(key),
                 {"source_id": int(key), "release": release or DEFAULT_RELEASE, "source": f"{source}#{row}",
                  "ra": None if np.isnan(ra) else float(ra), "dec": None if np.isnan(dec) else float(dec)})
        for row, key, ra, dec, flux, weight in zip(
            batch.row, batch.spec_id, batch.ra, batch.dec, batch.flux, ivar, strict=True)
    ]
