"""Simulated observations of emulated stars, in the same form as spectra read from files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...constants import C_KM_S
from ...spectrum import Spectrum
from ...surveys import LRS
from .labels import FloatArray
from .line_depths import real_lrs
from .spectrograph import RawLrs, observe_lrs, sample_snr

if TYPE_CHECKING:
    from .emulator import Emulator

RELEASE = "simulated"
# spread of radial velocities, km/s: the disc's about 35, the halo's about 150, with a smooth transition at [Fe/H] = -1
DISC_RV, HALO_RV = 35.0, 150.0
BLOCK = 256


def draw_conditions(ids: np.ndarray, feh: FloatArray, seed: int) -> tuple[FloatArray, FloatArray]:
    """S/N in g and radial velocity [km/s] of each star, (N,) each, which depend only on `seed` and the star's id."""
    snr, rv = np.empty(len(ids)), np.empty(len(ids))
    for i, key in enumerate(ids):
        rng = np.random.default_rng([seed, int(key), 1])
        halo = 1.0 / (1.0 + np.exp((feh[i] + 1.0) / 0.15))
        snr[i] = sample_snr(1, rng)[0]
        rv[i] = np.clip(rng.normal(0.0, DISC_RV + (HALO_RV - DISC_RV) * halo), -600.0, 600.0)
    return snr, rv


def observe_stars(
    emulator: Emulator,
    labels: FloatArray,
    ids: np.ndarray,
    ebv: FloatArray,
    seed: int,
    *,
    ra: np.ndarray | None = None,
    dec: np.ndarray | None = None,
) -> list[Spectrum]:
    """Simulated LAMOST spectra of stars with these labels, ready for the same preparation as real ones.

    Parameters
    ----------
    labels
        (N, 5) covered labels.
    ids
        (N,) int64 `source_id`; it is also the simulated spectrum's `spec_id`.
    ebv
        (N,) reddening, mag.
    ra, dec
        (N,) degrees, NaN where unknown.
    """
    spectra: list[Spectrum] = []
    snr, rv = draw_conditions(ids, labels[:, 2], seed)
    for start in range(0, len(ids), BLOCK):
        rows = slice(start, start + BLOCK)
        raw = observe_lrs(real_lrs(emulator, labels[rows]), snr[rows], rv[rows], ids[rows], ebv=ebv[rows], seed=seed)
        for i in range(len(raw)):
            spectra.append(_spectrum(raw, i, int(ids[start + i]), _degrees(ra, start + i), _degrees(dec, start + i)))
    return spectra


def _spectrum(raw: RawLrs, row: int, key: int, ra: float | None, dec: float | None) -> Spectrum:
    meta = {
        "source_id": key,
        "release": RELEASE,
        "source": "simulated",
        "ra": ra,
        "dec": dec,
        "z": raw.rv[row] / C_KM_S,
        "object_class": "STAR",
        **{f"snr{band}": float(values[row]) for band, values in raw.snr.items()},
    }
    return Spectrum(raw.wavelength, raw.flux[row], raw.ivar[row], LRS, key, meta)


def _degrees(values: np.ndarray | None, row: int) -> float | None:
    return None if values is None or not np.isfinite(values[row]) else float(values[row])
