"""Spectra after preparation: model input, its errors, quality, and which rows are rejected and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import Reason
from .bands import BANDS


@dataclass(slots=True)
class Prepared:
    """N prepared spectra in input order; rejected rows keep their place.

    Attributes
    ----------
    flux
        (N, n) float32 model input; NaN in rejected rows.
    error
        (N, n) float32, 1 sigma in the units of `flux`; inf where a pixel carries no information.
    good_fraction
        (N,) float32, fraction of good pixels in the model's window.
    n_repaired
        (N,) int16, bad pixels of the window that were interpolated over.
    n_clipped
        (N,) int16, pixels of the window with a continuum (XP: a flux) at or below zero.
    scale
        (N,) float32, XP: flux at 550 nm by which the spectrum was divided; LRS: NaN.
    snr
        (N,) float32, median of flux over its error in the window.
    sed
        (N, 15) float32, broad-band shape of the raw flux, see `band_levels`; XP: NaN, because its flux keeps the shape.
    reasons
        Reason code of each row, None if the spectrum is kept.
    messages
        What was expected and found, for each row; None if kept.
    """

    flux: np.ndarray
    error: np.ndarray
    good_fraction: np.ndarray
    n_repaired: np.ndarray
    n_clipped: np.ndarray
    scale: np.ndarray
    snr: np.ndarray
    sed: np.ndarray
    reasons: list[Reason | None] = field(default_factory=list)
    messages: list[str | None] = field(default_factory=list)

    @property
    def keep(self) -> np.ndarray:
        """(N,) bool: rows that were not rejected."""
        return np.array([reason is None for reason in self.reasons], dtype=bool)

    def __len__(self) -> int:
        return len(self.flux)

    @classmethod
    def empty(cls, count: int, size: int) -> Prepared:
        """`count` rows without any values yet."""
        return cls(
            np.full((count, size), np.nan, np.float32), np.full((count, size), np.inf, np.float32),
            np.zeros(count, np.float32), np.zeros(count, np.int16), np.zeros(count, np.int16),
            np.full(count, np.nan, np.float32), np.full(count, np.nan, np.float32),
            np.full((count, BANDS), np.nan, np.float32), [None] * count, [None] * count)

    def reject(self, row: int, reason: Reason, message: str) -> None:
        """Reject one row."""
        self.reasons[row], self.messages[row] = reason, message
        self.flux[row], self.error[row] = np.nan, np.inf

    def put(self, rows: Sequence[int], other: Prepared) -> None:
        """Copy the rows of `other` to the positions `rows`."""
        at = np.asarray(rows, dtype=np.int64)
        for name in ("flux", "error", "good_fraction", "n_repaired", "n_clipped", "scale", "snr", "sed"):
            getattr(self, name)[at] = getattr(other, name)
        for place, reason, message in zip(rows, other.reasons, other.messages, strict=True):
            self.reasons[place], self.messages[place] = reason, message
