"""Estimated labels: scale, error floors and flags."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from specclip_search.surveys import LRS, XP

LABELS = ("teff", "logg", "feh", "alpha_fe", "c_fe", "rv")
UNITS = {"teff": "K", "logg": "log10(cm s-2)", "feh": "dex", "alpha_fe": "dex", "c_fe": "dex", "rv": "km/s"}
MEASURED: Mapping[str, tuple[str, ...]] = {LRS: LABELS, XP: LABELS[:-1]}
"""Labels measurable by an instrument; XP spectra, of resolution 20 to 100, have no radial velocity."""

TEFF_UNIT = 5000.0
"""Teff is learned as ln(teff / 5000 K): errors grow with it."""

# flag bits
FAR = 1
"""`distance` exceeds that of 99.5 % of the training stars: every value is extrapolated."""
OUT_OF_RANGE = 2
"""A value is outside the range of the training stars."""
LOW_SNR = 4
"""The signal to noise is below that of the training stars: errors are underestimated."""
SNR_UNKNOWN = 8
"""No signal to noise was given: errors are averages over the training sample."""
CARBON_GUESSED = 16
"""[Fe/H] above `CARBON_MAX_FEH`, where no training star has a [C/Fe] label: c_fe is extrapolated."""
WIDE = 32
"""The error of teff, logg or feh is above half the spread of all training stars: the spectrum is uninformative."""
HOT = 64
"""Teff above `HOT_TEFF`, where no training star has [Fe/H]: feh, alpha_fe, c_fe are typical values."""
UNLIKE_TRAINING = 128
"""The spectrum is unlike those of all training stars (`specclip_search.training.estimators.star_test`): it may be a
galaxy, a quasar, a white dwarf or noise, and no value has a meaning. LRS only."""
FLAGS = {"far": FAR, "out_of_range": OUT_OF_RANGE, "low_snr": LOW_SNR, "snr_unknown": SNR_UNKNOWN,
         "carbon_guessed": CARBON_GUESSED, "wide": WIDE, "hot": HOT,
         "object_unlike_training": UNLIKE_TRAINING}

CARBON_MAX_FEH = -0.8
HOT_TEFF = 7000.0
# Hot stars of the disc are young, so of about solar composition. A network that was never shown a composition of a hot
# star takes its weak lines for low metallicity; it is shown values drawn from these (mean, sigma; dex) instead.
HOT_COMPOSITION: Mapping[str, tuple[float, float]] = {"feh": (-0.1, 0.3), "alpha_fe": (0.03, 0.08)}

# The LAMOST side learns from model spectra alone. Added in quadrature to what simulated stars show, for what models
# get wrong of real ones; of the order of the differences between pipelines on the same LAMOST stars (Teff 100 K,
# logg 0.2, [Fe/H] 0.1; Luo et al. 2015, Ho et al. 2017, Xiang et al. 2019).
ERROR_FLOOR: Mapping[str, Mapping[str, float]] = {
    LRS: {"teff": 80.0, "logg": 0.20, "feh": 0.12, "alpha_fe": 0.08, "c_fe": 0.20, "rv": 5.0},
    XP: {},
}


def to_scale(name: str, values: np.ndarray | float) -> np.ndarray:
    """Values of a label on the training scale."""
    values = np.asarray(values, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.log(values / TEFF_UNIT) if name == "teff" else values


def from_scale(name: str, values: np.ndarray) -> np.ndarray:
    """Inverse of `to_scale`."""
    return TEFF_UNIT * np.exp(np.clip(values, -3.0, 3.0)) if name == "teff" else values


def sigma_from_scale(name: str, values: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Errors in the label's unit, of `values` in that unit and `sigma` on the learned scale."""
    return values * sigma if name == "teff" else sigma


def floor_on_scale(modality: str, name: str, values: np.ndarray,
                   floors: Mapping[str, float] | None = None) -> np.ndarray:
    """Error floor (N,) on the learned scale, of `values` in the label's unit; of `ERROR_FLOOR` unless given."""
    floor = (ERROR_FLOOR[modality] if floors is None else floors).get(name, 0.0)
    return floor / np.maximum(values, 1.0) if name == "teff" else np.full(np.shape(values), floor)
