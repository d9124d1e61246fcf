"""Gaia XP spectra: sampled and continuous mean spectra in the archive's formats."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import QueryError, Reason, SpectrumError
from ..keys import parse_int64
from ..opening.guard import reading
from ..opening.regular import open_regular
from ..opening.text_tables import text_batches
from ..spectrum import Spectrum
from ..surveys import XP
from ..surveys.gaia_xp import GRID
from . import gaia_bases, gaia_tables
from .content import Content, decoding

DEFAULT_RELEASE = gaia_bases.DEFAULT_RELEASE


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
    release
        (N,) the release that the basis of each solution belongs to; empty where the table says none.
    waiting
        By row, the solutions of those that are rejected only because their bases are not installed; columns as in
        `specclip_search.ingest.waiting.WAITING`.
    """

    row: np.ndarray
    spec_id: np.ndarray
    ra: np.ndarray
    dec: np.ndarray
    flux: np.ndarray
    error: np.ndarray
    rejected: list[tuple[int, int | None, Reason, str]] = field(default_factory=list)
    release: list[str] = field(default_factory=list)
    waiting: dict[int, dict[str, Any]] = field(default_factory=dict)


def is_gaia_xp(names: list[str], content: Content) -> bool:
    """Whether a table of these columns holds XP spectra."""
    have = set(names)
    if {"source_id", "flux", "flux_error"} <= have or {"bp_coefficients", "rp_coefficients"} <= have:
        return True
    if gaia_tables.NESTED in have:
        return True
    # DataLink's table of one star has no id column
    named = b"source_id" in content.head or gaia_tables.is_xp_name(content.path.name)
    return {"wavelength", "flux", "flux_error"} <= have and named


def iter_xp(content: Content, release: str | None = None) -> Iterator[XpBatch]:
    """XP spectra of a file, in batches of at most 512 rows.

    Parameters
    ----------
    release
        Data release, where it is known; else the file's name may give it.

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
    if "transit_id" in names:
        raise SpectrumError(
            Reason.LAYOUT_UNKNOWN, f"{content.path} has spectra of single transits; mean spectra were expected.",
            "Download the mean spectra: XP_CONTINUOUS of DR3, MEAN_SPECTRUM_XP of DR4.")
    if {"wavelength", "flux"} <= set(names) and "source_id" not in names:
        yield _datalink(content)
        return
    start = 0
    said = release or gaia_bases.release_named(content.path.name)
    convert: Callable[[gaia_tables.Rows, int], XpBatch] = lambda rows, first: continuous(rows, first, said)  # noqa: E731
    if "bp_coefficients" not in names and gaia_tables.NESTED not in names:
        known = archive_sampling(content, names)
        convert = lambda rows, first: _sampled(rows, first, known)  # noqa: E731
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
                source_id = parse_int64(_bare_id(values.get("source_id")), "source_id")
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


def _bare_id(value: Any) -> Any:
    """'Gaia DR3 5853498713190525696' without its words."""
    if isinstance(value, str) and (
        found := re.fullmatch(r"(?:gaia\s*)?e?dr[3-9]\s+(\d+)", value.strip(), re.IGNORECASE)
    ):
        return found[1]
    return value


def _degrees(values: dict[str, Any], name: str) -> float:
    value = values.get(name)
    return float(value) if isinstance(value, int | float) else float("nan")


def _sampled(rows: gaia_tables.Rows, start: int, known: bool) -> XpBatch:
    """Rows of sampled spectra; where the sampling is not `known`, it is determined from the flux."""
    def problem(values: dict[str, Any]) -> tuple[Reason, str] | None:
        lengths = [_length(values.get(name)) for name in ("flux", "flux_error")]
        if lengths != [len(GRID)] * 2:
            return (Reason.LAYOUT_UNKNOWN,
                    f"expected {len(GRID)} values of flux and flux_error; found {lengths[0]}, {lengths[1]}")
        own = next((values[name] for name in ("wavelength", "sampling") if values.get(name) is not None), None)
        if own is not None and not is_the_archives(np.asarray(own, dtype=np.float64)):
            return Reason.LAYOUT_UNKNOWN, f"expected wavelengths {_GRID_WORDS}; found others"
        if own is None and not known and not gaia_bases.is_on_grid(values["flux"]):
            return (Reason.LAYOUT_UNKNOWN, f"the file does not say at which {len(GRID)} wavelengths the flux is given, "
                                           f"and it is not {_GRID_WORDS}, the archive's")
        return None

    taken = _Rows().take(rows, start, problem)
    return taken.batch(taken.matrix("flux", len(GRID)), taken.matrix("flux_error", len(GRID)))


_GRID_WORDS = "336-1020 nm by 2 nm"


def is_the_archives(wavelength: np.ndarray) -> bool:
    """Whether wavelengths are the archive's own grid."""
    return wavelength.shape == GRID.shape and bool(np.allclose(wavelength, GRID, rtol=0, atol=1e-6))


def archive_sampling(content: Content, names: list[str]) -> bool:
    """Whether a table of sampled spectra is known to be on the archive's grid; False where nothing is said.

    The sampling stands in the header (ECSV, FITS, VOTable) or in a companion ``NAME_sampling.csv`` of what GaiaXPy
    writes; the archive's own tables, which have a `solution_id`, have one sampling only.

    Raises
    ------
    SpectrumError
        `layout_unknown`, where another sampling is stated.
    """
    stated, where = stated_sampling(content)
    if stated is None:
        return "solution_id" in names
    if is_the_archives(stated):
        return True
    found = f"{len(stated)} values, {stated[0]:g} to {stated[-1]:g} nm" if len(stated) else "none"
    raise SpectrumError(
        Reason.LAYOUT_UNKNOWN, f"{content.path}: expected a sampling of {_GRID_WORDS}; {where} says {found}.",
        "Calibrate the spectra again on GaiaXPy's default sampling, or download the archive's (XP_SAMPLED).")


def stated_sampling(content: Content) -> tuple[np.ndarray | None, str]:
    """Wavelengths in nm that the file or its companion states, and where; None where neither does."""
    path = content.path
    stem = path.name.removesuffix(".gz")
    companion = path.with_name(f"{stem.rpartition('.')[0]}_sampling.csv")
    if companion.is_file():
        with reading(companion, "a list of wavelengths"), open_regular(companion) as handle:
            return _listed(handle.read(1 << 20).decode("utf-8")), companion.name
    with decoding(content):
        if content.kind in ("ecsv", "text"):
            comments = " ".join(line.lstrip("# ") for line in gaia_tables.text_of(content).comments)
            found = re.search(r"\bsampling:\s*([\[(].*?[\])])", comments)
            return (_listed(found[1]), "its header") if found else (None, "")
        if content.kind in ("fits", "votable"):
            meta = {str(key).lower(): value for key, value in gaia_tables.astropy_table(content).meta.items()}
            value = meta.get("sampling")
            if value is not None:
                listed = _listed(value) if isinstance(value, str) else np.asarray(value, np.float64).ravel()
                return listed, "its header"
    return None, ""


def _listed(text: str) -> np.ndarray:
    """The numbers of a text like ``pos\\n"(336.0, 338.0)"``."""
    return np.array(re.findall(r"[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?", text), dtype=np.float64)


def _length(values: Any) -> int:
    return 0 if values is None else int(np.size(values))


def continuous(rows: gaia_tables.Rows, start: int, release: str | None) -> XpBatch:
    """Rows of solutions, calibrated where their bases are installed."""
    bases: list[tuple[gaia_bases.Basis, gaia_bases.Basis]] = []

    def problem(values: dict[str, Any]) -> tuple[Reason, str] | None:
        try:
            bases.append(gaia_bases.row_bases(values, release))
        except SpectrumError as error:
            return error.reason, error.message
        return None

    taken = _Rows().take(rows, start, problem)
    batch = taken.batch(*gaia_bases.calibrate_rows([values for _, _, values in taken.good], bases))
    batch.release = [pair[0].release for pair in bases]
    batch.waiting = {
        row: _solutions(rows[row - start], release)
        for row, _, reason, _ in taken.rejected
        if reason is Reason.NO_CALIBRATION
    }
    return batch


def _solutions(values: dict[str, Any], release: str | None) -> dict[str, Any]:
    """What a later calibration of a row needs, whatever its file's layout."""
    kept: dict[str, Any] = {name: values.get(name) for name in ("ra", "dec")}
    kept["release"] = gaia_bases.known_bases(values, release)[0].release
    for band in gaia_bases.BANDS:
        coefficients, errors, correlations = gaia_bases.solution(values, band)
        number = values.get(f"{band}_basis_function_id")
        kept |= {
            f"{band}_basis_function_id": None if number is None else int(number),
            f"{band}_coefficients": coefficients,
            f"{band}_coefficient_errors": errors,
            f"{band}_coefficient_correlations": correlations,
        }
    return kept


def _datalink(content: Content) -> XpBatch:
    """One star in DataLink's format: one row per wavelength; the source_id is in the header or the file name."""
    columns = _columns(content)
    source_id = _datalink_id(content)
    wavelength = columns["wavelength"]
    if not is_the_archives(wavelength):
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
        theirs = {our: name for name, our in gaia_tables.our_names(list(table.colnames)).items()}
        return {name: np.ma.filled(np.ma.asarray(table[theirs[name]], dtype=np.float64), np.nan) for name in wanted}
    import pyarrow as pa

    layout = gaia_tables.text_of(content)
    theirs = {our: name for name, our in gaia_tables.our_names(layout.names).items()}
    types = {theirs[name]: pa.float64() for name in wanted}
    batches = [pa.table(batch) for batch in text_batches(content.file, layout, types)]
    rows = pa.concat_tables(batches) if batches else pa.schema(types.items()).empty_table()
    return {name: rows[theirs[name]].to_numpy().astype(np.float64) for name in wanted}


def _datalink_id(content: Content) -> int:
    found = re.search(rb"source_id[^0-9]{1,40}?(\d{5,19})", content.head, re.IGNORECASE)
    named = int(found.group(1)) if found else gaia_tables.id_in_name(content.path.name)
    if named is None:
        raise SpectrumError(Reason.LAYOUT_UNKNOWN, f"{content.path} has no source_id, neither inside nor in its name.",
                            "Keep the file name given by the archive.")
    return named


def to_spectra(batch: XpBatch, release: str | None, source: str) -> list[Spectrum]:
    """The spectra of a batch, one per row; `release` as it was said, else the one of their bases."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ivar = np.where(batch.error > 0, batch.error**-2.0, 0.0)
    releases = [release] * len(batch.row) if release else batch.release or [DEFAULT_RELEASE] * len(batch.row)
    return [
        Spectrum(GRID, flux, weight, XP, int(key),
                 {"source_id": int(key), "release": name, "source": f"{source}#{row}",
                  "ra": None if np.isnan(ra) else float(ra), "dec": None if np.isnan(dec) else float(dec)})
        for row, key, ra, dec, flux, weight, name in zip(
            batch.row, batch.spec_id, batch.ra, batch.dec, batch.flux, ivar, releases, strict=True)
    ]
