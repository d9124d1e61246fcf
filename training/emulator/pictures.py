"""Plots of emulated spectra over real ones.

The command line plots six simulated spectra over real ones of similar labels: three LAMOST, three Gaia XP.

    python -m specclip_search.training.emulator.pictures --lamost FOLDER --atlas ATLAS --output OUT.png

LAMOST: real spectra with labels from another fit (see `compare_real.compare_lamost`), and spectra
simulated at these labels, velocity and S/N with the full instrument model. Gaia XP: real validation stars,
the corrected emulator at their labels, and another real star moved to these labels as in simulated surveys.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from specclip_search.atlas import Atlas
from specclip_search.errors import MissingExtra
from specclip_search.keys import VALIDATION_SPLIT
from specclip_search.readers import read_spectrum
from specclip_search.simulation.spectra.emulator import Emulator
from specclip_search.simulation.spectra.gaia_xp import XP_WAVELENGTH_NM, moved_xp, xp_correction
from specclip_search.simulation.spectra.labels import FloatArray, SimulationError
from specclip_search.simulation.spectra.reddening import xp_extinction
from specclip_search.simulation.spectra.spectrograph import observe_lrs
from specclip_search.spectrum import Spectrum
from specclip_search.surveys import LAMOST_LRS
from specclip_search.surveys.batch import prepare_batch

from .compare_xp import FITTED, WINDOW, RealXp, read_real_xp
from .miles import usual_alpha

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .compare_lamost import Comparison
    from .compare_xp import RealXp

REAL, MADE, CORRECTED = "0.35", "C3", "C0"


@contextmanager
def drawing() -> Iterator[None]:
    """Plot without a display and without LaTeX."""
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtra("matplotlib", "plots", "A picture") from error
    matplotlib.use("Agg")
    # importing GaiaXPy switches all plots of the process to LaTeX
    with matplotlib.rc_context({"text.usetex": False}):
        yield


def kinds(teff: np.ndarray, feh: np.ndarray) -> tuple[tuple[str, np.ndarray], ...]:
    """Six kinds of stars, with masks."""
    return (
        ("A star", (teff > 8000) & (feh > -0.6)), ("F star", (teff > 6200) & (teff < 7000) & (feh > -0.6)),
        ("solar-like", (teff > 5500) & (teff < 6000) & (feh > -0.3)), ("K giant", (teff < 4700) & (feh > -0.6)),
        ("poor dwarf or subgiant", (teff > 5500) & (feh < -1.5)), ("poor giant", (teff < 5300) & (feh < -1.5)),
    )  # fmt: skip


def middle_star(rms: np.ndarray, members: np.ndarray) -> int:
    """The member with the median rms."""
    return int(members[np.argsort(rms[members], kind="stable")[len(members) // 2]])


def draw_miles(comparison: Comparison, path: Path) -> None:
    """Plot of six typical stars (median rms of their kind) and of rms against teff and feh."""
    with drawing():
        _draw_miles(comparison, path)


def _draw_miles(comparison: Comparison, path: Path) -> None:
    from matplotlib import pyplot as plt

    teff, _, feh = comparison.labels[:, :3].T
    rms = comparison.rms()
    chosen = kinds(teff, feh)
    figure, axes = plt.subplots(len(chosen) + 1, 1, figsize=(11, 15), layout="constrained")
    for axis, (name, mask) in zip(axes, chosen, strict=False):
        members = np.flatnonzero(mask)
        if not len(members):
            continue
        star = middle_star(rms, members)
        axis.plot(LAMOST_LRS.wavelength, comparison.real[star], color=REAL, lw=1.2, label="MILES")
        axis.plot(LAMOST_LRS.wavelength, comparison.emulated[star], color=MADE, lw=0.8, label="emulator")
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


def draw_xp(stars: RealXp, path: Path) -> None:
    """The same of Gaia XP stars; below each spectrum the ratio of real to emulated, with and without correction."""
    with drawing():
        _draw_xp(stars, path)


def _draw_xp(stars: RealXp, path: Path) -> None:
    from matplotlib import pyplot as plt

    teff, _, feh = stars.labels[:, :3].T
    rms = stars.rms()
    chosen = [(name, np.flatnonzero(mask)) for name, mask in kinds(teff, feh) if mask.any()]
    plain, corrected = stars.residual(), stars.residual(corrected=True)
    figure, axes = plt.subplots(
        2 * len(chosen), 1, figsize=(9, 3.0 * len(chosen)), layout="constrained", sharex=True,
        height_ratios=[3, 1.3] * len(chosen),
    )  # fmt: skip
    for (name, members), (upper, lower) in zip(chosen, axes.reshape(-1, 2), strict=True):
        star = middle_star(rms, members)
        _xp_panels(upper, lower, stars.flux[star], plain[star], corrected[star])
        upper.set_title(
            f"{name}: {teff[star]:.0f} K, log g {stars.labels[star, 1]:.2f}, [Fe/H] {feh[star]:+.2f}, "
            f"E(B-V) {stars.ebv[star]:.2f}; rms {rms[star]:.3f}, median of {len(members)} stars",
            fontsize=9,
        )
    axes[0].legend(loc="upper right", fontsize=8, ncols=3)
    axes[-1].set_xlabel("wavelength [nm]")
    figure.supylabel("flux, 1 at 550 nm; below: real / emulated", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _xp_panels(upper: Axes, lower: Axes, flux: np.ndarray, plain: np.ndarray, corrected: np.ndarray) -> None:
    wave = XP_WAVELENGTH_NM
    upper.plot(wave, flux, color=REAL, lw=1.6, label="Gaia XP")
    for residual, color, text in ((plain, MADE, "emulator"), (corrected, CORRECTED, "with correction")):
        upper.plot(wave, flux * np.exp(-residual), color=color, lw=0.9, label=text)
        lower.plot(wave, np.exp(residual), color=color, lw=0.9)
    upper.set_ylim(0.0, 1.15 * float(flux[WINDOW].max()))
    lower.axhline(1.0, color="0.7", lw=0.7, zorder=0)
    lower.set(ylim=(0.85, 1.15), xlim=(wave[0], wave[-1]))


RUNNING = 7
XP_KINDS = ("solar-like", "K giant", "poor giant")


@dataclass(frozen=True, slots=True)
class LrsTwin:
    """A real LAMOST spectrum and its simulated counterpart, (1462,) each, as prepared for a model."""

    title: str
    real: FloatArray
    simulated: FloatArray


def lrs_twins(emulator: Emulator, folder: Path, count: int = 3, seed: int = 0) -> list[LrsTwin]:
    """The best real LAMOST spectra of `count` groups in temperature, and spectra simulated from their labels."""
    with open(folder / "labels.csv", encoding="utf-8", newline="") as handle:
        rows = [{name: float(value) for name, value in row.items() if name != "obsid"} | {"obsid": int(row["obsid"])}
                for row in csv.DictReader(handle)]  # fmt: skip
    labels = np.array([[r["teff"], r["logg"], r["feh"], usual_alpha(np.array(r["feh"])), 0.0] for r in rows])
    covered = np.flatnonzero(emulator.covers(labels)) if len(rows) else np.empty(0, np.int64)
    if len(covered) < count:
        raise SimulationError(
            f"{count} stars of {folder / 'labels.csv'} must be covered by the emulator; found {len(covered)}.",
            "Give stars between 4000 and 12000 K with teff, logg, feh and rv.",
        )
    covered = covered[np.argsort(labels[covered, 0])]
    twins = []
    for group in np.array_split(covered, count):
        spectra = [read_spectrum(folder / "table" / f"{int(rows[i]['obsid'])}.fits.gz") for i in group]
        best = int(np.argmax([float(spectrum.meta["snrg"]) for spectrum in spectra]))
        twins.append(_lrs_twin(emulator, spectra[best], labels[group[best]], rows[group[best]]["rv"], seed))
    return twins


def _lrs_twin(emulator: Emulator, real: Spectrum, labels: FloatArray, rv: float, seed: int) -> LrsTwin:
    key, snr = real.spec_id, float(real.meta["snrg"])
    raw = observe_lrs(emulator.lrs(labels), np.array([snr]), np.array([rv]), np.array([key]), seed=seed)
    made = Spectrum(raw.wavelength, raw.flux[0], raw.ivar[0], LAMOST_LRS.name, key, {})
    flux = [prepare_batch(LAMOST_LRS, [spectrum]).flux[0] for spectrum in (real, made)]
    text = f"LAMOST {key}: {labels[0]:.0f} K, log g {labels[1]:.2f}, [Fe/H] {labels[2]:+.2f}, S/N {snr:.0f}"
    return LrsTwin(text, flux[0], flux[1])


def nearest_other(stars: RealXp, star: int) -> int:
    """The star with the most similar labels and E(B-V) within 0.3 mag."""
    steps = np.array([0.02, 0.1, 0.1, 0.1])
    scaled = np.column_stack([np.log(stars.labels[:, 0]), stars.labels[:, 1:4]]) / steps
    distance = np.abs(scaled - scaled[star]).sum(axis=1) + np.where(np.abs(stars.ebv - stars.ebv[star]) > 0.3, 1e3, 0.0)
    distance[star] = np.inf
    return int(np.argmin(distance))


def xp_twins(emulator: Emulator, stars: RealXp, star: int) -> tuple[FloatArray, FloatArray]:
    """(343,) the emulated spectrum and another star's, both moved and reddened, scaled to the real one."""
    other = nearest_other(stars, star)
    emulated = stars.model[star] * xp_correction(stars.labels[[star]])[0]
    moved = moved_xp(emulator, stars.flux[[other]], stars.labels[[other]], stars.labels[[star]])[0]
    moved = moved * 10.0 ** (-0.4 * (stars.ebv[star] - stars.ebv[other]) * xp_extinction())
    level = stars.flux[star][FITTED].sum()
    return emulated * level / emulated[FITTED].sum(), moved * level / moved[FITTED].sum()


def draw_over_real(emulator: Emulator, folder: Path, stars: RealXp, path: Path) -> None:
    """Write the plot."""
    with drawing():
        _draw(emulator, lrs_twins(emulator, folder), stars, path)


def _draw(emulator: Emulator, twins: list[LrsTwin], stars: RealXp, path: Path) -> None:
    from matplotlib import pyplot as plt

    named = dict(kinds(stars.labels[:, 0], stars.labels[:, 2]))
    chosen = [middle_star(stars.rms(), np.flatnonzero(named[kind])) for kind in XP_KINDS if named[kind].any()]
    figure, axes = plt.subplots(len(twins) + len(chosen), 1, figsize=(11, 15), layout="constrained")
    for axis, twin in zip(axes, twins, strict=False):
        _lrs_panel(axis, twin)
    axes[len(twins) - 1].set_xlabel("vacuum wavelength [Angstrom]")
    for axis, star in zip(axes[len(twins) :], chosen, strict=True):
        _xp_panel(axis, stars, star, *xp_twins(emulator, stars, star))
    axes[-1].set_xlabel("wavelength [nm]")
    axes[0].legend(loc="lower right", fontsize=8, ncols=2, title="light: pixels; strong: mean of 7", title_fontsize=7)
    if chosen:
        axes[len(twins)].legend(loc="upper right", fontsize=8, ncols=3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _lrs_panel(axis: Axes, twin: LrsTwin) -> None:
    wave, box = LAMOST_LRS.wavelength, np.full(RUNNING, 1.0 / RUNNING)
    for flux, color, text in ((twin.real, REAL, "LAMOST"), (twin.simulated, MADE, "simulated")):
        axis.plot(wave, flux, color=color, lw=0.5, alpha=0.3)
        smooth = np.convolve(flux, box, "valid")
        axis.plot(wave[RUNNING // 2 : -(RUNNING // 2)], smooth, color=color, lw=1.1, label=text)
    low, high = np.quantile(np.concatenate([twin.real, twin.simulated]), [0.002, 0.998])
    axis.set(xlim=wave[[0, -1]], ylim=(low - 0.05, high + 0.05), ylabel="flux / continuum")
    axis.set_title(twin.title, fontsize=9)


def _xp_panel(axis: Axes, stars: RealXp, star: int, emulated: FloatArray, moved: FloatArray) -> None:
    axis.plot(XP_WAVELENGTH_NM, stars.flux[star], color=REAL, lw=2.0, label="Gaia XP")
    axis.plot(XP_WAVELENGTH_NM, emulated, color=MADE, lw=0.9, label="emulated")
    axis.plot(XP_WAVELENGTH_NM, moved, color=CORRECTED, lw=0.9, label="another star's, moved")
    top = 1.15 * float(stars.flux[star][WINDOW].max())
    axis.set(xlim=XP_WAVELENGTH_NM[[0, -1]], ylim=(0.0, top), ylabel="flux, 1 at 550 nm")
    teff, logg, feh = stars.labels[star, :3]
    text = f"Gaia XP: {teff:.0f} K, log g {logg:.2f}, [Fe/H] {feh:+.2f}, E(B-V) {stars.ebv[star]:.2f}"
    axis.set_title(text, fontsize=9)


def main(argv: list[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Draw simulated spectra over real ones.")
    parser.add_argument("--lamost", type=Path, required=True, help="folder with labels.csv and table/")
    parser.add_argument("--atlas", type=Path, required=True, help="atlas with real Gaia XP stars and their labels")
    parser.add_argument("--output", type=Path, required=True, help="picture to write")
    options = parser.parse_args(argv)
    emulator = Emulator.load()
    stars = read_real_xp(emulator, Atlas(options.atlas), "apogee", (VALIDATION_SPLIT,))
    draw_over_real(emulator, options.lamost, stars, options.output)


if __name__ == "__main__":
    main()
