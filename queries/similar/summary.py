"""Summary of the neighbours' labels: `20 nearest: [Fe/H] = -2.4 +- 0.2`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from specclip_search.tables.provenance import stamp

from ..statistics.robust_trend import median_and_sigma
from .table import SUFFIX

if TYPE_CHECKING:
    import pandas as pd

# label: symbol, decimals, unit
_WRITTEN = {
    "teff": ("Teff", 0, " K"),
    "logg": ("log g", 2, ""),
    "feh": ("[Fe/H]", 2, ""),
    "alpha_fe": ("[alpha/Fe]", 2, ""),
    "alpha_m": ("[alpha/M]", 2, ""),
    "c_fe": ("[C/Fe]", 2, ""),
    "rv": ("RV", 0, " km/s"),
}


def summarise(neighbours: pd.DataFrame) -> pd.DataFrame:
    """Median and robust scatter of the labels among the rows of `similar`.

    Parameters
    ----------
    neighbours
        A result of `similar`; with a column `target` each target is summarised separately.

    Returns
    -------
    pandas.DataFrame
        target (if there are several), label, n (rows that have it), of (total rows), median,
        sigma (1.4826 x median absolute deviation), text. Empty if nothing is labelled.
    """
    import pandas as pd

    groups = neighbours.groupby("target", sort=False) if "target" in neighbours else [(None, neighbours)]
    rows = []
    for target, part in groups:
        for label in (name for name in _WRITTEN if name in part or name + SUFFIX in part):
            known, label = _known(part, label)
            if len(known) == 0:
                continue
            middle, sigma = (float(number) for number in median_and_sigma(known))
            text = _text(label, len(known), len(part), middle, sigma)
            row = {"label": label, "n": len(known), "of": len(part), "median": middle, "sigma": sigma, "text": text}
            rows.append(({"target": target} if target is not None else {}) | row)
    columns = ["label", "n", "of", "median", "sigma", "text"]
    frame = pd.DataFrame(rows, columns=["target", *columns] if "target" in neighbours else columns)
    return stamp(frame, "summary", neighbours.attrs.get("options", {}), **_origin(neighbours))


def _known(part: pd.DataFrame, label: str) -> tuple[np.ndarray, str]:
    """Labels from catalogues; if there are none, labels estimated from the spectra, named as such."""
    for name in (label, label + SUFFIX):
        if name in part:
            values = part[name].to_numpy(dtype=float, na_value=np.nan)
            known = values[np.isfinite(values)]
            if len(known):
                return known, name
    return np.empty(0), label


def _text(label: str, known: int, rows: int, middle: float, sigma: float) -> str:
    name, decimals, unit = _WRITTEN[label.removesuffix(SUFFIX)]
    name = f"estimated {name}" if label.endswith(SUFFIX) else name
    having = f"{known} of {rows} nearest" if known < rows else f"{rows} nearest"
    return f"{having}: {name} = {middle:.{decimals}f} +- {sigma:.{decimals}f}{unit}"


def _origin(frame: pd.DataFrame) -> dict[str, object]:
    return {name: value for name, value in frame.attrs.items() if name not in ("query", "version", "options")}
