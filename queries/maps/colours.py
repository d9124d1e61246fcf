"""Colours of a map: numbers between robust limits, or categories."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from specclip_search.errors import QueryError

from ..statistics.robust_trend import median_and_sigma

MOST_CATEGORIES = 9
OTHER = "other"
# colour-blind safe (Okabe & Ito 2008), then grey for the rest
CATEGORY_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#7F4FC9", "#8C6D31")
OTHER_COLOUR = "#999999"


@dataclass(frozen=True)
class Colouring:
    """Values that a map is coloured by.

    Attributes
    ----------
    name, unit
        Label of the colour bar.
    values
        (N,) float64 with NaN for no value, or (N,) int64 indices into `categories`, -1 for none.
    categories
        Names, the most frequent first; empty for numbers.
    low, high
        Robust limits of numbers.
    """

    name: str
    unit: str
    values: np.ndarray
    categories: tuple[str, ...]
    low: float
    high: float

    @property
    def label(self) -> str:
        return f"{self.name} [{self.unit}]" if self.unit else self.name


def colouring(table: pa.Table, column: str) -> Colouring:
    """Read a column of a map as colours.

    Raises
    ------
    QueryError
        If no spectrum has a value.
    """
    field = table.schema.field(column)
    unit = (field.metadata or {}).get(b"unit", b"").decode("utf-8", "replace")
    if pa.types.is_boolean(field.type) or pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
        values, categories = _categories(table[column].cast(pa.string()))
        return Colouring(column, unit, values, categories, 0.0, 1.0)
    numbers = table[column].cast(pa.float64()).to_numpy()
    known = numbers[np.isfinite(numbers)]
    if len(known) == 0:
        raise QueryError(f"No mapped spectrum has a value of '{column}'.", "Colour by another column.")
    low, high = np.quantile(known, [0.02, 0.98])
    if low == high:
        middle, sigma = median_and_sigma(known)
        low, high = float(middle) - max(float(sigma), 0.5), float(middle) + max(float(sigma), 0.5)
    return Colouring(column, unit, numbers, (), float(low), float(high))


def _categories(column: pa.ChunkedArray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Numbers of categories, most frequent first; those beyond nine are merged into `other`."""
    encoded = column.combine_chunks().dictionary_encode()
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    names = [name or "none" for name in encoded.dictionary.to_pylist()]
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    if not names:
        raise QueryError("No mapped spectrum has a value to colour by.", "Colour by another column.")
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    order = sorted(range(len(names)), key=lambda i: (-counts[i], names[i]))
    kept = order[:MOST_CATEGORIES] if len(order) > MOST_CATEGORIES else order
    number = np.full(len(names) + 1, len(kept), dtype=np.int64)
    number[kept] = np.arange(len(kept))
    number[-1] = -1
    more = (OTHER,) if len(order) > len(kept) else ()
    return number[codes], (*(names[i] for i in kept), *more)


def category_colours(colours: Colouring) -> list[str]:
    """A colour for each category."""
    return [OTHER_COLOUR if name == OTHER else CATEGORY_COLOURS[i % MOST_CATEGORIES]
            for i, name in enumerate(colours.categories)]  # fmt: skip
