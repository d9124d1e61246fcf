"""How like real stars the emulated spectra are: against the MILES library and against LAMOST itself.

    python -m specclip_search.simulation.compare_real --miles miles.npz --lamost FOLDER --picture OUT.png

MILES stars with known labels are compared at a common resolution, LAMOST spectra (a folder with
`labels.csv` and the files it names) at the star's velocity. Both sides pass through the published
preprocessing, so the numbers are in the units that a model sees. Nothing is fitted.
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

from ..modality import LAMOST_LRS
from ..readers import read_spectrum
from ..readers.air import air_to_vacuum
from .emulator import Emulator
from .labels import FloatArray, SimulationError

MILES_FWHM_A = 2.5  # Falcon-Barroso et al. 2011: 2.51
RESOLUTION = 1800.0
C_KM_S = 299792.458
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


def usual_alpha(feh: FloatArray) -> FloatArray:
    """[alpha/Fe] of a star of which only [Fe/H] is known: 0.33 below -1, falling to 0 at solar."""
    return np.clip(-0.33 * feh, 0.0, 0.33)


def broadened(wavelength: FloatArray, flux: FloatArray, fwhm_from: FloatArray, fwhm_to: FloatArray) -> FloatArray:
    """Spectra (N, P) on an evenly spaced grid, convolved by a Gaussian whose width varies along it.

    Parameters
    ----------
    fwhm_from, fwhm_to
        (P,) Angstrom, before and after; where the first is the larger nothing is done.
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
        If the file lacks what it must hold.
    """
    with np.load(path, allow_pickle=False) as archive:
        missing = {"wave_air", "flux", "teff", "logg", "feh"} - set(archive.files)
        if missing:
            raise SimulationError(
                f"{path} must hold wave_air, flux, teff, logg, feh; it lacks {', '.join(sorted(missing))}.",
                "Give the file of the MILES library.",
            )
        wave_air, flux = archive["wave_air"].astype(float), archive["flux"].astype(float)
        teff, logg, feh = (archive[name].astype(float) for name in ("teff", "logg", "feh"))
    labels = np.stack([teff, logg, feh, usual_alpha(feh), np.zeros_like(feh)], axis=1)
    use = np.flatnonzero(np.isfinite(labels).all(axis=1) & np.isfinite(flux).all(axis=1))
    use = use[emulator.covers(labels[use])]
    wavelength = air_to_vacuum(wave_air)
    grid = np.arange(emulator.wavelength[0] + 1.0, wavelength[-1] - 1.0, 0.5)
    own, target = np.full_like(grid, MILES_FWHM_A), np.maximum(MILES_FWHM_A, grid / RESOLUTION)
    real = broadened(grid, _resampled(wavelength, flux[use], grid), own, target)
    model = _resampled(emulator.wavelength, emulator.lrs(labels[use]), grid)
    model = broadened(grid, model, grid / RESOLUTION, target)
    return Comparison(labels[use], LAMOST_LRS.prepare(grid, real), LAMOST_LRS.prepare(grid, model))


def _resampled(wavelength: FloatArray, flux: FloatArray, grid: FloatArray) -> FloatArray:
    from scipy.interpolate import CubicSpline

    return np.asarray(CubicSpline(wavelength, flux, axis=1)(grid))


def compare_lamost(emulator: Emulator, folder: Path) -> tuple[Comparison, FloatArray]:
    """LAMOST spectra with labels from another fit, and their S/N in g (N,).

    `folder/labels.csv` names `obsid, teff, logg, feh, rv`; the files are `folder/table/<obsid>.fits.gz`.

    Raises
    ------
    SimulationError
        If no star is covered.
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
            model = LAMOST_LRS.prepare(wave, _resampled(moved, emulator.lrs(labels), wave))[0]
            rows.append((labels, real, model, float(spectrum.meta["snrg"])))
    if not rows:
        raise SimulationError(
            f"No star of {folder / 'labels.csv'} has labels that the emulator covers.",
            "Give stars between 4000 and 12000 K with teff, logg, feh and rv.",
        )
    labels, real, model, snr = (np.array(column) for column in zip(*rows, strict=True))
    return Comparison(labels, real, model), snr


def by_bin(comparison: Comparison, column: int, edges: tuple[float, ...]) -> Iterator[dict[str, float | int]]:
    """Median rms and correlation of the stars between consecutive edges of a label."""
    rms, correlation, value = comparison.rms(), comparison.correlation(), comparison.labels[:, column]
    for low, high in pairwise(edges):
        inside = (value >= low) & (value < high)
        if inside.any():
            yield {
                "from": low,
                "to": high,
                "n": int(inside.sum()),
                "rms": round(float(np.median(rms[inside])), 4),
                "correlation": round(float(np.median(correlation[inside])), 3),
            }


def draw(comparison: Comparison, path: Path) -> None:
    """Picture of six typical stars (the median rms of their bin) and of rms against teff and feh."""
    import matplotlib

    matplotlib.use("Agg")
    # GaiaXPy, where it was imported, has switched every picture of the process to LaTeX
    with matplotlib.rc_context({"text.usetex": False}):
        _draw(comparison, path)


def _draw(comparison: Comparison, path: Path) -> None:
    from matplotlib import pyplot as plt

    teff, _, feh = comparison.labels[:, :3].T
    rms = comparison.rms()
    kinds = (
        ("A star", (teff > 8000) & (feh > -0.6)), ("F star", (teff > 6200) & (teff < 7000) & (feh > -0.6)),
        ("solar-like", (teff > 5500) & (teff < 6000) & (feh > -0.3)), ("K giant", (teff < 4700) & (feh > -0.6)),
        ("poor dwarf or subgiant", (teff > 5500) & (feh < -1.5)), ("poor giant", (teff < 5300) & (feh < -1.5)),
    )  # fmt: skip
    figure, axes = plt.subplots(len(kinds) + 1, 1, figsize=(11, 15), layout="constrained")
    for axis, (name, mask) in zip(axes, kinds, strict=False):
        members = np.flatnonzero(mask)
        if not len(members):
            continue
        star = members[np.argsort(rms[members])[len(members) // 2]]
        axis.plot(LAMOST_LRS.wavelength, comparison.real[star], color="0.35", lw=1.2, label="MILES")
        axis.plot(LAMOST_LRS.wavelength, comparison.emulated[star], color="C3", lw=0.8, label="emulator")
        axis.set_title(
            f"{name}: {teff[star]:.0f} K, log g {comparison.labels[star, 1]:.2f}, [Fe/H] {feh[star]:+.2f}; "
            f"rms {rms[star]:.3f}, median of {len(members)} stars",
            fontsize=9,
        )
        axis.set_ylim(min(0.2, comparison.real[star].min() - 0.05), 1.15)
        axis.set_xlim(LAMOST_LRS.wavelength[0], LAMOST_LRS.wavelength[-1])
    axes[0].legend(loc="lower right", fontsize=8, ncols=2)
    axes[-2].set_xlabel("vacuum wavelength [Angstrom]")
    figure.supylabel("flux / continuum, as prepared for a model", fontsize=10)
    points = axes[-1].scatter(teff, rms, c=feh, s=14, cmap="viridis")
    axes[-1].set(xscale="log", yscale="log", xlabel="Teff [K]", ylabel="rms difference")
    axes[-1].set_xticks([4000, 5000, 6000, 8000, 10000], ["4000", "5000", "6000", "8000", "10000"])
    axes[-1].minorticks_off()
    figure.colorbar(points, ax=axes[-1], label="[Fe/H]")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def report(emulator: Emulator, miles: Path | None, lamost: Path | None, picture: Path | None) -> dict[str, object]:
    """The comparisons asked for, as plain values."""
    result: dict[str, object] = {}
    if miles is not None:
        comparison = compare_miles(emulator, miles)
        result["miles"] = {
            "stars": len(comparison.labels),
            "rms": round(float(np.median(comparison.rms())), 4),
            "correlation": round(float(np.median(comparison.correlation())), 3),
            "by_teff": list(by_bin(comparison, 0, TEFF_EDGES)),
            "by_feh": list(by_bin(comparison, 2, FEH_EDGES)),
        }
        if picture is not None:
            draw(comparison, picture)
    if lamost is not None:
        comparison, snr = compare_lamost(emulator, lamost)
        rows = zip(comparison.labels, snr, comparison.rms(), comparison.correlation(), strict=True)
        result["lamost"] = [
            {"teff": round(float(star[0])), "feh": round(float(star[2]), 2), "snrg": round(float(s), 1),
             "rms": round(float(r), 4), "correlation": round(float(c), 3)}
            for star, s, r, c in rows
        ]  # fmt: skip
    return result


def main(argv: list[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Compare emulated spectra with real ones.")
    parser.add_argument("--miles", type=Path, help="npz file of the MILES library")
    parser.add_argument("--lamost", type=Path, help="folder with labels.csv and table/")
    parser.add_argument("--picture", type=Path, help="picture to write, of the MILES stars")
    options = parser.parse_args(argv)
    result = report(Emulator.load(), options.miles, options.lamost, options.picture)
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
