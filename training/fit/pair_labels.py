"""Labels of an atlas's spectra, for training that keeps them in the vector."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from specclip_search.atlas.links import StarLinks, linked_ids

from ..estimators.data import known_labels, read_label_catalogue
from ..networks.aligned import LRS

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas


def spectra_labels(atlas: Atlas, modality: str, links: StarLinks, catalogues: tuple[str, ...]) -> np.ndarray:
    """Labels of every spectrum of an instrument, from the first catalogue that knows its star.

    Returns
    -------
    ndarray
        (N, 6) float32 in the order and units of `LABELS`, NaN where unknown. Radial velocities are
        those of the spectra themselves and belong to LAMOST's alone.
    """
    known = [read_label_catalogue(atlas, name) for name in catalogues]
    columns = ["spec_id", "source_id", *(["z"] if modality == LRS else [])]
    parts = []
    for _, batch in atlas.spectra(modality).iter_batches(columns, batch_rows=65536):
        ids = linked_ids(batch, links)
        redshift = batch.column("z").to_numpy(zero_copy_only=False) if "z" in columns else None
        parts.append(known_labels(known, ids, redshift)[0].astype(np.float32))
    return np.concatenate(parts)
