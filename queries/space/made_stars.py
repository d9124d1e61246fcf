"""Stars asked for by their physics: model spectra for given labels, mixtures of stars, and real stars changed.

The text forms, understood wherever a search takes a target::

    teff=4900,logg=1.8,feh=-3.1,c_fe=1.5          one star
    teff=5800,logg=4.4,rv=-40;teff=4600,logg=4.6  two stars of which one spectrum is taken
    gaia:5853418002145112704 but feh=-1           a star of the atlas, one dex poorer in metals
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from specclip_search.constants import C_KM_S
from specclip_search.errors import QueryError
from specclip_search.spectrum import Spectrum
from specclip_search.surveys import LRS, XP, get_modality

if TYPE_CHECKING:
    from specclip_search.simulation.spectra.emulator import Emulator

NEEDED = ("teff", "logg", "feh")
LABELS = (*NEEDED, "alpha_fe", "c_fe")
ALLOWED = (*LABELS, "ebv", "rv", "mass")
LARGEST_RV = 1000.0
LARGEST_EBV = 2.0
#: S/N that a model spectrum is given, so that its preparation weighs it as a very good observation
MODEL_SNR = 200.0
_PART = re.compile(r"\s*([A-Za-z_]+)\s*=\s*([^\s,;=]+)\s*")
_STARTS = re.compile(r"\s*[A-Za-z_]+\s*=")
_BUT = re.compile(r"(?P<base>.+?)\s+but\s+(?P<change>[A-Za-z_]+\s*=.+)", re.IGNORECASE | re.DOTALL)
# mass in solar masses of a dwarf by Teff in K: Pecaut & Mamajek 2013, table of mean dwarf colours (version 2022)
_DWARF_TEFF = (3850.0, 4440.0, 5270.0, 5770.0, 6550.0, 7800.0, 9700.0, 12500.0)
_DWARF_MASS = (0.57, 0.70, 0.88, 1.00, 1.33, 1.75, 2.18, 3.38)
_DWARF_LOGG = 3.8


@dataclass(frozen=True, slots=True)
class MadeStar:
    """Labels of one star that is to be computed.

    Attributes
    ----------
    labels
        (5,) teff [K], logg [log10 cm s-2], feh, alpha_fe, c_fe [dex].
    ebv
        Reddening [mag] of the light, Gordon et al. 2023 at R_V = 3.1.
    rv
        Radial velocity, km/s.
    mass
        Solar masses; sets its share of a mixture's light, and nothing else.
    """

    labels: np.ndarray
    ebv: float = 0.0
    rv: float = 0.0
    mass: float = 1.0

    @property
    def area(self) -> float:
        """Radius squared up to a constant: mass over surface gravity."""
        return self.mass / float(10.0 ** self.labels[1])


def asks_for_made_star(text: str) -> bool:
    """Whether a target's text is one of the forms above, rather than a key, a file or a name."""
    return bool(_STARTS.match(text)) or _BUT.fullmatch(text.strip()) is not None


def parse_stars(text: str) -> list[MadeStar]:
    """The stars of ``teff=4900,logg=1.8,feh=-3.1``, or of several such texts separated by semicolons.

    `alpha_fe` is by default that of the Milky Way's halo and disc: 0.4 below [Fe/H] = -1, falling linearly to 0 at 0.
    `c_fe`, `ebv` and `rv` are 0 by default. `feh` may be left out in a mixture: it is 0, or that of the first star.

    Raises
    ------
    QueryError
        If a label is unknown, missing, given twice or no finite number.
    """
    stars: list[MadeStar] = []
    for part in text.split(";"):
        given = _numbers(part, ALLOWED)
        if ";" in text:
            given.setdefault("feh", float(stars[0].labels[2]) if stars else 0.0)
        stars.append(made_star(**given))
    return stars


def made_star(**labels: float) -> MadeStar:
    """A star from numbers named as in `parse_stars`.

    Raises
    ------
    QueryError
        If teff, logg or feh is missing, or rv, ebv or mass is out of range.
    """
    missing = [name for name in NEEDED if name not in labels]
    if missing:
        raise QueryError(
            f"A star needs {', '.join(NEEDED)}; {', '.join(missing)} not given.",
            "Write for example teff=4900,logg=1.8,feh=-2.5; alpha_fe, c_fe, ebv and rv may be added.",
        )
    values = {"alpha_fe": galactic_alpha(labels["feh"]), "c_fe": 0.0, "ebv": 0.0, "rv": 0.0, **labels}
    for name, low, high in (("ebv", 0.0, LARGEST_EBV), ("rv", -LARGEST_RV, LARGEST_RV), ("mass", 0.05, 50.0)):
        if name in values and not low <= values[name] <= high:
            raise QueryError(
                f"{name} must lie between {low:g} and {high:g}; found {values[name]:g}.", "Choose it in this range."
            )
    array = np.array([values[name] for name in LABELS], dtype=np.float64)
    mass = values.get("mass", _likely_mass(array))
    return MadeStar(array, values["ebv"], values["rv"], mass)


def galactic_alpha(feh: float) -> float:
    """[alpha/Fe] of a common Milky Way star: 0.4 below [Fe/H] = -1, falling linearly to 0 at 0 and above."""
    return float(np.clip(-0.4 * feh, 0.0, 0.4)) + 0.0


def parse_change(text: str) -> tuple[str, dict[str, float]] | None:
    """The star's text and the label changes of ``KEY but feh=-1,teff=200``; None if the text is not of this form."""
    found = _BUT.fullmatch(text.strip())
    if found is None:
        return None
    return found["base"].strip(), _numbers(found["change"], LABELS)


def _numbers(text: str, allowed: Sequence[str]) -> dict[str, float]:
    """Names and finite numbers of ``a=1,b=2``."""
    result: dict[str, float] = {}
    for part in text.split(","):
        found = _PART.fullmatch(part)
        name = found[1].lower() if found else ""
        if found is None or name not in allowed:
            raise QueryError(
                f"A star's labels are written name=number, separated by commas, with the names {', '.join(allowed)}; "
                f"found '{part.strip()[:60]}'.",
                "Write for example teff=4900,logg=1.8,feh=-2.5.",
            )
        try:
            value = float(found[2])
        except ValueError:
            value = float("nan")
        if not np.isfinite(value):
            raise QueryError(f"{name} must be a finite number; found '{found[2][:40]}'.", f"Write {name}=NUMBER.")
        if name in result:
            raise QueryError(f"{name} was given twice.", "Give each label once.")
        result[name] = value
    return result


def _likely_mass(labels: np.ndarray) -> float:
    """A dwarf's mass by its temperature; one solar mass for others."""
    if labels[1] < _DWARF_LOGG:
        return 1.0
    return float(np.interp(labels[0], _DWARF_TEFF, _DWARF_MASS))


def model_spectrum(stars: Sequence[MadeStar], modality: str = LRS) -> Spectrum:
    """Noise-free model spectrum of one star, or of the summed light of several at one distance.

    Parameters
    ----------
    stars
        One or more stars. Each one's share of the light is its surface flux times mass over gravity.
    modality
        Instrument that it is seen through: the LAMOST LRS form (vacuum Angstrom, R = 1800) or Gaia XP (nm).

    Returns
    -------
    Spectrum
        Flux in erg s-1 cm-2 A-1 at the stars' surface, up to a constant, with inverse variance for S/N 200.

    Raises
    ------
    QueryError
        If the emulator does not cover a star's labels; the range is named.

    Examples
    --------
    >>> star = model_spectrum(parse_stars("teff=4900,logg=1.8,feh=-2.2"))
    >>> len(star.wavelength), star.modality
    (3923, 'lamost_lrs')
    """
    from specclip_search.simulation.spectra.emulator import Emulator
    from specclip_search.simulation.spectra.gaia_xp import XP_WAVELENGTH_NM, model_xp, xp_correction
    from specclip_search.simulation.spectra.line_depths import real_lrs

    emulator = Emulator.load()
    labels = np.stack([require_covered(emulator, star.labels) for star in stars])
    if modality == XP:
        wavelength, flux = XP_WAVELENGTH_NM, model_xp(emulator, labels) * xp_correction(labels)
    elif modality == LRS:
        wavelength, flux = emulator.wavelength, real_lrs(emulator, labels)
    else:
        raise QueryError(
            f"A star can be computed as {LRS} or {XP}; {modality} was asked for.", f"Use --as {LRS} or --as {XP}."
        )
    total = np.zeros(len(wavelength))
    for star, own in zip(stars, flux, strict=True):
        light = np.interp(wavelength, wavelength * (1.0 + star.rv / C_KM_S), own) if star.rv else own
        total += star.area * light * _dimmed(wavelength, get_modality(modality).unit, star.ebv)
    total /= np.median(total)
    return Spectrum(wavelength, total, (MODEL_SNR / total) ** 2, modality, meta={"release": "model"})


def _dimmed(wavelength: np.ndarray, unit: str, ebv: float) -> np.ndarray | float:
    if ebv == 0.0:
        return 1.0
    from specclip_search.simulation.spectra.reddening import transmission

    return transmission(wavelength, unit) ** ebv


def changed_input(flux: np.ndarray, modality: str, labels: Mapping[str, float], change: Mapping[str, float],
                  ) -> np.ndarray:
    """A real star's model input as it would be at other labels: multiplied by the ratio of two model spectra.

    Parameters
    ----------
    flux
        (n,) model input of the star, on the grid of `modality`.
    labels
        The star's own teff, logg and feh.
    change
        What is added to each label. `alpha_fe` of the star is taken as that of the Milky Way at its [Fe/H], before
        and after, unless a change of it is given; `c_fe` as 0.

    Returns
    -------
    ndarray
        (n,) float64.

    Raises
    ------
    QueryError
        If the emulator does not cover the labels before or after the change.
    """
    from specclip_search.surveys.batch import prepare_batch

    own = {name: float(labels[name]) for name in NEEDED}
    moved = {name: own[name] + change.get(name, 0.0) for name in NEEDED}
    moved["alpha_fe"] = galactic_alpha(moved["feh"]) + change.get("alpha_fe", 0.0)
    moved["c_fe"] = change.get("c_fe", 0.0)
    models = [model_spectrum([made_star(**values)], modality) for values in (own, moved)]
    prepared = prepare_batch(get_modality(modality), models)
    before, after = np.asarray(prepared.flux, np.float64)
    result = flux * after / np.where(np.abs(before) > 1e-3, before, 1.0)
    if modality == XP:
        # relative to the flux at 550 nm, as every model input of XP
        result = result / np.interp(550.0, get_modality(modality).wavelength, result)
    return result


def require_covered(emulator: Emulator, labels: np.ndarray) -> np.ndarray:
    """Labels (5,) moved to the emulator's limits where they lie a little outside; QueryError beyond."""
    from specclip_search.simulation.spectra.labels import scaled

    coverage = emulator.coverage
    snapped = emulator.snap(labels)[0]
    if coverage.covers(snapped[None])[0]:
        return snapped
    asked = _as_text(labels)
    outside = [
        f"{name} {_short(low)} to {_short(high)}"
        for name, low, high, value in zip(LABELS, coverage.low, coverage.high, snapped, strict=True)
        if not low <= value <= high
    ]
    if outside:
        raise QueryError(
            f"A star with {asked} cannot be computed: the models cover {', '.join(outside)}.",
            "Choose labels in this range.",
        )
    distance = np.linalg.norm(scaled(coverage.nodes) - scaled(labels[None]), axis=1)
    near = coverage.nodes[int(np.argmin(distance))]
    raise QueryError(
        f"A star with {asked} cannot be computed: no star of the model grid is like it.",
        f"The nearest one that can be is {_as_text(near)}.",
    )


def _as_text(labels: np.ndarray) -> str:
    return ",".join(f"{name}={_short(value)}" for name, value in zip(LABELS, labels, strict=True))


def _short(value: float) -> str:
    """Kelvin without decimals, everything else with two."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value + 0.0:.2f}"
