"""Evidence for the reasons of the highest-scoring pairs: quality of their spectra, labels of their neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from specclip_search.surveys import LRS, XP

from ..space.spectra import read_columns
from ..space.windows import WindowSet
from ..statistics.robust_trend import median_and_sigma
from .local_quantities import NAMES, Features, Neighbours
from .pair_table import PairTable
from .reasons import Evidence

if TYPE_CHECKING:
    from ..space.space import Space

QUALITY = ("good_fraction", "n_repaired", "n_clipped")
LABELS = ("teff", "logg", "feh")
MIN_LABELLED = 4


def gather(
    space: Space,
    pairs: PairTable,
    features: Features,
    parts: np.ndarray,
    neighbours: dict[str, Neighbours],
    chosen: np.ndarray,
) -> list[Evidence]:
    """Evidence for the chosen pairs, in their order."""
    windows = _window_sets()
    quality = _quality(space, pairs, chosen)
    labels = _neighbour_labels(space, pairs, neighbours, chosen)
    names = {side: windows[side].names for side in windows}
    centres = {side: windows[side].centres for side in windows}
    units = {side: windows[side].unit for side in windows}
    return [
        Evidence(
            parts=dict(zip(NAMES, map(float, parts[i]), strict=True)),
            z=dict(zip(NAMES, map(float, features.z[i]), strict=True)),
            windows={"lrs": features.lrs_windows[i], "xp": features.xp_windows[i]},
            names=names,
            centres=centres,
            units=units,
            quality={name: float(values[n]) for name, values in quality.items() if np.isfinite(values[n])},
            labels={
                name: (float(row[n, 0]), float(row[n, 1]), float(row[n, 2]))
                for name, row in labels.items()
                if np.isfinite(row[n]).all()
            },
            mutual_similarity=float(features.mutual_similarity[i]),
        )
        for n, i in enumerate(chosen)
    ]


def _window_sets() -> dict[str, WindowSet]:
    from specclip_search.surveys import GAIA_XP, LAMOST_LRS

    return {"lrs": WindowSet.of(LAMOST_LRS), "xp": WindowSet.of(GAIA_XP)}


def _quality(space: Space, pairs: PairTable, chosen: np.ndarray) -> dict[str, np.ndarray]:
    """Quality columns of both spectra of the chosen pairs, NaN where unknown."""
    result = {"lrs_snr": pairs.values["lrs_snr"][chosen], "xp_snr": pairs.values["xp_snr"][chosen]}
    for side, modality, extra in (("lrs", LRS, ("fibermask",)), ("xp", XP, ())):
        rows = (pairs.lrs_row if side == "lrs" else pairs.xp_row)[chosen]
        columns = read_columns(space, modality, rows, (*QUALITY, *extra))
        result |= {f"{side}_{name}": values for name, values in columns.items()}
    return result


def _neighbour_labels(
    space: Space, pairs: PairTable, neighbours: dict[str, Neighbours], chosen: np.ndarray
) -> dict[str, np.ndarray]:
    """For each label (n, 3): median over the LRS neighbours, over the XP neighbours, and their scatter."""
    from ..views.labels import star_labels

    known = star_labels(space.atlas, pairs.source_id, LABELS)
    result = {}
    for name, values in known.items():
        columns, scatter = [], np.zeros(len(chosen))
        for side in (LRS, XP):
            member = neighbours[side].pair[chosen]
            label = np.where(member >= 0, values[np.maximum(member, 0)], np.nan)
            enough = np.isfinite(label).sum(axis=1) >= MIN_LABELLED
            middle, spread = median_and_sigma(label, axis=1)
            columns.append(np.where(enough, middle, np.nan))
            scatter = np.fmax(scatter, np.nan_to_num(spread))
        result[name] = np.column_stack([*columns, scatter])
    return result
