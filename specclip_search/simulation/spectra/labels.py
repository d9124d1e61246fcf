"""Stellar labels: their order, their array form, and the scale for distances between labels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...errors import SpecclipError

FloatArray = NDArray[np.float64]

LABEL_NAMES: tuple[str, ...] = ("teff", "logg", "feh", "alpha_fe", "c_fe")
LABEL_UNITS: dict[str, str] = {"teff": "K", "logg": "log10(cm s-2)", "feh": "dex", "alpha_fe": "dex", "c_fe": "dex"}
DISTANCE_SCALE = np.array([0.05, 0.35, 0.5, 0.25, 0.5])
"""Label differences that count as one unit of distance: ln(teff), logg, feh, alpha_fe, c_fe."""


class SimulationError(SpecclipError):
    """A star cannot be simulated as requested."""


def label_array(labels: ArrayLike | Mapping[str, ArrayLike]) -> FloatArray:
    """Labels as an (N, 5) float64 array in the order of `LABEL_NAMES`.

    Parameters
    ----------
    labels
        Either an array (N, 5) or (5,), or a mapping with a value or an (N,) array for each of
        teff [K], logg [log10 cm s-2], feh, alpha_fe, c_fe [dex]; other names are ignored.

    Raises
    ------
    SimulationError
        If a label is missing or the shape is wrong.
    """
    if isinstance(labels, Mapping):
        missing = [name for name in LABEL_NAMES if name not in labels]
        if missing:
            raise SimulationError(
                f"A star needs the labels {', '.join(LABEL_NAMES)}; {', '.join(missing)} not given.",
                "Give every label; use 0, the solar value, if [C/Fe] or [alpha/Fe] is unknown.",
            )
        columns = np.broadcast_arrays(*(np.atleast_1d(np.asarray(labels[n], float)) for n in LABEL_NAMES))
        return np.stack(columns, axis=1)
    array = np.atleast_2d(np.asarray(labels, dtype=np.float64))
    if array.ndim != 2 or array.shape[1] != len(LABEL_NAMES):
        raise SimulationError(
            f"Labels must have the shape (N, {len(LABEL_NAMES)}); found {np.shape(labels)}.",
            f"Columns are {', '.join(LABEL_NAMES)}, in this order.",
        )
    return array


def scaled(labels: FloatArray) -> FloatArray:
    """Labels in units of `DISTANCE_SCALE`, (N, 5), for Euclidean distances between stars."""
    coordinates = labels.copy()
    with np.errstate(invalid="ignore", divide="ignore"):
        coordinates[:, 0] = np.log(labels[:, 0])
    return coordinates / DISTANCE_SCALE


def features(labels: FloatArray) -> FloatArray:
    """The networks' inputs before standardisation, (N, 6): 5040 K/teff, ln teff and the other labels.

    Ionisation and excitation scale with 1/teff (Saha, Boltzmann), the continuum level with ln teff.
    """
    teff, logg, feh, alpha_fe, c_fe = labels.T
    return np.stack([5040.0 / teff, logg, feh, alpha_fe, c_fe, np.log(teff)], axis=1)
