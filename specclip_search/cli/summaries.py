"""The labels of what a search found, in one line a label."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

_LABELS = {
    "teff": ("Teff", "K", 0),
    "logg": ("logg", "dex", 2),
    "feh": ("[Fe/H]", "dex", 2),
    "alpha_fe": ("[alpha/Fe]", "dex", 2),
    "alpha_m": ("[alpha/M]", "dex", 2),
    "c_fe": ("[C/Fe]", "dex", 2),
}
MAD_TO_SIGMA = 1.4826


def label_summary(frame: pd.DataFrame) -> list[str]:
    """`[Fe/H] = -2.40 +- 0.20 dex (median and robust scatter of 18 labelled of 20 found)`, a line a label."""
    lines = []
    for name, (title, unit, digits) in _LABELS.items():
        if name not in frame:
            continue
        values = frame[name].to_numpy(dtype=float, na_value=np.nan)
        values = values[np.isfinite(values)]
        if len(values):
            middle = np.median(values)
            scatter = MAD_TO_SIGMA * np.median(np.abs(values - middle))
            lines.append(
                f"{title} = {middle:.{digits}f} +- {scatter:.{digits}f} {unit} "
                f"(median and robust scatter of {len(values)} labelled of {len(frame)} found)"
            )
    return lines or [f"none of the {len(frame)} found has labels"]
