"""Very metal-poor and carbon-rich stars, of which no real library has enough, made from real ones.

Each borrows a real star's Gaia XP spectrum, moved to lower [Fe/H] by the ratio of two model
spectra; its ids lie above every id that Gaia can give.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...keys import split_of
from ..spectra.labels import FloatArray

if TYPE_CHECKING:
    from ..spectra.emulator import Emulator

# Gaia's ids hold a level-12 HEALPix number (below 12 * 4**12) shifted by 35 bits: nothing real is this large
FIRST_SIMULATED_ID = (12 * 4**12) << 35
LOWEST_FEH = -4.0
STEP_FEH = 0.3
BASE_FEH = -0.5
BASE_TEFF = (4200.0, 6900.0)
CARBON_RICH_BELOW_FEH = -1.8
CARBON_RICH_FRACTION = 0.25
MAX_ROUNDS = 50


def suitable_bases(emulator: Emulator, labels: FloatArray) -> np.ndarray:
    """Rows of real stars (labels (N, 5)) whose XP spectra can be moved to lower metallicity."""
    teff, feh = labels[:, 0], labels[:, 2]
    with np.errstate(invalid="ignore"):
        wanted = (feh < BASE_FEH) & (teff > BASE_TEFF[0]) & (teff < BASE_TEFF[1])
    return np.flatnonzero(wanted & emulator.covers(labels))


def draw_targets(
    emulator: Emulator,
    labels: FloatArray,
    count: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, FloatArray]:
    """Base rows and labels of `count` stars to be made.

    Teff and logg are the base's own, so that the ratio of models is one of composition alone.
    [Fe/H] is uniform from -4 to 0.3 below the base's; [alpha/Fe] scatters about 0.33; below
    [Fe/H] = -1.8 a quarter is carbon-rich, [C/Fe] 0.7 to 2.2, the others scatter about 0.1.

    Returns
    -------
    rows : ndarray of int64, (count,)
        Rows of `labels`; a base may serve several times.
    targets : ndarray, (count, 5)

    Raises
    ------
    ValueError
        If no star of `labels` is a suitable base, or nearly no target is covered.
    """
    bases = suitable_bases(emulator, labels)
    if not len(bases):
        raise ValueError("no labelled star is a suitable base")
    rows = np.empty(0, dtype=np.int64)
    targets = np.empty((0, 5))
    for _ in range(MAX_ROUNDS):
        if len(rows) >= count:
            break
        drawn = rng.choice(bases, size=2 * count)
        wished = _wished(labels[drawn], rng)
        possible = emulator.covers(wished)
        rows = np.concatenate([rows, drawn[possible]])
        targets = np.concatenate([targets, wished[possible]])
    if len(rows) < count:
        raise ValueError("almost no star below the bases' metallicity lies within the emulator's range")
    return rows[:count], targets[:count]


def _wished(base: FloatArray, rng: np.random.Generator) -> FloatArray:
    n = len(base)
    feh = rng.uniform(LOWEST_FEH, base[:, 2] - STEP_FEH)
    alpha_fe = np.clip(rng.normal(0.33, 0.08, n), 0.0, 0.45)
    c_fe = np.clip(rng.normal(0.1, 0.2, n), -0.5, 0.5)
    rich = (feh < CARBON_RICH_BELOW_FEH) & (rng.random(n) < CARBON_RICH_FRACTION)
    c_fe = np.where(rich, rng.uniform(0.7, 2.2, n), c_fe)
    return np.stack([base[:, 0], base[:, 1], feh, alpha_fe, c_fe], axis=1)


def simulated_ids(base_ids: np.ndarray) -> np.ndarray:
    """int64 ids above every Gaia id, unique within the call, each in the split of its base star.

    A star made from an acceptance star is an acceptance star too: `split_of` reads bits 7 and up,
    so the sequence number times ten plus the split goes there.
    """
    number = np.arange(len(base_ids), dtype=np.int64)
    offset = (split_of(base_ids) - split_of(FIRST_SIMULATED_ID)) % 10
    return FIRST_SIMULATED_ID + ((number * 10 + offset) << 7)
