"""A set of rows: as sorted numbers and as the bitmap that FAISS filters with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from specclip_search.errors import QueryError


@dataclass(frozen=True)
class RowSet:
    """Rows of a table that a search may return.

    Attributes
    ----------
    rows
        Distinct row numbers, ascending, int64.
    total
        Rows of the whole table.
    """

    rows: np.ndarray
    total: int

    @classmethod
    def of(cls, rows: np.ndarray, total: int) -> RowSet:
        """From row numbers (any order, repeats allowed) or from a boolean array over all rows.

        Raises
        ------
        QueryError
            If rows have another type or lie outside the table.
        """
        given = np.asarray(rows)
        if given.dtype == bool:
            if given.shape != (total,):
                raise QueryError(f"A boolean filter must have one value for each of {total} rows; "
                                 f"found shape {given.shape}.", "Build it over the rows of this index.")
            return cls(np.nonzero(given)[0].astype(np.int64), total)
        if given.size and not np.issubdtype(given.dtype, np.integer):
            raise QueryError(f"A filter is made of int64 rows or booleans; found {given.dtype}.",
                             "Take rows from the key table.")
        numbers = given.astype(np.int64, copy=False).reshape(-1)
        # rows from a query are mostly sorted already: sorting ten million would take a second
        distinct = numbers if (numbers[1:] > numbers[:-1]).all() else np.unique(numbers)
        if distinct.size and (distinct[0] < 0 or distinct[-1] >= total):
            raise QueryError(f"Filter rows must lie between 0 and {total - 1}; found {distinct[0]} to {distinct[-1]}.",
                             "Take rows from the key table of this index.")
        return cls(distinct, total)

    @property
    def count(self) -> int:
        return len(self.rows)

    @cached_property
    def bitmap(self) -> np.ndarray:
        """One bit per row, lowest bit first, uint8."""
        flags = np.zeros(self.total, np.uint8)
        flags[self.rows] = 1
        return np.packbits(flags, bitorder="little")
