"""Compare emulated spectra with real stars of MILES, LAMOST and Gaia XP.

    python -m specclip_search.training.emulator.compare_lamost --miles miles.npz --lamost FOLDER --picture OUT.png
    python -m specclip_search.training.emulator.compare_lamost --atlas ATLAS --xp-picture OUT.png

MILES stars with known labels are compared at a common resolution, LAMOST spectra (a folder with
`labels.csv` and the files it lists) at the star's velocity. Both are processed with the published
preprocessing, so the numbers are in the units of model inputs. Nothing is fitted. Gaia XP stars
are validation stars of an atlas, see `compare_xp`.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from specclip_search.constants import C_KM_S
from specclip_search.keys import VALIDATION_SPLIT
from specclip_search.readers import read_spectrum
from specclip_search.simulation.spectra.emulator import Emulator
from specclip_search.simulation.spectra.gaia_xp import fit_smooth, smooth_terms
from specclip_search.simulation.spectra.labels import FloatArray, SimulationError
from specclip_search.surveys import LAMOST_LRS

from .compare_xp import read_real_xp, xp_report
from .miles import miles_stars, resampled, usual_alpha
from .pictures import draw_miles, draw_xp

MILES_FWHM_A = 2.5  # Falcon-Barroso et al. 2011: 2.51
RESOLUTION = 1800.0
FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))
TEFF_EDGES = (4000.0, 4500.0, 5000.0, 5500.0, 6000.0, 7000.0, 9000.0, 12000.0)
FEH_EDGES = (-3.0, -2.0, -1.3, -0.6, -0.2, 0.5)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Model inputs (N, 1462) of real stars and of emulated ones at their labels (N, 5)."""

    labels: FloatArray
    real: FloatArray
    emulated: FloatArray

    def rms(self) -> FloatArray:
        """(N,) rms difference of continuum-normalised flux."""
        return np.sqrt(((self.emulated - self.real) ** 2).mean(axis=1))

    def correlation(self) -> FloatArray:
        """(N,) Pearson correlation of continuum-normalised flux."""
        a = self.emulated - self.emulated.mean(axis=1, keepdims=True)
        b = self.real - self.real.mean(axis=1, keepdims=True)
        return np.asarray((a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1)))


def broadened(wavelength: FloatArray, flux: FloatArray, fwhm_from: FloatArray, fwhm_to: FloatArray) -> FloatArray:
    """Spectra (N, P) on an evenly spaced grid, convolved by a Gaussian whose width varies along it.

    Parameters
    ----------
    fwhm_from, fwhm_to
        (P,) Angstrom, before and after; nothing is done where the first is larger.
    """
    step = wavelength[1] - wavelength[0]
    sigma = np.sqrt(np.maximum(fwhm_to**2 - fwhm_from**2, 0.0)) / FWHM_PER_SIGMA / step
    reach = int(np.ceil(4 * sigma.max())) + 1
    offsets = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (offsets[:, None] / np.maximum(sigma, 1e-3)) ** 2)
    kernel /= kernel.sum(axis=0)
    padded = np.pad(flux, ((0, 0), (reach, reach)), mode="edge")
    size = flux.shape[1]
    return np.asarray(sum(k * padded[:, i : i + size] for i, k in enumerate(kernel)))


def compare_miles(emulator: Emulator, path: Path) -> Comparison:
    """The MILES stars that the emulator covers; [alpha/Fe] by `usual_alpha`, [C/Fe] 0.

    Raises
    ------
    SimulationError
        If the file lacks required columns.
    """
    labels, wavelength, flux = miles_stars(emulator, path)
    grid = np.arange(emulator.wavelength[0] + 1.0, wavelength[-1] - 1.0, 0.5)
    own, target = np.full_like(grid, MILES_FWHM_A), np.maximum(MILES_FWHM_A, grid / RESOLUTION)
    real = broadened(grid, resampled(wavelength, flux, grid), own, target)
    model = resampled(emulator.wavelength, emulator.lrs(labels), grid)
    model = broadened(grid, model, grid / RESOLUTION, target)
    return Comparison(labels, LAMOST_LRS.prepare(grid, real), LAMOST_LRS.prepare(grid, model))


def compare_lamost(emulator: Emulator, folder: Path) -> tuple[Comparison, FloatArray]:
    """LAMOST spectra with labels from another fit, and their S/N in g (N,).

    `folder/labels.csv` has `obsid, teff, logg, feh, rv`; the files are `folder/table/<obsid>.fits.gz`.

    Raises
    ------
    SimulationError
        If the emulator covers no star.
    """
    rows: list[tuple[FloatArray, FloatArray, FloatArray, float]] = []
    with open(folder / "labels.csv", encoding="utf-8", newline="") as handle:
        for star in csv.DictReader(handle):
            feh = np.array(float(star["feh"]))
            labels = np.array([float(star["teff"]), float(star["logg"]), feh, usual_alpha(feh), 0.0])
            if not emulator.covers(labels)[0]:
                continue
            spectrum = read_spectrum(folder / "table" / f"{int(star['obsid'])}.fits.gz")
            moved = emulator.wavelength * (1.0 + float(star["rv"]) / C_KM_S)
            inside = (spectrum.wavelength > moved[0]) & (spectrum.wavelength < moved[-1])
            wave = spectrum.wavelength[inside]
            real = LAMOST_LRS.prepare(wave, spectrum.flux[None, inside])[0]
            model = LAMOST_LRS.prepare(wave, resampled(moved, emulator.lrs(labels), wave))[0]
            rows.append((labels, real, model, float(spectrum.meta["snrg"])))
    if not rows:
        raise SimulationError(
            f"No star of {folder / 'labels.csv'} has labels that the emulator covers.",
            "Give stars between 4000 and 12000 K with teff, logg, feh and rv.",
        )
    labels, real, model, snr = (np.array(column) for column in zip(*rows, strict=True))
    return Comparison(labels, real, model), snr


def by_bin(
    comparison: Comparison, column: int, edges: tuple[float, ...], left: FloatArray
) -> Iterator[dict[str, float | int]]:
    """Median rms and correlation of the stars in bins of a label, and median of the remaining rms (N,) `left`."""
    rms, correlation, value = comparison.rms(), comparison.correlation(), comparison.labels[:, column]
    for low, high in pairwise(edges):
        inside = (value >= low) & (value < high)
        if inside.any():
            yield {
                "from": low,
                "to": high,
                "n": int(inside.sum()),
                "rms": round(float(np.median(rms[inside])), 4),
                "rms_corrected": round(float(np.median(left[inside])), 4),
                "correlation": round(float(np.median(correlation[inside])), 3),
            }


def halves(comparison: Comparison) -> FloatArray:
    """(N,) rms of each star after a smooth correction learned from the other half.

    The halves are every second star in order of temperature.
    """
    residual = comparison.real - comparison.emulated
    left = np.empty(len(residual))
    half = np.argsort(np.argsort(comparison.labels[:, 0], kind="stable")) % 2
    for own in (0, 1):
        learned = fit_smooth(comparison.labels[half != own], residual[half != own])
        rest = residual[half == own] - smooth_terms(comparison.labels[half == own]) @ learned
        left[half == own] = np.sqrt((rest**2).mean(axis=1))
    return left


def report(
    emulator: Emulator,
    miles: Path | None = None,
    lamost: Path | None = None,
    picture: Path | None = None,
    atlas: Path | None = None,
    xp_picture: Path | None = None,
) -> dict[str, object]:
    """The requested comparisons, as plain values."""
    result: dict[str, object] = {}
    if miles is not None:
        comparison = compare_miles(emulator, miles)
        result["miles"] = _miles_report(comparison)
        if picture is not None:
            draw_miles(comparison, picture)
    if lamost is not None:
        comparison, snr = compare_lamost(emulator, lamost)
        rows = zip(comparison.labels, snr, comparison.rms(), comparison.correlation(), strict=True)
        result["lamost"] = [
            {"teff": round(float(star[0])), "feh": round(float(star[2]), 2), "snrg": round(float(s), 1),
             "rms": round(float(r), 4), "correlation": round(float(c), 3)}
            for star, s, r, c in rows
        ]  # fmt: skip
    if atlas is not None:
        from specclip_search.atlas import Atlas

        stars = read_real_xp(emulator, Atlas(atlas), "apogee", (VALIDATION_SPLIT,))
        result["xp"] = xp_report(stars, TEFF_EDGES, FEH_EDGES)
        if xp_picture is not None:
            draw_xp(stars, xp_picture)
    return result


def _miles_report(comparison: Comparison) -> dict[str, object]:
    left, feh = halves(comparison), comparison.labels[:, 2]
    poor = feh < FEH_EDGES[2]
    return {
        "stars": len(comparison.labels),
        "rms": round(float(np.median(comparison.rms())), 4),
        "correlation": round(float(np.median(comparison.correlation())), 3),
        "rms_corrected_by_other_half": round(float(np.median(left)), 4),
        "poor_rms": round(float(np.median(comparison.rms()[poor])), 4),
        "poor_rms_corrected_by_other_half": round(float(np.median(left[poor])), 4),
        "by_teff": list(by_bin(comparison, 0, TEFF_EDGES, left)),
        "by_feh": list(by_bin(comparison, 2, FEH_EDGES, left)),
    }


def main(argv: list[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Compare emulated spectra with real ones.")
    parser.add_argument("--miles", type=Path, help="npz file of the MILES library")
    parser.add_argument("--lamost", type=Path, help="folder with labels.csv and table/")
    parser.add_argument("--picture", type=Path, help="picture to write, of the MILES stars")
    parser.add_argument("--atlas", type=Path, help="atlas with real Gaia XP stars and the catalogue apogee")
    parser.add_argument("--xp-picture", type=Path, help="picture to write, of the XP stars")
    options = parser.parse_args(argv)
    result = report(Emulator.load(), **vars(options))
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
