"""Pictures of emulated spectra over real ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from specclip_search.errors import MissingExtra
from specclip_search.simulation.spectra.gaia_xp import XP_WAVELENGTH_NM
from specclip_search.surveys.modality import LAMOST_LRS

from .compare_xp import WINDOW

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .compare_lamost import Comparison
    from .compare_xp import RealXp

REAL, MADE, CORRECTED = "0.35", "C3", "C0"


@contextmanager
def drawing() -> Iterator[None]:
    """Draw without a screen and without LaTeX."""
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtra("matplotlib", "plots", "A picture") from error
    matplotlib.use("Agg")
    # GaiaXPy, where it was imported, has switched every picture of the process to LaTeX
    with matplotlib.rc_context({"text.usetex": False}):
        yield


def kinds(teff: np.ndarray, feh: np.ndarray) -> tuple[tuple[str, np.ndarray], ...]:
    """Six kinds of stars, and which stars are of each."""
    return (
        ("A star", (teff > 8000) & (feh > -0.6)), ("F star", (teff > 6200) & (teff < 7000) & (feh > -0.6)),
        ("solar-like", (teff > 5500) & (teff < 6000) & (feh > -0.3)), ("K giant", (teff < 4700) & (feh > -0.6)),
        ("poor dwarf or subgiant", (teff > 5500) & (feh < -1.5)), ("poor giant", (teff < 5300) & (feh < -1.5)),
    )  # fmt: skip


def middle_star(rms: np.ndarray, members: np.ndarray) -> int:
    """The member whose rms is the median one."""
    return int(members[np.argsort(rms[members], kind="stable")[len(members) // 2]])


def draw_miles(comparison: Comparison, path: Path) -> None:
    """Picture of six typical stars (the median rms of their kind) and of rms against teff and feh."""
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
