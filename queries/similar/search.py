"""The searches behind `similar`: spectra found for targets, for each instrument."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..space.space import Space
from ..space.targets import Target

MAX_K = 10_000


@dataclass(frozen=True, slots=True)
class Hits:
    """Spectra found for one target in one instrument, most similar first.

    Attributes
    ----------
    modality
        Instrument of the spectra found.
    rows
        (m,) int64 rows of its vectors.
    similarity
        (m,) float32 cosine of the centred shared vectors.
    """

    modality: str
    rows: np.ndarray
    similarity: np.ndarray


def search_targets(
    space: Space,
    targets: Sequence[Target],
    k: int,
    modalities: Sequence[str],
    allowed: dict[str, np.ndarray] | None = None,
    exact: bool = False,
    exclude_self: bool = True,
    exclude_repeats: bool = False,
) -> list[list[Hits]]:
    """For each target its hits in each of `modalities`; targets of one instrument are searched in one batch."""
    results: list[list[Hits]] = [[] for _ in targets]
    for modality in modalities:
        left_out = [left_out_rows(space, one, modality, exclude_self, exclude_repeats) for one in targets]
        for source, centred in sorted({(one.modality, one.centred) for one in targets}):
            members = [i for i, one in enumerate(targets) if (one.modality, one.centred) == (source, centred)]
            found = space.index(modality).search(
                np.stack([targets[i].vector for i in members]),
                k,
                query_modality=source,
                exact=exact,
                centred=centred,
                rows=None if allowed is None else allowed[modality],
                exclude=[left_out[i] for i in members],
            )
            for i, rows, similarity in zip(members, found.rows, found.similarity, strict=True):
                results[i].append(Hits(modality, rows[rows >= 0], similarity[rows >= 0]))
    return results


def left_out_rows(space: Space, target: Target, modality: str, exclude_self: bool, exclude_repeats: bool) -> np.ndarray:
    """Rows of `modality` that may not be returned for this target."""
    rows = np.empty(0, np.int64)
    if exclude_self and target.row is not None and target.modality == modality:
        rows = np.array([target.row], dtype=np.int64)
    if exclude_repeats:
        keys = space.keys(modality)
        if target.source_id is not None:
            rows = np.union1d(rows, keys.rows_of_sources(np.array([target.source_id], dtype=np.int64))[0])
        if target.row is not None and target.modality == modality:
            rows = np.union1d(rows, keys.repeats_of(np.array([target.row]))[0])
    return rows


def allowed_rows(space: Space, modalities: Sequence[str], where: str | None) -> dict[str, np.ndarray] | None:
    if where is None:
        return None
    from ..views.connection import connect
    from ..views.where import where_to_rows

    with connect(space.atlas) as connection:
        return {name: where_to_rows(connection, space, where, name) for name in modalities}
