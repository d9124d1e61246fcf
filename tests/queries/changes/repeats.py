"""Real repeated visits of LAMOST, compared, with changes planted into them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from specclip_search.queries.changes.calibration import Calibration, Chances, chances
from specclip_search.queries.changes.compare import Comparison, Visit, compare, on_grid
from specclip_search.queries.changes.differences import WINDOWS
from specclip_search.queries.changes.velocity import GRID, PIXEL_KM_S, SIZE

Spectrum = tuple[np.ndarray, np.ndarray]
Plant = Callable[[np.ndarray, np.ndarray, int], Spectrum]
_PIXELS = np.arange(SIZE)


def files_by_star(shared_data: Path) -> list[list[Path]]:
    """Files of `lamost/matrix` of the 45 stars with several visits."""
    with open(shared_data / "lamost" / "repeat_visits.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    stars: dict[str, list[Path]] = {}
    for row in rows:
        stars.setdefault(row["same_star_group"], []).append(shared_data / "lamost" / "matrix" / row["file"])
    return list(stars.values())


def spectra_of(files: Sequence[Path]) -> list[Spectrum]:
    from specclip_search.readers import read_spectrum

    found = [read_spectrum(file) for file in files]
    return [on_grid(one.wavelength, one.flux, one.ivar) for one in found]


def pairs_of(stars: Sequence[Sequence[Spectrum]], plant: Plant | None = None) -> list[Comparison]:
    """Every visit against the star's visit of most signal; `plant` changes the former."""
    found = []
    for number, star in enumerate(stars):
        visits = [Visit.of(*one) for one in star]
        best = int(np.argmax([one.weight for one in visits]))
        for i, one in enumerate(star):
            if i != best:
                changed = visits[i] if plant is None else Visit.of(*plant(*one, number))
                compared = compare(changed, visits[best])
                assert compared is not None
                found.append(compared)
    return found


def snr_of(stars: Sequence[Sequence[Spectrum]]) -> np.ndarray:
    """Lower signal to noise a pixel of each comparison, 4000 to 5600 Angstrom."""
    here = (GRID > 4000) & (GRID < 5600)
    found = []
    for star in stars:
        visits = [Visit.of(*one) for one in star]
        best = int(np.argmax([one.weight for one in visits]))
        snr = [float(np.median((one.flux * np.sqrt(one.ivar))[here])) for one in visits]
        found += [min(snr[i], snr[best]) for i in range(len(star)) if i != best]
    return np.array(found)


def moved(flux: np.ndarray, velocity: float) -> np.ndarray:
    return np.interp(_PIXELS - velocity / PIXEL_KM_S, _PIXELS, flux)


def shift(velocity: float) -> Plant:
    """Every other star moves the other way."""

    def plant(flux: np.ndarray, ivar: np.ndarray, number: int) -> Spectrum:
        v = velocity if number % 2 else -velocity
        return moved(flux, v), np.maximum(moved(ivar, v), 0.0)

    return plant


def emission(width: float, at: float, fwhm: float = 8.0) -> Plant:
    """A line of `width` Angstrom equivalent width."""

    def plant(flux: np.ndarray, ivar: np.ndarray, number: int) -> Spectrum:
        level, sigma = np.median(flux[np.abs(GRID - at) < 80]), fwhm / 2.3548
        return flux + level * width / (sigma * np.sqrt(2 * np.pi)) * np.exp(-0.5 * ((GRID - at) / sigma) ** 2), ivar

    return plant


def double(share: float, separation: float) -> Plant:
    """A second star like the first."""

    def plant(flux: np.ndarray, ivar: np.ndarray, number: int) -> Spectrum:
        return (1 - share) * flux + share * moved(flux, separation), ivar

    return plant


def tilted(factor: float) -> Plant:
    """The flux calibration of another night: by `factor` from 4000 to 8800 Angstrom, with a wave of 10 %."""

    def plant(flux: np.ndarray, ivar: np.ndarray, number: int) -> Spectrum:
        part = (GRID - 4000.0) / 4800.0
        by = factor**part * (1 + 0.1 * np.sin(2 * np.pi * 2 * part))
        return flux * by, ivar / by**2

    return plant


def judged(pairs: Sequence[Comparison], known: Calibration) -> list[Chances]:
    return [chances(one, known) for one in pairs]


def named(one: Comparison, known: Calibration) -> str:
    return WINDOWS[int(np.nanargmax(np.abs(one.difference.sigma) / known.window_scale))].name


PLANTED: dict[str, Plant] = {
    "shift of 30 km/s": shift(30.0),
    "shift of 50 km/s": shift(50.0),
    "H-alpha emission, 2 Angstrom": emission(2.0, 6564.6),
    "H-alpha emission, 3 Angstrom": emission(3.0, 6564.6),
    "H-beta emission, 2 Angstrom": emission(2.0, 4862.7),
    "second lines, 250 km/s, 40 %": double(0.4, 250.0),
    "second lines, 250 km/s, 30 %": double(0.3, 250.0),
    "flux calibration tilted by 3": tilted(3.0),
}
