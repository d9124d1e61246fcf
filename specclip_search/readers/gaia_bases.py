"""Which calibration an XP solution needs: by release, basis and number of coefficients, from one table.

A new release is a row in `BASES` and one in `EPOCHS`; nothing else names a number of coefficients. Method: De Angeli
et al. 2023, A&A 674, A2; Montegriffo et al. 2023, A&A 674, A3.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from typing import Any

import numpy as np

from ..errors import Reason, SpecclipError, SpectrumError
from ..surveys.gaia_xp import GRID

#: reference epoch of each release's positions, Julian years (TCB)
EPOCHS = {"dr1": 2015.0, "dr2": 2015.5, "edr3": 2016.0, "dr3": 2016.0, "fpr": 2016.0, "dr4": 2017.5}
DEFAULT_RELEASE = "dr3"
#: DataLink's names of the same product, those of DR3 first
PRODUCTS = {
    "XP_CONTINUOUS": ("XP_CONTINUOUS", "XP_MEAN_SPECTRUM", "MEAN_SPECTRUM_XP"),
    "XP_SAMPLED": ("XP_SAMPLED", "XP_SAMPLED_MEAN_SPECTRUM", "MEAN_SPECTRUM_XP_SAMPLED"),
    "XP_EPOCH": ("XP_EPOCH_SPECTRUM", "EPOCH_SPECTRUM_XP", "XP_EPOCH_CROWDING", "EPOCH_SPECTRUM_XP_CROWDING"),
    "RVS": ("RVS", "MEAN_SPECTRUM_RVS"),
    "RVS_EPOCH": ("RVS_EPOCH_SPECTRUM", "EPOCH_SPECTRUM_RVS"),
}
BANDS = ("bp", "rp")


class BasesNotInstalled(SpecclipError):
    """The basis functions of a release's XP spectra are not installed."""


@dataclass(frozen=True)
class Basis:
    """Basis functions of one band in one release.

    Attributes
    ----------
    release, band
        ``dr3``; ``bp`` or ``rp``.
    ids
        Values of ``bp_basis_function_id`` or ``rp_basis_function_id``; empty where they are not published yet.
    size
        Number of functions; a truncated solution uses the first of them.
    load
        Gives the (size, 343) design matrix [W m-2 nm-1 a coefficient] and the (343,) weight of the band at the
        archive's sampling; None where no installed package has them.
    needs
        What has them, in words, and the command that installs it.
    """

    release: str
    band: str
    ids: tuple[int, ...]
    size: int
    load: Callable[[], tuple[np.ndarray, np.ndarray]] | None = field(compare=False)
    needs: tuple[str, str] = ("", "")


def _gaiaxpy(band: str, bp_model: str, rp_model: str) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    def load() -> tuple[np.ndarray, np.ndarray]:
        import matplotlib as mpl

        # importing GaiaXPy switches every picture of the process to LaTeX; a user's notebook must not change by it
        with mpl.rc_context():
            from gaiaxpy.core.config import load_xpmerge_from_xml, load_xpsampling_from_xml

        grid, merge = load_xpmerge_from_xml(bp_model=bp_model, rp_model=rp_model)
        if not np.array_equal(np.asarray(grid, dtype=np.float64), GRID):
            raise SpecclipError(
                "The installed GaiaXPy calibrates onto another grid than 336-1020 nm by 2 nm.",
                "Install the version that this one was made with: pip install 'gaiaxpy~=2.1.5'",
            )
        design = load_xpsampling_from_xml(bp_model=bp_model, rp_model=rp_model)
        return np.asarray(design[band], np.float64), np.asarray(merge[band], np.float64)

    return load


_GAIAXPY_2 = ("GaiaXPy 2.1.5", "pip install 'gaiaxpy~=2.1.5'")
_NEXT_GAIAXPY = ("the GaiaXPy release for DR4 (after 2.1.5)", "pip install --upgrade gaiaxpy specclip-search")

#: the table: DR4's bases come with the GaiaXPy release for DR4; until then its rows load nothing
BASES: list[Basis] = [
    Basis("dr3", "bp", (56,), 55, _gaiaxpy("bp", "v375wi", "v142r"), _GAIAXPY_2),
    Basis("dr3", "rp", (57,), 55, _gaiaxpy("rp", "v375wi", "v142r"), _GAIAXPY_2),
    Basis("dr4", "bp", (), 51, None, _NEXT_GAIAXPY),
    Basis("dr4", "rp", (), 55, None, _NEXT_GAIAXPY),
]


def release_of(text: str | None) -> str | None:
    """``Gaia DR4``, ``gaiadr4``, ``DR4_RC3`` and ``dr4`` as ``dr4``; None where no release is named."""
    compact = "".join((text or "").lower().replace("gaia", " ").split()).split("_")[0]
    return compact if compact in EPOCHS else None


_NAMED = re.compile(r"gaia[\s_-]*(e?dr\d|fpr)(?![a-z0-9])", re.IGNORECASE)


def release_named(text: str) -> str | None:
    """The Gaia release that a file's name, a table's name or a designation gives: ``XP_SAMPLED-Gaia DR4 5.csv``."""
    found = _NAMED.search(text)
    return release_of(found[1]) if found else None


def epoch_of(release: str | None) -> float:
    """Reference epoch of a release's positions [Julian year]; DR3's where the release is not known."""
    return EPOCHS[release_of(release) or DEFAULT_RELEASE]


def product_of(name: str) -> str | None:
    """The product in a DataLink file's name, by its DR3 name, whichever release's name the file carries."""
    named = name.rpartition("!")[2].rpartition("/")[2].upper()
    found = [
        (len(alias), product) for product, aliases in PRODUCTS.items() for alias in aliases if named.startswith(alias)
    ]
    return max(found)[1] if found else None  # the longest: XP_SAMPLED_MEAN_SPECTRUM begins like XP_SAMPLED


def choose(band: str, count: int, *, release: str | None = None, function_id: int | None = None) -> Basis:
    """The basis of a solution.

    The basis's number decides where the file gives one that is known; else the release and the number of
    coefficients, which must then be the whole basis's, unless the release's number is not published yet. Fewer
    coefficients than functions, of a known basis, are a truncated solution.

    Raises
    ------
    SpectrumError
        `layout_unknown`, where the table has no such basis.
    """
    rows = [basis for basis in BASES if basis.band == band]
    known = release_of(release)
    by_number = [basis for basis in rows if function_id is not None and function_id in basis.ids]
    fitting = [basis for basis in by_number if 0 < count <= basis.size]
    if not by_number:
        unnumbered = [basis for basis in rows if function_id is None or not basis.ids]
        fitting = [
            basis
            for basis in unnumbered
            if basis.size == count or (basis.release == known and not basis.ids and 0 < count < basis.size)
        ]
        fitting = [basis for basis in fitting if basis.release == known] or (fitting if known is None else [])
    if fitting:
        return fitting[0]
    have = ", ".join(
        f"{basis.size} of {basis.release.upper()}" + (f" (basis {basis.ids[0]})" if basis.ids else "") for basis in rows
    )
    which = f" of basis {function_id}" if function_id is not None else ""
    raise SpectrumError(
        Reason.LAYOUT_UNKNOWN,
        f"{count} {band.upper()} coefficients{which} in {release or 'a release that is not named'}; "
        f"calibrations are at hand for {have}.",
        "Name the release with --release, or update: pip install --upgrade gaiaxpy specclip-search.",
    )


@dataclass(frozen=True, slots=True)
class BandOperator:
    """One band of one basis as a linear map onto the archive's grid.

    Attributes
    ----------
    covers
        Grid points to which the band contributes.
    values
        (n, m) coefficients to flux there, BP/RP weight included, W m-2 nm-1.
    products
        (n (n - 1) / 2, m) covariances below the diagonal to variance; each counts twice.
    """

    covers: slice
    values: np.ndarray
    products: np.ndarray

    def cut(self, count: int) -> BandOperator:
        """The operator of a solution of the first `count` coefficients."""
        return BandOperator(self.covers, self.values[:count], self.products[: count * (count - 1) // 2])


@cache
def operator(basis: Basis) -> BandOperator:
    """The operator of a basis, loaded once a process.

    Raises
    ------
    BasesNotInstalled
        If no installed package has the basis.
    """
    source, command = basis.needs
    try:
        if basis.load is None:
            raise FileNotFoundError(f"GaiaXPy {_installed_gaiaxpy()} does not have them")
        design, weight = basis.load()
    except (FileNotFoundError, ImportError, KeyError) as error:
        raise BasesNotInstalled(
            f"Gaia {basis.release.upper()}'s {basis.size} {basis.band.upper()} coefficients are calibrated with basis "
            f"functions that are not installed ({error}); they come with {source}.",
            f"{command}; then `specclip-search ingest gaia-xp --recalibrate`.",
        ) from None
    if design.shape != (basis.size, len(GRID)) or weight.shape != (len(GRID),):
        raise SpecclipError(
            f"The {basis.release.upper()} {basis.band.upper()} basis has the shape {design.shape}; "
            f"({basis.size}, {len(GRID)}) was expected.",
            f"Install the right version: {command}",
        )
    reached = np.flatnonzero(weight)
    covers = slice(int(reached[0]), int(reached[-1]) + 1)
    values = np.ascontiguousarray(design[:, covers] * weight[covers])
    below, left = np.tril_indices(basis.size, k=-1)
    return BandOperator(covers, values, 2.0 * values[below] * values[left])


@cache
def _installed_gaiaxpy() -> str:
    try:
        return metadata.version("gaiaxpy")
    except metadata.PackageNotFoundError:
        return "is not installed and"


def calibrate(bases: Sequence[tuple[Basis, np.ndarray, np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Flux and its error of N stars whose solutions have the same bases and sizes.

    Parameters
    ----------
    bases
        For BP, then RP: the basis, coefficients (N, n), their errors (N, n), and their correlations below the
        diagonal row by row, the archive's order (N, n (n - 1) / 2).

    Returns
    -------
    flux, error : (N, 343) float64
        W m-2 nm-1.
    """
    count = len(bases[0][1])
    flux, variance = np.zeros((2, count, len(GRID)))
    for basis, coefficients, errors, correlations in bases:
        size = coefficients.shape[1]
        band = operator(basis).cut(size)
        below, left = np.tril_indices(size, k=-1)
        flux[:, band.covers] += coefficients @ band.values
        covariances = correlations * errors[:, below] * errors[:, left]
        variance[:, band.covers] += (errors**2) @ band.values**2 + covariances @ band.products
    return flux, np.sqrt(np.maximum(variance, 0.0))


# the archive's sampled spectra lie within 2e-6 of the span (its calibration is older by some digits); the same
# spectra on another grid of 343 values, shifted by as little as 0.5 nm, are farther than 1e-4
SPAN_TOLERANCE = 3e-5
_ENOUGH = 200


def is_on_grid(flux: np.ndarray) -> bool:
    """Whether a flux of 343 values can be one of the archive's: a sum of a calibration's basis functions.

    Parameters
    ----------
    flux
        (343,) float64; NaN where there is no value.
    """
    flux = np.asarray(flux, dtype=np.float64)
    good = np.isfinite(flux)
    if good.sum() < _ENOUGH or not flux[good].any():
        return False
    scaled = flux[good] / np.abs(flux[good]).max()
    releases = dict.fromkeys(basis.release for basis in BASES if basis.load is not None)
    return any(_rest(scaled, good, _span(release)) < SPAN_TOLERANCE for release in releases)


def _rest(scaled: np.ndarray, good: np.ndarray, span: np.ndarray) -> float:
    """The share of a flux that no sum of basis functions gives."""
    if good.all():
        rest = scaled - span @ (span.T @ scaled)
    else:
        rest = scaled - span[good] @ np.linalg.lstsq(span[good], scaled, rcond=None)[0]
    return float(np.linalg.norm(rest) / np.linalg.norm(scaled))


@cache
def _span(release: str) -> np.ndarray:
    """(343, n) float64: an orthonormal basis of all calibrated spectra of a release on the archive's grid."""
    designs = []
    for basis in BASES:
        if basis.release == release:
            band = operator(basis)
            design = np.zeros((basis.size, len(GRID)))
            design[:, band.covers] = band.values
            designs.append(design)
    return np.linalg.qr(np.concatenate(designs).T)[0]


# -- rows of the archive's tables ----------------------------------------------------------------------------------

Row = dict[str, Any]


def row_bases(row: Row, release: str | None) -> tuple[Basis, Basis]:
    """The bases of a row's two solutions, which are installed.

    Raises
    ------
    SpectrumError
        As of `known_bases`, or `no_calibration` where the bases are known and not installed.
    """
    found = known_bases(row, release)
    for basis in found:
        try:
            operator(basis)
        except BasesNotInstalled as error:
            raise SpectrumError(Reason.NO_CALIBRATION, error.message, error.hint) from None
    return found


def known_bases(row: Row, release: str | None) -> tuple[Basis, Basis]:
    """The bases of a row's two solutions, installed or not.

    Raises
    ------
    SpectrumError
        `missing_bp_or_rp`, `not_finite`, or `layout_unknown` with what was expected and found.
    """
    found = []
    for band in BANDS:
        count = _length(row.get(f"{band}_coefficients"))
        if not count:
            raise SpectrumError(
                Reason.MISSING_BP_OR_RP, f"both BP and RP are needed; {band.upper()} has no coefficients"
            )
        number = row.get(f"{band}_basis_function_id")
        function_id = int(number) if isinstance(number, int | float | np.number) and np.isfinite(number) else None
        basis = choose(band, count, release=release, function_id=function_id)
        sizes = [_length(row.get(f"{band}_coefficient_{name}")) for name in ("errors", "correlations", "covariances")]
        below = count * (count - 1) // 2
        if sizes[:2] != [count, below] and sizes[2] != below + count:
            raise SpectrumError(
                Reason.LAYOUT_UNKNOWN,
                f"{band.upper()} has neither {count} errors with their {below} "
                "correlations nor the triangle of covariances",
            )
        if not np.isfinite(np.asarray(row[f"{band}_coefficients"], dtype=np.float64)).all():
            raise SpectrumError(Reason.NOT_FINITE, f"{band.upper()} coefficients hold NaN or infinite values")
        found.append(basis)
    return found[0], found[1]


def calibrate_rows(rows: Sequence[Row], bases: Sequence[tuple[Basis, Basis]]) -> tuple[np.ndarray, np.ndarray]:
    """Flux and error (N, 343) of rows whose bases are known; rows of the same bases and sizes at once."""
    flux, error = np.empty((2, len(rows), len(GRID)))
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, (row, pair) in enumerate(zip(rows, bases, strict=True)):
        sizes = tuple(_length(row[f"{band}_coefficients"]) for band in BANDS)
        groups.setdefault((pair, sizes), []).append(place)
    for (pair, _), places in groups.items():
        parts = []
        for band, basis in zip(BANDS, pair, strict=True):
            solutions = [solution(rows[place], band) for place in places]
            parts.append((basis, *(np.array(column, np.float64) for column in zip(*solutions, strict=True))))
        flux[places], error[places] = calibrate(parts)  # type: ignore[arg-type]
    return flux, error


def solution(row: Row, band: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coefficients, errors and correlations; the latter two from a triangle of covariances where they are absent."""
    coefficients = np.asarray(row[f"{band}_coefficients"], np.float64)
    errors, correlations = (row.get(f"{band}_coefficient_{name}") for name in ("errors", "correlations"))
    if _length(errors) == len(coefficients) and correlations is not None:
        return coefficients, np.asarray(errors, np.float64), np.asarray(correlations, np.float64)
    below, left = np.tril_indices(len(coefficients))
    triangle = np.asarray(row[f"{band}_coefficient_covariances"], np.float64)
    on = below == left
    scatter = row.get(f"{band}_standard_deviation")  # covariances come in units of the fit's scatter
    bare = np.sqrt(triangle[on])
    scaled = bare * float(scatter if scatter is not None else np.nan)
    return coefficients, scaled, triangle[~on] / (bare[below[~on]] * bare[left[~on]])


def _length(values: Any) -> int:
    return 0 if values is None else int(np.size(values))
