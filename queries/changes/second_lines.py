"""A second set of lines in one visit that another one does not have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .velocity import CORRELATED, PIXEL_KM_S, Normalised, shifted, weights

# pixels: shifts of the two sets of lines, and how far apart they must be to be told from a broader line
_SHIFTS = np.arange(-8.0, 8.01, 0.5)
_LEAST_APART = 2.0
# share of the light that the fainter set needs
_LEAST_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class SecondLines:
    """Best fit of two sets of the other visit's lines.

    Attributes
    ----------
    strength
        Square root of the chi2 that the second set saves, over the noise found; negative where it costs some.
    separation
        Between both sets [km/s].
    share
        Share of the fainter set.
    """

    strength: float
    separation: float
    share: float


def second_lines(one: Normalised, other: Normalised) -> SecondLines | None:
    """How much better `one` is fitted by two shifted copies of `other` than by one; None where nothing overlaps.

    Both fits are linear in the copies' shares, so that all pairs of shifts follow from one matrix of products.
    """
    weight = weights(one, other)
    count = np.count_nonzero(weight)
    if not count:
        return None
    copies = shifted(other, _SHIFTS)
    products = (copies * weight) @ copies.T
    with_one = (copies * weight) @ one.flux
    total = float(weight @ one.flux**2)
    own = np.diag(products)
    single = total - np.max(np.maximum(with_one, 0.0) ** 2 / np.maximum(own, 1e-300))
    determinant = own[:, None] * own[None, :] - products**2
    safe = np.where(determinant > 1e-9 * own[:, None] * own[None, :], determinant, np.inf)
    first = (with_one[:, None] * own[None, :] - with_one[None, :] * products) / safe
    second = (with_one[None, :] * own[:, None] - with_one[:, None] * products) / safe
    share = second / np.where(first + second > 0, first + second, np.inf)
    apart = _SHIFTS[None, :] - _SHIFTS[:, None]
    allowed = (np.abs(apart) >= _LEAST_APART) & (first > 0) & (share >= _LEAST_SHARE) & (share <= 0.5)
    saved = first * with_one[:, None] + second * with_one[None, :]
    saved = np.where(allowed, saved, -np.inf)
    if not np.isfinite(saved).any():
        return SecondLines(0.0, 0.0, 0.0)
    place = np.unravel_index(int(np.argmax(saved)), saved.shape)
    noise = max(total - float(saved[place]), 1e-9) / count * CORRELATED
    gain = (single - (total - float(saved[place]))) / noise
    return SecondLines(float(np.sign(gain) * np.sqrt(abs(gain))), float(apart[place] * PIXEL_KM_S), float(share[place]))
