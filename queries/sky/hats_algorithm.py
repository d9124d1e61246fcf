"""Matching algorithm for two HATS tiles, run by LSDB; same pairs as `sky_match` on whole tables.

Importing this module imports LSDB.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from lsdb.core.crossmatch.abstract_crossmatch_algorithm import AbstractCrossmatchAlgorithm

from specclip_search.errors import QueryError

from .match import angle_arcsec, move, sky_match, unit_vectors

_FLOAT, _INT = pd.ArrowDtype(pa.float64()), pd.ArrowDtype(pa.int64())
Position = tuple[np.ndarray, np.ndarray]


class SkyMatch(AbstractCrossmatchAlgorithm):
    """Right rows within a radius of each left row, nearest first.

    Parameters
    ----------
    radius_arcsec
        Largest separation.
    margin_arcsec
        Width of the right catalogue's margin; it must cover the radius and all proper motions.
    nearest
        Keep only the nearest right row of each left one.
    moved, years
        Side, ``left`` or ``right``, whose positions are first propagated by this many Julian years with
        its `pmra` and `pmdec`.
    """

    extra_columns = pd.DataFrame({"separation_arcsec": pd.Series(dtype=_FLOAT), "candidates": pd.Series(dtype=_INT)})

    def __init__(
        self,
        radius_arcsec: float,
        margin_arcsec: float,
        nearest: bool = True,
        moved: str | None = None,
        years: float = 0.0,
    ) -> None:
        super().__init__()
        self.radius_arcsec = radius_arcsec
        self.margin_arcsec = margin_arcsec
        self.nearest = nearest
        self.moved = moved
        self.years = years

    def perform_crossmatch(self, crossmatch_args: Any) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
        """Rows of both tiles, and the columns of each pair."""
        left = self._position(crossmatch_args.left_df, crossmatch_args.left_catalog_info, "left")
        right = self._position(crossmatch_args.right_df, crossmatch_args.right_catalog_info, "right")
        found = sky_match(*left, *right, self.radius_arcsec)
        rows, counts = np.unique(found.left, return_counts=True)
        if self.nearest:
            found = found.nearest()
        candidates = counts[np.searchsorted(rows, found.left)] if len(rows) else np.empty(0, np.int64)
        extra = pd.DataFrame(
            {
                "separation_arcsec": pd.Series(found.separation, dtype=_FLOAT),
                "candidates": pd.Series(candidates, dtype=_INT),
            }
        )
        return found.left, found.right, extra

    def _position(self, frame: pd.DataFrame, info: Any, side: str) -> Position:
        ra, dec = _numbers(frame, info.ra_column), _numbers(frame, info.dec_column)
        if side != self.moved or not len(frame):
            return ra, dec
        new = move(ra, dec, _numbers(frame, "pmra"), _numbers(frame, "pmdec"), self.years)
        farthest = float(angle_arcsec(unit_vectors(ra, dec), unit_vectors(*new)).max())
        if farthest + self.radius_arcsec > self.margin_arcsec:
            raise QueryError(
                f"A star moves {farthest:.1f} arcsec; with the radius of {self.radius_arcsec:g} it leaves the right "
                f"catalogue's margin of {self.margin_arcsec:g} arcsec.",
                "Export the right side with a wider --margin.",
            )
        return new


def _numbers(frame: pd.DataFrame, column: str) -> np.ndarray:
    return frame[column].to_numpy(dtype=np.float64, na_value=np.nan)
