"""[Fe/H] and [C/Fe] of a star from its Gaia XP flux, by small networks shipped with the package.

They are independent of the model whose vectors are searched, so that the two are wrong about
different stars. Principal components of ln flux go into an ensemble of fully connected networks
that give a mean and an error of each label. Each of four groups of networks was trained without two of the
splits 0-7 of `split_of`, so that every star is estimated by networks that never saw it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np

from specclip_search.keys import split_of

FORMAT = 1
WEIGHTS = "emp_xp.npz"
TRAIN_SPLITS = 8
GROUPS = 4
# mean and log error of [Fe/H], mean and log error of [C/Fe]
OUTPUTS = 4
FEH_OFFSET = -1.0
FLUX_FLOOR = 1e-3
LIMIT = 8.0
LOG_SIGMA = (-4.0, 1.5)
BLOCK_ROWS = 8192


@dataclass(frozen=True)
class XpNetwork:
    """Weights of the networks.

    Attributes
    ----------
    mean, axes
        (343,) and (343, c): ln flux to whitened principal components.
    weights
        For each layer (members, in, out) and (members, out).
    group
        (members,) group of each member: it was trained without the splits 2 group and 2 group + 1.
    scale
        Factor of the error, from validation stars.
    """

    mean: np.ndarray
    axes: np.ndarray
    weights: tuple[tuple[np.ndarray, np.ndarray], ...]
    group: np.ndarray
    scale: float

    def estimate(self, flux: np.ndarray, source_id: np.ndarray) -> dict[str, np.ndarray]:
        """Labels of stars.

        Parameters
        ----------
        flux
            (N, 343) XP spectra over their flux at 550 nm.
        source_id
            (N,) int64: chooses the networks that have not seen the star. Stars of the splits 8
            and 9, which none has seen, and of unknown id, use all networks.

        Returns
        -------
        dict
            feh, feh_err, c_fe, c_fe_err, (N,) float64 in dex; NaN if the spectrum is not finite.
        """
        count = len(flux)
        result = {name: np.full(count, np.nan) for name in ("feh", "feh_err", "c_fe", "c_fe_err")}
        # the group trained without a star's split; all groups for stars that none has seen
        group = np.where(source_id >= 0, split_of(source_id), TRAIN_SPLITS) // 2
        whole = np.isfinite(flux).all(axis=1)
        for number in np.unique(group):
            members = np.flatnonzero((self.group == number) | (number >= GROUPS))
            rows = np.flatnonzero(whole & (group == number))
            for start in range(0, len(rows), BLOCK_ROWS):
                block = rows[start : start + BLOCK_ROWS]
                mean, sigma = _pooled(*self._members(self.coordinates(flux[block]), members))
                result["feh"][block], result["c_fe"][block] = mean.T
                result["feh_err"][block], result["c_fe_err"][block] = (sigma * self.scale).T
        return result

    def coordinates(self, flux: np.ndarray) -> np.ndarray:
        """(N, c) whitened principal components of ln flux."""
        return whitened(flux, self.mean, self.axes)

    def _members(self, x: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(members, N, 2) means and errors of [Fe/H] and [C/Fe]."""
        hidden = np.broadcast_to(x, (len(members), *x.shape))
        for number, (weight, bias) in enumerate(self.weights):
            hidden = hidden @ weight[members] + bias[members, None, :]
            if number < len(self.weights) - 1:
                hidden = _gelu(hidden)
        mean = hidden[..., ::2] + np.array([FEH_OFFSET, 0.0])
        return mean, np.exp(np.clip(hidden[..., 1::2], *LOG_SIGMA))


def whitened(flux: np.ndarray, mean: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """(N, c) float32 projections of ln flux on whitened axes, clipped to +- 8."""
    logarithm = np.log(np.maximum(np.asarray(flux, np.float32), FLUX_FLOOR))
    return np.clip((logarithm - mean) @ axes, -LIMIT, LIMIT).astype(np.float32)


def _gelu(x: np.ndarray) -> np.ndarray:
    """x times the normal distribution function (Hendrycks & Gimpel 2016), tanh form as trained."""
    return 0.5 * x * (1.0 + np.tanh(np.float32(0.7978845608) * (x + np.float32(0.044715) * x**3)))


def _pooled(mean: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and error of the members' mixture: (members, N, 2) each to (N, 2) each."""
    middle = mean.mean(axis=0)
    return middle, np.sqrt((sigma**2 + (mean - middle) ** 2).mean(axis=0))


def pack(network: XpNetwork, note: str) -> dict[str, Any]:
    """Arrays of a weights file."""
    arrays: dict[str, Any] = {
        "format": np.int64(FORMAT),
        "mean": network.mean.astype(np.float32),
        "axes": network.axes.astype(np.float32),
        "group": network.group.astype(np.int64),
        "scale": np.float64(network.scale),
        "note": np.array(note),
    }
    for number, (weight, bias) in enumerate(network.weights):
        arrays[f"weight{number}"], arrays[f"bias{number}"] = weight.astype(np.float16), bias.astype(np.float16)
    return arrays


def unpack(arrays: Any) -> XpNetwork:
    """The networks of a weights file."""
    layers = sum(name.startswith("weight") for name in arrays)
    weights = tuple(
        (arrays[f"weight{number}"].astype(np.float32), arrays[f"bias{number}"].astype(np.float32))
        for number in range(layers)
    )
    return XpNetwork(arrays["mean"], arrays["axes"], weights, arrays["group"], float(arrays["scale"]))


@lru_cache(maxsize=1)
def load_network() -> XpNetwork | None:
    """The shipped networks; None if the package was built without them."""
    path = files(__package__).joinpath("weights", WEIGHTS)
    if not path.is_file():
        return None
    with path.open("rb") as handle, np.load(handle, allow_pickle=False) as archive:
        return unpack({name: archive[name] for name in archive.files})
