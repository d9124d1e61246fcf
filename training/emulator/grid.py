"""The grid of model spectra on which the emulator is trained (its origin: docs/emulator.md)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from specclip_search.simulation.spectra.labels import LABEL_NAMES, FloatArray, SimulationError

_NEEDED = (
    "labels",
    "label_names",
    "index",
    "lrs_wave_vac",
    "lrs_norm_q",
    "lrs_norm_step",
    "lrs_cont_wave",
    "lrs_cont",
    "sed_wave_vac",
    "sed_flux",
)


@dataclass(frozen=True, slots=True)
class ModelGrid:
    """Model spectra with their labels; wavelengths in vacuum Angstrom, flux in erg s-1 cm-2 A-1.

    Attributes
    ----------
    labels
        (N, 5) in the order of `LABEL_NAMES`.
    vmic
        (N,) microturbulence in km/s.
    index
        (N,) int64 number of the sampling point.
    wavelength, normalised
        (3923,) and (N, 3923) float32 flux over continuum, R = 1800.
    continuum_wavelength, continuum
        (328,) and (N, 328) surface flux of the continuum.
    sed_wavelength, sed
        (710,) and (N, 710) mean surface flux in bins of 10 A.
    """

    labels: FloatArray
    vmic: FloatArray
    index: np.ndarray
    wavelength: FloatArray
    normalised: np.ndarray
    continuum_wavelength: FloatArray
    continuum: FloatArray
    sed_wavelength: FloatArray
    sed: FloatArray


def read_grid(path: Path) -> ModelGrid:
    """Read the grid's npz file.

    Raises
    ------
    SimulationError
        If the file is missing, is not such a grid, or has values that are not finite and positive.
    """
    if not path.is_file():
        raise SimulationError(
            f"The grid of model spectra was expected at {path}; there is no such file.",
            "Give the path of the npz file that holds the grid.",
        )
    with np.load(path, allow_pickle=False) as archive:
        missing = [name for name in _NEEDED if name not in archive.files]
        if missing:
            raise SimulationError(
                f"{path} is not a grid of model spectra: it lacks {', '.join(missing)}.",
                "The required arrays are listed in docs/emulator.md.",
            )
        names = [str(name) for name in archive["label_names"]]
        labels = archive["labels"].astype(np.float64)
        grid = ModelGrid(
            labels=labels[:, [names.index(name) for name in LABEL_NAMES]],
            vmic=labels[:, names.index("vmic")],
            index=archive["index"].astype(np.int64),
            wavelength=archive["lrs_wave_vac"].astype(np.float64),
            normalised=archive["lrs_norm_q"].astype(np.float32) * np.float32(archive["lrs_norm_step"]),
            continuum_wavelength=archive["lrs_cont_wave"].astype(np.float64),
            continuum=archive["lrs_cont"].astype(np.float64),
            sed_wavelength=archive["sed_wave_vac"].astype(np.float64),
            sed=archive["sed_flux"].astype(np.float64),
        )
    for name in ("normalised", "continuum", "sed"):
        values = getattr(grid, name)
        if not (np.isfinite(values).all() and (values > 0).all()):
            raise SimulationError(
                f"{path}: every value of '{name}' must be finite and positive; some are not.",
                "The file is damaged; download it again.",
            )
    return grid
