"""[Fe/H] of a star from its Gaia XP spectrum by boosted regression trees shipped with the package.

They complement the networks of `specclip_search.training.xp_metallicity.networks`. Networks extrapolate linearly
outside the training data and then give very low [Fe/H] for very red or noisy spectra; trees cannot leave
the range of their training data. They add no information below the most metal-poor real stars ([Fe/H] = -2.5), so
their weight decreases towards -3. Each group was trained without the same splits as with the networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np

from specclip_search.keys import split_of

from .networks import BLOCK_ROWS, GROUPS, TRAIN_SPLITS, whitened
from .weighting import depth

FORMAT = 1
WEIGHTS = "emp_xp_trees.npz"
BAND_PIXELS = 7
# weight in the log-odds at -2, and log-odds per dex: tuned on held-out stars of the splits 0-7
SHARE = 0.35
ODDS_PER_DEX = 6.0
# trees are not evaluated below these network odds, where they cannot change a list
LEAST_ODDS = -6.0


@dataclass(frozen=True)
class XpTrees:
    """Trees of all groups.

    Attributes
    ----------
    mean, axes
        (343,) and (343, c): ln flux to whitened principal components.
    feature, left, right
        (groups, trees, nodes) uint8: feature tested by a node, and its child nodes; a leaf points to itself.
    threshold
        (groups, trees, nodes) float32: spectra with a value up to this go to the left.
    value
        (groups, trees, nodes) float32 contribution of a leaf to [Fe/H].
    baseline
        (groups,) initial [Fe/H].
    """

    mean: np.ndarray
    axes: np.ndarray
    feature: np.ndarray
    left: np.ndarray
    right: np.ndarray
    threshold: np.ndarray
    value: np.ndarray
    baseline: np.ndarray

    def estimate(self, flux: np.ndarray, source_id: np.ndarray) -> np.ndarray:
        """(N,) [Fe/H] of (N, 343) spectra over their flux at 550 nm; NaN where a spectrum is not finite.

        `source_id` chooses the trees that have not seen the star, as in `XpNetwork.estimate`.
        """
        result = np.full(len(flux), np.nan)
        group = np.where(source_id >= 0, split_of(source_id), TRAIN_SPLITS) // 2
        rows = np.flatnonzero(np.isfinite(flux).all(axis=1))
        for start in range(0, len(rows), BLOCK_ROWS):
            block = rows[start : start + BLOCK_ROWS]
            values = features(flux[block], self.mean, self.axes)
            for number in np.unique(group[block]):
                mine = group[block] == number
                asked = range(GROUPS) if number >= GROUPS else (number,)
                result[block[mine]] = np.mean([self._group(one, values[mine]) for one in asked], axis=0)
        return result

    def _group(self, number: int, values: np.ndarray) -> np.ndarray:
        """(N,) [Fe/H] by one group's trees from (N, features) values."""
        total = np.full(len(values), float(self.baseline[number]))
        stars = np.arange(len(values))
        columns = (self.feature, self.threshold, self.left, self.right, self.value)
        for feature, threshold, left, right, value in zip(*(column[number] for column in columns), strict=True):
            node = np.zeros(len(values), np.uint8)
            while True:
                goes_left = values[stars, feature[node]] <= threshold[node]
                following = np.where(goes_left, left[node], right[node])
                if np.array_equal(following, node):
                    break
                node = following
            total += value[node]
        return total


def features(flux: np.ndarray, mean: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """(N, c + 2 * 49 - 1) float32: principal components, mean ln flux in bands, differences of bands."""
    logarithm = np.log(np.maximum(np.asarray(flux, np.float32), 1e-3))
    bands = logarithm.reshape(len(flux), -1, BAND_PIXELS).mean(axis=2)
    return np.hstack([whitened(flux, mean, axes), np.diff(bands, axis=1), bands]).astype(np.float32)


def with_trees(odds: np.ndarray, feh: np.ndarray, below: float) -> np.ndarray:
    """(N,) log-odds of the networks combined with the trees' [Fe/H]; NaN in `feh` changes nothing."""
    share = SHARE * (1.0 - float(depth(np.asarray(below))))
    theirs = np.clip(ODDS_PER_DEX * (below - feh), -9.0, 9.0)
    return np.where(np.isfinite(theirs), (1.0 - share) * odds + share * theirs, odds)


def pack(trees: XpTrees, note: str) -> dict[str, Any]:
    """Arrays of a weights file."""
    arrays: dict[str, Any] = {name: getattr(trees, name) for name in XpTrees.__dataclass_fields__}
    return arrays | {"format": np.int64(FORMAT), "note": np.array(note)}


def unpack(arrays: Any) -> XpTrees:
    """The trees of a weights file."""
    return XpTrees(**{name: arrays[name] for name in XpTrees.__dataclass_fields__})


@lru_cache(maxsize=1)
def load_trees() -> XpTrees | None:
    """The shipped trees; None if the package was built without them."""
    path = files(__package__).joinpath("weights", WEIGHTS)
    if not path.is_file():
        return None
    with path.open("rb") as handle, np.load(handle, allow_pickle=False) as archive:
        return unpack({name: archive[name] for name in archive.files})
