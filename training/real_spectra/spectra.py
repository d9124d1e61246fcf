"""Real LAMOST and MILES spectra with labels, as a model is trained, calibrated and judged on them.

The files are described in the data's own README; none of them is part of the repository:

* `lamost_real/spectra.npz` with `labels.csv`: flux, ivar, mask (N, 3909) and one row of labels a spectrum;
* `libraries/miles.npz`: `wave_air`, `flux`, `teff`, `logg`, `feh`.

A plate belongs to one side of the split as a whole, and no star is on both sides.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from specclip_search.constants import C_KM_S
from specclip_search.errors import CheckpointError, SpectrumError
from specclip_search.readers.wavelengths import air_to_vacuum
from specclip_search.surveys import LAMOST_LRS
from specclip_search.surveys.batch import prepare_arrays

from ..emulator.compare_lamost import MILES_FWHM_A, RESOLUTION, broadened
from ..emulator.miles import resampled
from ..networks.label_scale import LABELS

LAMOST, MILES = "lamost", "miles"
HELD_SHARE = 5
"""One plate in so many, and one MILES star, is held out."""
MASK_BIT = 1
"""Bit of `mask` that says a pixel was bad in all exposures."""
MILES_ERROR = 0.01
MILES_SNR = 100.0
MAX_REDSHIFT = 0.003
"""About 900 km/s: a larger one is no star's of the Galaxy, or was not measured."""


@dataclass(frozen=True)
class RealSpectra:
    """N prepared real spectra.

    Attributes
    ----------
    inputs, errors
        (N, 1462) float32 model inputs and their 1 sigma, inf where a pixel says nothing.
    labels
        (N, 6) float64 in the order and units of `LABELS`, NaN where unknown.
    snr
        (N,) signal to noise in g.
    origin
        (N,) text: `lamost` or `miles`.
    plate
        (N,) text: plate, or MILES star.
    held
        (N,) bool: no weight may be learned from it.
    is_star
        (N,) bool: the survey calls it a star.
    key
        (N,) int64: obsid or MILES number.
    """

    inputs: np.ndarray
    errors: np.ndarray
    labels: np.ndarray
    snr: np.ndarray
    origin: np.ndarray
    plate: np.ndarray
    held: np.ndarray
    is_star: np.ndarray
    key: np.ndarray

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, rows: np.ndarray) -> RealSpectra:
        """The rows asked for, by number or mask."""
        return RealSpectra(*(getattr(self, f.name)[rows] for f in fields(self)))

    @property
    def labelled(self) -> np.ndarray:
        """(N,) bool: stars whose teff, logg and feh are all known."""
        return self.is_star & np.isfinite(self.labels[:, :3]).all(axis=1)


def read_real(folder: Path) -> RealSpectra:
    """LAMOST and MILES spectra of a data folder; spectra that cannot be prepared are left out.

    Raises
    ------
    CheckpointError
        If a file is missing or does not hold what it must.
    """
    parts = [read_lamost(folder / "lamost_real"), read_miles(folder / "libraries" / "miles.npz")]
    return RealSpectra(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(RealSpectra)))


def read_lamost(folder: Path) -> RealSpectra:
    """The spectra of `folder/spectra.npz` with the labels of `folder/labels.csv`."""
    import pandas as pd

    _require(folder / "spectra.npz", folder / "labels.csv")
    table = pd.read_csv(folder / "labels.csv")
    with np.load(folder / "spectra.npz", allow_pickle=False) as archive:
        flux, ivar, mask, obsid = (archive[name] for name in ("flux", "ivar", "mask", "obsid"))
        log_wave = float(archive["loglam0"]) + float(archive["dloglam"]) * np.arange(flux.shape[1])
    if len(table) != len(flux) or not np.array_equal(table["obsid"].to_numpy(), obsid):
        raise CheckpointError(f"{folder / 'labels.csv'} must have one row for each of the {len(flux)} spectra, in "
                              f"order of spectra.npz; found {len(table)} rows.", "Copy both files again.")
    made = prepare_arrays(LAMOST_LRS, 10.0**log_wave, flux, np.where(mask & MASK_BIT, 0.0, ivar))
    labels = np.full((len(flux), len(LABELS)), np.nan)
    for i, name in enumerate(("teff", "logg", "feh")):
        labels[:, i] = table[name]
    redshift = table["z"].to_numpy(float)
    labels[:, 5] = np.where(np.abs(redshift) < MAX_REDSHIFT, redshift * C_KM_S, np.nan)
    plate = table["planid"].astype(str).to_numpy(dtype="U40")
    held = held_plates(plate, table["star_group"].to_numpy())
    result = RealSpectra(made.flux, made.error, labels, table["snrg"].to_numpy(float),
                         np.full(len(flux), LAMOST, "U8"), plate, held, (table["cls"] == "STAR").to_numpy(), obsid)
    return result.take(made.keep)


def held_plates(plate: np.ndarray, star: np.ndarray, share: int = HELD_SHARE) -> np.ndarray:
    """(N,) bool: rows of plates that are held out, and rows elsewhere of the stars on them.

    A plate's side depends on its name alone, so more plates do not move those there are.
    """
    held = np.array([_side(name, share) == 0 for name in plate], dtype=bool)
    return held | np.isin(star, star[held])


def _side(name: str, share: int) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % share


def read_miles(path: Path) -> RealSpectra:
    """The MILES stars, at their own resolution (2.5 A), rest frame."""
    _require(path)
    with np.load(path, allow_pickle=False) as archive:
        wave, flux = air_to_vacuum(archive["wave_air"].astype(float)), archive["flux"].astype(float)
        number = archive["miles_id"].astype(np.int64)
        labels = np.full((len(flux), len(LABELS)), np.nan)
        for i, name in enumerate(("teff", "logg", "feh")):
            labels[:, i] = archive[name]
    labels[:, 5] = 0.0
    good = np.isfinite(flux).all(axis=1)
    grid = np.arange(wave[0] + 1.0, wave[-1] - 1.0, 0.5)
    own = np.full_like(grid, MILES_FWHM_A)
    seen = broadened(grid, resampled(wave, flux[good], grid), own, np.maximum(own, grid / RESOLUTION))
    try:
        inputs = LAMOST_LRS.prepare(grid, seen).astype(np.float32)
    except SpectrumError as error:
        raise CheckpointError(f"{path} cannot be prepared: {error.message}", "Copy the file again.") from error
    count, number, labels = len(inputs), number[good], labels[good]
    plate = np.array([f"miles{n}" for n in number], dtype="U40")
    return RealSpectra(inputs, np.full(inputs.shape, MILES_ERROR, np.float32), labels, np.full(count, MILES_SNR),
                       np.full(count, MILES, "U8"), plate, held_plates(plate, number), np.ones(count, bool), number)


def _require(*paths: Path) -> None:
    for path in paths:
        if not path.is_file():
            raise CheckpointError(f"Real spectra were expected at {path}; there is no such file.",
                                  "Give the data folder that holds lamost_real/ and libraries/.")
