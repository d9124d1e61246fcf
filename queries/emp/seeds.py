"""Built-in reference stars of the EMP search: emulated spectra, embedded like observed ones.

Catalogues contain few or no stars with [Fe/H] < -2.5 and often none hotter than 7000 K. Model spectra
over Teff, log g and [Fe/H] from -2.5 to -4, carbon-normal and carbon-rich, represent the first;
model spectra of hot stars of ordinary metallicity, whose weak lines mimic metal-poor ones, for
the second. LRS spectra are emulated; XP spectra are real ones of the atlas shifted to the
target labels by the ratio of two model spectra if it has suitable stars, else emulated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from specclip_search.atlas.arrays import column_to_matrix
from specclip_search.keys import ACCEPTANCE_SPLIT, split_of
from specclip_search.surveys import LRS, XP

if TYPE_CHECKING:
    from ..space.space import Space

LABELS = ("teff", "logg", "feh", "alpha_fe", "c_fe")
EMP_FEH = (-2.5, -3.0, -3.5, -4.0)
EMP_TEFF = (4400.0, 4700.0, 5000.0, 5300.0, 5600.0, 5900.0, 6200.0, 6500.0)
CARBON = (0.1, 0.8, 1.6)
HOT_TEFF = (7000.0, 7500.0, 8200.0, 9000.0, 10000.0, 11000.0)
HOT_FEH = (-1.0, -0.5, 0.0, 0.3)
HOT_LOGG = (3.6, 4.1)
MIN_BASES = 50
MAX_BASES = 400


@dataclass(frozen=True, slots=True)
class Seeds:
    """Reference stars that are not in the atlas.

    Attributes
    ----------
    vectors
        (S, dim) float32 centred unit vectors.
    labels
        (S, 5) teff, logg, feh, alpha_fe, c_fe.
    """

    vectors: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def column(self, name: str) -> np.ndarray:
        """(S,) one label."""
        return self.labels[:, LABELS.index(name)]

    @classmethod
    def none(cls, dim: int) -> Seeds:
        """Empty seeds."""
        return cls(np.empty((0, dim), np.float32), np.empty((0, len(LABELS))))


def giant_or_dwarf_gravity(teff: float, feh: float) -> tuple[float, float]:
    """log g of the red giant branch and of the main sequence at a Teff.

    Giants: Teff = 3720 + 395 log g - 165 max([Fe/H], -2.5), the line along which the emulator's
    grid was sampled; dwarfs 4.65 at 4500 K to 4.2 at 6300 K.
    """
    giant = (teff - 3720.0 + 165.0 * max(feh, -2.5)) / 395.0
    dwarf = float(np.interp(teff, [4500.0, 5500.0, 6300.0], [4.65, 4.5, 4.2]))
    return giant, dwarf


def wished_labels() -> np.ndarray:
    """(n, 5) labels of all built-in seeds, before the emulator's limits are applied."""
    rows = []
    for feh in EMP_FEH:
        for teff in EMP_TEFF:
            for logg in giant_or_dwarf_gravity(teff, feh):
                rows += [(teff, logg, feh, 0.33, carbon) for carbon in CARBON]
    hot = [(teff, logg, feh, 0.0, 0.0) for teff in HOT_TEFF for logg in HOT_LOGG for feh in HOT_FEH]
    return np.array([*rows, *hot])


def emulator_seeds(space: Space, modality: str, labels: dict[str, np.ndarray], seed: int = 0) -> Seeds:
    """Built-in seeds of one instrument, embedded with the model of the space.

    Parameters
    ----------
    labels
        Labels by vector row of this instrument (see `labels.row_labels`); for XP, real stars with
        teff, logg and feh are shifted to low metallicity.
    """
    from specclip_search.simulation.spectra.emulator import Emulator

    emulator = Emulator.load()
    wished = wished_labels()
    wished = wished[emulator.covers(wished)]
    if modality == LRS:
        inputs, chosen = _lrs_inputs(emulator, wished), wished
    else:
        inputs, chosen = _xp_inputs(space, emulator, wished, labels, seed)
    vectors = np.asarray(space.loaded_model().embed(modality, inputs.astype(np.float32)), np.float32)
    good = np.isfinite(vectors).all(axis=1)
    return Seeds(space.index(modality).centred(vectors[good], modality), chosen[good])


def _lrs_inputs(emulator: Any, labels: np.ndarray) -> np.ndarray:
    from specclip_search.surveys import LAMOST_LRS

    return np.asarray(LAMOST_LRS.prepare(emulator.wavelength, emulator.lrs(labels)))


def _xp_inputs(
    space: Space, emulator: Any, wished: np.ndarray, labels: dict[str, np.ndarray], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    from specclip_search.simulation.spectra.gaia_xp import model_xp

    flux, chosen = model_xp(emulator, wished), wished
    moved = _moved_from_real(space, emulator, labels, seed)
    if moved is not None:
        hot = wished[:, 0] >= min(HOT_TEFF)
        flux, chosen = np.concatenate([moved[0], flux[hot]]), np.concatenate([moved[1], wished[hot]])
    return _over_550nm(flux), chosen


def _over_550nm(flux: np.ndarray) -> np.ndarray:
    from specclip_search.surveys import GAIA_XP

    at = int(np.argmin(np.abs(np.asarray(GAIA_XP.wavelength) - 550.0)))
    return flux / flux[:, at : at + 1]


def _moved_from_real(
    space: Space, emulator: Any, labels: dict[str, np.ndarray], seed: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """XP spectra of real metal-poor stars shifted to lower [Fe/H]; None if there are too few to start from."""
    from specclip_search.simulation.samples.metal_poor import draw_targets, suitable_bases
    from specclip_search.simulation.spectra.gaia_xp import moved_xp

    if not {"teff", "logg", "feh"} <= set(labels):
        return None
    alpha = labels.get("alpha_fe", labels.get("alpha_m", np.zeros(len(labels["feh"]))))
    table = np.column_stack([labels["teff"], labels["logg"], labels["feh"], np.nan_to_num(alpha), np.zeros(len(alpha))])
    keys = space.keys(XP)
    known = np.flatnonzero(np.isfinite(table).all(axis=1) & (split_of(keys.source_id) != ACCEPTANCE_SPLIT))
    table = emulator.snap(table[known])
    bases = suitable_bases(emulator, table)
    if len(bases) < MIN_BASES:
        return None
    rng = np.random.default_rng(seed)
    rows, targets = draw_targets(emulator, table[bases], 2 * MAX_BASES, rng)
    low = targets[:, 2] <= -2.2
    rows, targets = rows[low][:MAX_BASES], targets[low][:MAX_BASES]
    flux = read_flux(space, XP, known[bases[rows]])
    return moved_xp(emulator, flux, table[bases[rows]], targets), targets


def read_flux(space: Space, modality: str, rows: np.ndarray) -> np.ndarray:
    """(N, n) float64 model inputs of the spectra at vector rows."""
    return read_arrays(space, modality, rows, ("flux",))[0]


def read_arrays(space: Space, modality: str, rows: np.ndarray, names: Sequence[str]) -> list[np.ndarray]:
    """(N, n) float64 list columns of the spectra at vector rows, one array per name."""
    parts = space.atlas.vectors(space.model, modality).parts()
    offsets = np.concatenate([[0], np.cumsum([part.rows for part in parts])])
    owner = np.searchsorted(offsets, rows, side="right") - 1
    found: dict[str, np.ndarray] = {}
    for number in np.unique(owner):
        path = space.atlas.spectra(modality).shard_path(parts[number].number)
        table = pq.ParquetFile(path).read(columns=list(names))
        here = owner == number
        for name in names:
            matrix = column_to_matrix(table[name])
            found.setdefault(name, np.empty((len(rows), matrix.shape[1])))[here] = matrix[rows[here] - offsets[number]]
    return [found.get(name, np.empty((0, 0))) for name in names]
