"""Gaia DR4 as it will be delivered, made from DR3: 51 BP and 55 RP coefficients by least squares to DR3's spectra."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from specclip_search.readers import gaia_bases
from specclip_search.readers.gaia_bases import Basis, choose
from specclip_search.surveys.gaia_xp import GRID

BP_BASIS, RP_BASIS = 66, 67
COLUMNS = ["solution_id", "source_id", *(
    f"{band}_{name}" for band in ("bp", "rp") for name in (
        "basis_function_id", "n_parameters", "standard_deviation", "coefficients", "coefficient_errors",
        "coefficient_correlations", "n_relevant_bases"))]


def designs() -> list[np.ndarray]:
    """(51, 343) and (55, 343): the made bases, the first functions of DR3's."""
    made = []
    for band, size in (("bp", 51), ("rp", 55)):
        operator = gaia_bases.operator(choose(band, 55, function_id=56 if band == "bp" else 57))
        design = np.zeros((size, len(GRID)))
        design[:, operator.covers] = operator.values[:size]
        made.append(design)
    return made


def table_with_dr4() -> list[Basis]:
    """`gaia_bases.BASES` with DR4's rows as they will be when its bases are installed."""
    ones = np.ones(len(GRID))
    rows = [
        Basis("dr4", band, (number,), len(design), lambda d=design: (d, ones))
        for band, number, design in zip(("bp", "rp"), (BP_BASIS, RP_BASIS), designs(), strict=True)
    ]
    return [*(basis for basis in gaia_bases.BASES if basis.release != "dr4"), *rows]


@contextmanager
def installed() -> Iterator[None]:
    """As if the GaiaXPy release for DR4 were installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gaia_bases, "BASES", table_with_dr4())
        yield


def solutions(shared_data: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, 110) coefficients of random DR3 sources and their errors."""
    with np.load(shared_data / "xp_real" / "xp_continuous_2000.npz") as stored:
        return stored["coeff"][:count].astype(float), stored["coeff_error"][:count].astype(float)


def refitted(flux: np.ndarray) -> np.ndarray:
    """(N, 106) coefficients of the made bases by least squares to (N, 343) fluxes."""
    return np.linalg.lstsq(np.concatenate(designs()).T / 1e-17, flux.T / 1e-17, rcond=None)[0].T


def write_csv(
    path: Path, ids: Sequence[int], coefficients: np.ndarray, errors: np.ndarray, bp: int, numbers: tuple[int, int]
) -> Path:
    """A file of continuous spectra as the archive writes it, `bp` of the coefficients being BP's."""
    lines = [",".join(COLUMNS)]
    for star, solution, error in zip(ids, coefficients, errors, strict=True):
        row = ["4545469030156206080", str(star)]
        for number, part in zip(numbers, (slice(0, bp), slice(bp, None)), strict=True):
            below = len(solution[part]) * (len(solution[part]) - 1) // 2
            lists = (solution[part], error[part], np.zeros(below))
            row += [str(number), str(len(solution[part])), "1.0"]
            row += ['"[' + ",".join(f"{value:.9g}" for value in values) + ']"' for values in lists]
            row += ["3"]
        lines.append(",".join(row))
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def write_both(shared_data: Path, folder: Path, count: int) -> tuple[Path, Path, np.ndarray]:
    """The same stars as DR3 and as DR4 have them, and the flux (N, 343) of the former. DR4's ids are one higher."""
    coefficients, errors = solutions(shared_data, count)
    bp, rp = (gaia_bases.operator(choose(band, 55, function_id=56 if band == "bp" else 57)) for band in ("bp", "rp"))
    flux = np.zeros((count, len(GRID)))
    flux[:, bp.covers] += coefficients[:, :55] @ bp.values
    flux[:, rp.covers] += coefficients[:, 55:] @ rp.values
    ids = [5_000_000_000_000_000_000 + 1000 * star for star in range(count)]
    old = write_csv(folder / "XP_CONTINUOUS_RAW.csv", ids, coefficients, errors, 55, (56, 57))
    kept = np.delete(errors, range(51, 55), axis=1)
    new = write_csv(folder / "MEAN_SPECTRUM_XP-Gaia DR4.csv", [star + 1 for star in ids], refitted(flux), kept, 51,
                    (BP_BASIS, RP_BASIS))
    return old, new, flux
