"""Compare emulated with real Gaia XP spectra, star by star at APOGEE labels.

Emulated spectra are convolved with XP's line spread function and reddened; reddening and level are fitted by
`fit_reddening`; nothing else is fitted. Stars of the acceptance split are never read.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from specclip_search.atlas.arrays import column_to_matrix
from specclip_search.keys import ACCEPTANCE_SPLIT, split_of
from specclip_search.simulation.samples.pairs import read_labels
from specclip_search.simulation.spectra.gaia_xp import XP_WAVELENGTH_NM, model_xp, xp_correction
from specclip_search.simulation.spectra.labels import FloatArray, SimulationError
from specclip_search.simulation.spectra.reddening import FIRST_NM, FLUX_FLOOR, LAST_NM, fit_reddening, xp_extinction
from specclip_search.surveys import XP

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas
    from specclip_search.simulation.spectra.emulator import Emulator

MAX_EBV = 0.5
"""Maximum E(B-V) [mag]; for more reddened stars the extinction curve would be tested, not the models."""

WINDOW = (XP_WAVELENGTH_NM >= 400.0) & (XP_WAVELENGTH_NM <= 990.0)
FITTED = (XP_WAVELENGTH_NM >= FIRST_NM) & (XP_WAVELENGTH_NM <= LAST_NM)
SMOOTH_DEGREE = 6
MOVES_DEX = (0.0, 0.3, 0.8, 1.6)


@dataclass(frozen=True, slots=True)
class RealXp:
    """Real stars and emulated ones: labels (N, 5), E(B-V) (N,), flux and error as prepared and the model (N, 343)."""

    source_id: np.ndarray
    labels: FloatArray
    ebv: FloatArray
    flux: FloatArray
    error: FloatArray
    model: FloatArray

    def residual(self, *, corrected: bool = False) -> FloatArray:
        """(N, 343) ln of real over emulated flux, 0 on average over 430-990 nm."""
        floor = FLUX_FLOOR * np.median(self.flux, axis=1, keepdims=True)
        model = self.model * xp_correction(self.labels) if corrected else self.model
        difference = np.log(np.maximum(self.flux, floor) / model)
        return difference - difference[:, FITTED].mean(axis=1, keepdims=True)

    def rms(self, *, corrected: bool = False) -> FloatArray:
        """(N,) rms of real over emulated flux less 1, 400-990 nm."""
        return np.sqrt((np.expm1(self.residual(corrected=corrected)[:, WINDOW]) ** 2).mean(axis=1))

    def noise(self) -> FloatArray:
        """(N,) rms of the stated relative error, 400-990 nm."""
        relative = self.error[:, WINDOW] / np.abs(self.flux[:, WINDOW])
        return np.sqrt(np.mean(np.where(np.isfinite(relative), relative, 0.0) ** 2, axis=1))

    def correlation(self, *, corrected: bool = False) -> FloatArray:
        """(N,) Pearson correlation of the residuals from a smooth curve (degree 6 in ln flux), 400-990 nm.

        For whole spectra it would be close to 1 for any two stars of similar colour.
        """
        floor = FLUX_FLOOR * np.median(self.flux, axis=1, keepdims=True)
        real = np.log(np.maximum(self.flux, floor))
        a, b = (_structure(ln[:, WINDOW]) for ln in (real, real - self.residual(corrected=corrected)))
        return np.asarray((a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1)))


def _structure(values: FloatArray) -> FloatArray:
    curves, _ = np.linalg.qr(
        np.polynomial.chebyshev.chebvander(np.linspace(-1.0, 1.0, values.shape[1]), SMOOTH_DEGREE)
    )
    return values - (values @ curves) @ curves.T


def read_real_xp(emulator: Emulator, atlas: Atlas, catalogue: str, splits: Collection[int]) -> RealXp:
    """The real XP stars of these splits with labels covered by the emulator.

    Raises
    ------
    SimulationError
        If acceptance stars are requested, or no star is found.
    """
    if ACCEPTANCE_SPLIT in splits:
        raise SimulationError("Nothing is learned from or tuned on acceptance stars; found split 9.", "Use 0 to 8.")
    known = read_labels(atlas.catalog(catalogue))
    pieces: list[tuple[np.ndarray, ...]] = []
    for _, batch in atlas.spectra(XP).iter_batches(["source_id", "simulated", "flux", "error"]):
        key = batch["source_id"].fill_null(-1).to_numpy()
        wanted = emulator.snap(known.lookup(key))
        real = ~batch["simulated"].to_numpy(zero_copy_only=False) & np.isin(split_of(key), list(splits))
        rows = np.flatnonzero(real & np.isfinite(wanted).all(axis=1))
        rows = rows[emulator.covers(wanted[rows])]
        flux, error = (column_to_matrix(batch[name])[rows].astype(np.float64) for name in ("flux", "error"))
        pieces.append((key[rows], wanted[rows], fit_reddening(emulator, wanted[rows], flux), flux, error))
    if not sum(len(piece[0]) for piece in pieces):
        raise SimulationError(
            f"No real XP star of {atlas.path} in the requested splits has labels that the emulator covers.",
            "Ingest some with `specclip-search ingest library`.",
        )
    key, labels, ebv, flux, error = (np.concatenate(column) for column in zip(*pieces, strict=True))
    dimmed = model_xp(emulator, labels) * 10.0 ** (-0.4 * ebv[:, None] * xp_extinction())
    return RealXp(key, labels, ebv, flux, error, dimmed)


def moved_rms(stars: RealXp, low: float, high: float) -> dict[str, float | int]:
    """Median rms of real stars predicted from others of similar teff and logg, more metal-rich by low to high dex.

    The prediction is the other star's real spectrum times the ratio of emulated ones, its reddening
    replaced by that of the star, as in `moved_xp`, with and without the correction.
    """
    teff, logg, feh = np.log(stars.labels[:, 0]), stars.labels[:, 1], stars.labels[:, 2]
    pairs: list[tuple[int, int]] = []
    for i in np.flatnonzero(stars.ebv < MAX_EBV):
        like = (np.abs(teff - teff[i]) < 0.03) & (np.abs(logg - logg[i]) < 0.25) & (stars.ebv < MAX_EBV)
        found = np.flatnonzero(like & (feh - feh[i] >= low) & (feh - feh[i] < high))
        if len(found):
            pairs.append((int(i), int(found[len(found) // 2])))
    if not pairs:
        return {"n": 0}
    star, other = np.array(pairs).T
    result: dict[str, float | int] = {"n": len(pairs)}
    for name, corrected in (("rms", False), ("rms_corrected", True)):
        left = stars.residual(corrected=corrected)[:, WINDOW]
        left = np.sqrt((np.expm1(left[star] - left[other]) ** 2).mean(axis=1))
        result[name] = round(float(np.median(left)), 4)
    return result


def xp_report(stars: RealXp, teff_edges: tuple[float, ...], feh_edges: tuple[float, ...]) -> dict[str, object]:
    """Medians over all stars and in bins of teff and feh, before and after the shipped correction."""
    values = {
        "noise": stars.noise(),
        "rms": stars.rms(),
        "rms_corrected": stars.rms(corrected=True),
        "correlation": stars.correlation(),
        "correlation_corrected": stars.correlation(corrected=True),
    }

    def row(inside: np.ndarray) -> dict[str, float]:
        return {"n": int(inside.sum())} | {k: round(float(np.median(v[inside])), 4) for k, v in values.items()}

    result: dict[str, object] = {"all": row(np.ones(len(stars.labels), dtype=bool))}
    for name, column, edges in (("by_teff", 0, teff_edges), ("by_feh", 2, feh_edges)):
        label = stars.labels[:, column]
        bins = [(low, high, (label >= low) & (label < high)) for low, high in pairwise(edges)]
        result[name] = [{"from": low, "to": high} | row(inside) for low, high, inside in bins if inside.any()]
    result["moved"] = [{"from": low, "to": high} | moved_rms(stars, low, high) for low, high in pairwise(MOVES_DEX)]
    return result
