"""The stars of a simulated survey: labels, motion, reddening and brightness of each star.

Temperatures and gravities are those of real stars of similar metallicity, so that the sequences of
dwarfs, turn-off and giants are realistic. Each star depends only on the seed and its number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...keys import split_of
from ..spectra.labels import FloatArray
from ..spectra.spectrograph import SNR_RANGE, SNR_SPREAD_DEX, TYPICAL_SNR
from .metal_poor import FIRST_SIMULATED_ID
from .oddities import ODDITIES, REPLACED
from .rates import Rates

if TYPE_CHECKING:
    from ..spectra.emulator import Emulator

POPULATIONS = ("thin disc", "thick disc", "halo", "metal-poor tail")
SHARES = (0.70, 0.22, 0.08)
# centre and spread of [Fe/H], [alpha/Fe], and spread of the velocity [km/s] of each population
FEH = ((-0.1, 0.2), (-0.55, 0.25), (-1.5, 0.45), (-3.0, 0.0))
ALPHA = ((0.04, 0.04), (0.22, 0.06), (0.30, 0.07), (0.33, 0.07))
SPEED_KM_S = (35.0, 55.0, 150.0, 150.0)
LATITUDE_DEG = (12.0, 25.0, 60.0, 60.0)
TAIL_SCALE_DEX = 0.35  # e-folding length of the [Fe/H] distribution below -3, in dex, and its lower limit
LOWEST_FEH = -4.0
FEWEST_BASES = 150  # number of real stars nearest in [Fe/H] from which the base of a star is drawn
TRIES = 6
TEFF_SHIFT, LOGG_SHIFT = 0.012, 0.08
VISIT_SHARES = (0.8, 0.15, 0.05)
FAINTER_MAG = 2.0
MAX_RV_KM_S = 600.0
# smaller numbers are used by the metal-poor pairs of `simulate --metal-poor`
FIRST_NUMBER = 10**9
KM_S_PER_MAS_KPC = 4.74047


@dataclass(frozen=True, slots=True)
class Bases:
    """Real stars in order of [Fe/H]: ids, covered labels (N, 5), E(B-V), G, XP input flux and error (N, 343)."""

    ids: np.ndarray
    labels: FloatArray
    ebv: FloatArray
    g_mag: FloatArray
    flux: np.ndarray
    error: np.ndarray


@dataclass(frozen=True, slots=True)
class Population:
    """Stars to be simulated; one row per star, arrays of (N,) unless noted otherwise.

    Attributes
    ----------
    number, source_id
        int64.
    base
        int64 row of the star's base.
    labels
        (N, 5).
    kind
        int64 number in `POPULATIONS`.
    oddity
        object, name of the anomaly class or empty text.
    strength
        (N, 4) uniform in 0 to 1, from which an anomaly's parameters are computed.
    visits
        int64, LAMOST spectra of the star.
    snr
        (N, 3) S/N of each visit, g band.
    """

    number: np.ndarray
    source_id: np.ndarray
    base: np.ndarray
    labels: FloatArray
    kind: np.ndarray
    oddity: np.ndarray
    strength: FloatArray
    visits: np.ndarray
    snr: FloatArray
    rv: FloatArray
    g_mag: FloatArray
    ra: FloatArray
    dec: FloatArray
    pmra: FloatArray
    pmdec: FloatArray

    def __len__(self) -> int:
        return len(self.number)


def draw_population(
    emulator: Emulator, bases: Bases, numbers: np.ndarray, seed: int, rates: Rates
) -> Population:
    """The stars of these numbers; a star does not depend on the others drawn with it."""
    uniform = np.empty((len(numbers), 24))
    normal = np.empty((len(numbers), 10 + 4 * TRIES))
    for i, number in enumerate(numbers):
        rng = np.random.default_rng([seed, int(number), 2])
        rng.random(out=uniform[i])
        rng.standard_normal(out=normal[i])
    oddity = _oddity(uniform[:, 0], rates)
    tail = (uniform[:, 1] < rates.emp) | (oddity == "carbon_enhanced")
    kind = np.where(tail, 3, np.searchsorted(np.cumsum(SHARES)[:-1], uniform[:, 2], side="right"))
    feh = _metallicity(kind, uniform[:, 3], normal[:, 0])
    feh = np.where((oddity == "carbon_enhanced") & (uniform[:, 1] >= rates.emp), -1.9 - uniform[:, 3], feh)
    base = _base_rows(bases, feh, uniform[:, 4])
    # their light is unlike that of the base: with a cool base the ratio would amplify the noise in the blue
    hot = np.isin(oddity, REPLACED)
    base[hot] = _hottest(bases)[(uniform[hot, 4] * len(_hottest(bases))).astype(np.int64)]
    feh = np.where(hot, bases.labels[base, 2], feh)
    labels = _labels(emulator, bases.labels[base], feh, kind, oddity, uniform, normal[:, 10:])
    # if no carbon-rich labels are covered the star is a normal one
    oddity[(oddity == "carbon_enhanced") & (labels[:, 4] < 0.7)] = ""
    g_mag = bases.g_mag[base] + FAINTER_MAG * uniform[:, 5]
    position, motion = _sky(kind, labels, g_mag - 2.7 * bases.ebv[base], uniform, normal)
    offset = (split_of(bases.ids[base]) - split_of(FIRST_SIMULATED_ID)) % 10
    return Population(
        numbers,
        FIRST_SIMULATED_ID + (((FIRST_NUMBER + numbers) * 10 + offset) << 7),
        base,
        labels,
        kind,
        oddity,
        uniform[:, 16:20],
        1 + np.searchsorted(np.cumsum(VISIT_SHARES)[:-1], uniform[:, 6], side="right"),
        np.clip(TYPICAL_SNR * 10.0 ** (SNR_SPREAD_DEX * normal[:, 1:4]), *SNR_RANGE),
        np.clip(np.take(SPEED_KM_S, kind) * normal[:, 4], -MAX_RV_KM_S, MAX_RV_KM_S),
        g_mag,
        *position,
        *motion,
    )


def _oddity(uniform: FloatArray, rates: Rates) -> np.ndarray:
    names = [name for name in ODDITIES if rates.odd.get(name, 0.0) > 0]
    edges = np.cumsum([rates.odd[name] for name in names])
    return np.array([*names, ""], dtype=object)[np.searchsorted(edges, uniform, side="right")]


def _metallicity(kind: np.ndarray, uniform: FloatArray, normal: FloatArray) -> FloatArray:
    middle, spread = np.take(FEH, kind, axis=0).T
    reach = 1.0 - np.exp((LOWEST_FEH + 3.0) / TAIL_SCALE_DEX)
    tail = -3.0 + TAIL_SCALE_DEX * np.log(1.0 - reach * uniform)
    # the tail has its own rate, so the other populations end where it begins
    return np.where(kind == 3, tail, np.clip(middle + spread * normal, -2.99, 0.45))


def _base_rows(bases: Bases, feh: FloatArray, uniform: FloatArray) -> np.ndarray:
    """A real star among those nearest in [Fe/H]: within 0.1 dex, or the `FEWEST_BASES` next to it."""
    known, total = bases.labels[:, 2], len(bases.ids)
    low, high = np.searchsorted(known, feh - 0.1), np.searchsorted(known, feh + 0.1)
    lacking = np.maximum(min(FEWEST_BASES, total) - (high - low), 0)
    low = np.clip(low - lacking // 2, 0, max(total - FEWEST_BASES, 0))
    high = np.minimum(np.maximum(high, low + min(FEWEST_BASES, total)), total)
    return (low + np.floor(uniform * (high - low))).astype(np.int64)


def _hottest(bases: Bases) -> np.ndarray:
    """Rows of the hottest 5 % of the bases, at least `FEWEST_BASES`."""
    order = np.argsort(-bases.labels[:, 0], kind="stable")
    return order[: max(len(order) // 20, min(FEWEST_BASES, len(order)))]


def _labels(
    emulator: Emulator,
    base: FloatArray,
    feh: FloatArray,
    kind: np.ndarray,
    oddity: np.ndarray,
    uniform: FloatArray,
    normal: FloatArray,
) -> FloatArray:
    """Labels near the base's Teff and logg at the requested composition; the base's own if no trial is covered."""
    middle, spread = np.take(ALPHA, kind, axis=0).T
    rich = oddity == "carbon_enhanced"
    result, open_rows = base.copy(), np.arange(len(base))
    for turn in range(TRIES):
        z = normal[open_rows, 4 * turn : 4 * turn + 4]
        near, shrink = base[open_rows], 1.0 - turn / (TRIES - 1)
        carbon = np.where(rich[open_rows], 0.8 + 1.2 * uniform[open_rows, 7] * shrink, 0.08 * z[:, 3])
        wished = np.column_stack(
            [
                near[:, 0] * np.exp(TEFF_SHIFT * z[:, 0] * shrink),
                near[:, 1] + LOGG_SHIFT * z[:, 1] * shrink,
                feh[open_rows],
                np.clip(middle[open_rows] + spread[open_rows] * z[:, 2], -0.1, 0.45),
                carbon,
            ]
        )
        wished = emulator.snap(wished)
        good = emulator.covers(wished)
        result[open_rows[good]] = wished[good]
        open_rows = open_rows[~good]
        if not len(open_rows):
            break
    return result


def _sky(
    kind: np.ndarray, labels: FloatArray, g_mag: FloatArray, uniform: FloatArray, normal: FloatArray
) -> tuple[tuple[FloatArray, FloatArray], tuple[FloatArray, FloatArray]]:
    """Positions [deg] by the population's galactic latitudes, proper motions [mas/yr] by speed and distance."""
    import astropy.units as u
    from astropy.coordinates import SkyCoord

    latitude = np.clip(np.take(LATITUDE_DEG, kind) * normal[:, 5], -89.0, 89.0)
    place = SkyCoord(l=360.0 * uniform[:, 8] * u.deg, b=latitude * u.deg, frame="galactic").icrs
    # L/Lsun of 0.9 Msun from Teff and logg (solar: 5772 K, 4.438); G as if bolometric
    luminosity = 0.9 * 10.0 ** (4.438 - labels[:, 1]) * (labels[:, 0] / 5772.0) ** 4
    distance_kpc = 10.0 ** (0.2 * (g_mag - 4.74 + 2.5 * np.log10(luminosity)) - 2.0)
    motion = np.take(SPEED_KM_S, kind) / (KM_S_PER_MAS_KPC * distance_kpc)
    return (np.asarray(place.ra.deg), np.asarray(place.dec.deg)), (motion * normal[:, 6], motion * normal[:, 7])
