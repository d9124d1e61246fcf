"""Nearest spectra of a target, in its own instrument and in the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from specclip_search.errors import QueryError
from specclip_search.tables.provenance import stamped, to_frame

from ..space.space import Space, open_space
from ..space.targets import TargetLike, resolve_targets
from .search import MAX_K, allowed_rows, search_targets
from .table import combined_table, hits_table

if TYPE_CHECKING:
    import pandas as pd

    from specclip_search.atlas import Atlas

COMBINE = ("each", "mean", "any")


def similar(
    atlas: Atlas,
    target: TargetLike | Sequence[TargetLike],
    k: int = 20,
    within: str | None = None,
    where: str | None = None,
    exact: bool = False,
    model: str | None = None,
    exclude_self: bool = True,
    *,
    exclude_repeats: bool = False,
    combine: str = "each",
    unit: str | None = None,
    medium: str | None = None,
    modality: str | None = None,
    resolution: float | None = None,
) -> pd.DataFrame:
    """Spectra most similar to a target.

    Similarity is the cosine of the model's shared vectors after subtracting the mean of each
    instrument, exact after re-ranking.

    Parameters
    ----------
    atlas
        Atlas with vectors and indexes.
    target
        A key (`lamost:101001`, `lamost:101001@dr7`, `gaia:<source_id>`), a `SpectrumKey`, the path
        of a spectrum file (`path#row`, `archive!member`), a `Spectrum`, a star named by its physics
        (``teff=4900,logg=1.8,feh=-3.1``, a mixture, ``KEY but feh=-1``; see
        `specclip_search.queries.space.made_stars`), an id, a position or a name that
        `specclip_search.queries.space.resolve.resolve` finds, or a list of these.
    k
        Number of spectra to return for each target, 1 to 10,000.
    within
        One instrument (`lamost_lrs` or `gaia_xp`); None or `both` searches both and merges the
        lists by rank (the first of each, the second of each, ...), because similarities across instruments
        are lower than within one. `rank_in_instrument` keeps the rank in each.
    where
        SQL expression on the columns of the view `spectra`, for example ``teff > 4500``; only
        spectra that satisfy it are searched.
    exact
        Compare with every spectrum instead of using the index.
    model
        Model of the vectors; the atlas's active model by default.
    exclude_self
        Exclude the target's own spectrum.
    exclude_repeats
        Exclude every spectrum of the target's star, in both instruments.
    combine
        With several targets: `each` gives every target its own list (column `target`), `mean`
        searches with the mean of their vectors, `any` ranks by the similarity to the nearest of them.
    unit, medium, modality
        What a target's spectrum file does not say: unit of its wavelengths (``Angstrom``, ``nm``, ``um``), ``air``
        or ``vacuum``, and the instrument that it is to be treated as.
    resolution
        Resolving power of a target's spectrum file; it is degraded to that of the instrument it is seen as.

    Returns
    -------
    pandas.DataFrame
        rank, modality, spec_id, source_id, similarity, rank_in_instrument, other_spec_id (the same
        star's spectrum of the other instrument), release, then S/N, position, labels, and what was
        estimated from the spectrum found (`teff_estimated`, ...) if the atlas has estimates. With
        several targets under `each` a first column `target`; under `any` a column `nearest_target`.
        `.attrs` names model, digests, version and options.

    Raises
    ------
    QueryError
        If a target, instrument, `k`, `where` or `combine` is invalid.
    VectorIndexError
        If the index is missing or stale.

    Examples
    --------
    >>> from specclip_search import Atlas, similar
    >>> near = similar(Atlas("demo-atlas"), "gaia:1624605949904837888", k=3, within="gaia_xp")
    >>> list(near.columns[:5])
    ['rank', 'modality', 'spec_id', 'source_id', 'similarity']
    >>> len(near), near["source_id"].dtype, near.attrs["model"]
    (3, dtype('int64'), 'mini')
    """
    return to_frame(
        similar_table(
            atlas, target, k, within, where, exact, model, exclude_self, exclude_repeats=exclude_repeats,
            combine=combine, unit=unit, medium=medium, modality=modality, resolution=resolution,
        )
    )  # fmt: skip


def similar_table(
    atlas: Atlas,
    target: TargetLike | Sequence[TargetLike],
    k: int = 20,
    within: str | None = None,
    where: str | None = None,
    exact: bool = False,
    model: str | None = None,
    exclude_self: bool = True,
    *,
    exclude_repeats: bool = False,
    combine: str = "each",
    unit: str | None = None,
    medium: str | None = None,
    modality: str | None = None,
    resolution: float | None = None,
) -> pa.Table:
    """As `similar`, as an Arrow table with the provenance in its metadata: nothing of pandas is loaded."""
    several = isinstance(target, Sequence) and not isinstance(target, str)
    asked: list[TargetLike] = list(target) if several else [target]  # type: ignore[arg-type,list-item]
    _check(k, combine)
    space = open_space(atlas, model)
    modalities = _modalities(space, within)
    stated = {"unit": unit, "medium": medium, "modality": modality, "resolution": resolution}
    targets = resolve_targets(space, asked, stated)
    allowed = allowed_rows(space, modalities, where)
    if several and combine != "each":
        tables = [combined_table(space, targets, modalities, k, combine, allowed, exact, exclude_self, exclude_repeats)]
    else:
        lists = search_targets(space, targets, k, modalities, allowed, exact, exclude_self, exclude_repeats)
        tables = [
            hits_table(space, hits, k, {"target": one.name} if several else {})
            for one, hits in zip(targets, lists, strict=True)
        ]
    table = _annotated(atlas, pa.concat_tables(tables), space.model)
    options = {
        "target": [one.name for one in targets],
        "k": k,
        "within": within,
        "where": where,
        "exact": exact,
        "exclude_self": exclude_self,
        "exclude_repeats": exclude_repeats,
        "combine": combine,
        **{name: value for name, value in stated.items() if value is not None},
    }
    return stamped(table, "similar", options, **space.origin())


def search_hits(
    atlas: Atlas, target: TargetLike, k: int = 20, within: str | None = None, model: str | None = None
) -> list[tuple[str, int, int | None, int, float]]:
    """Minimal form of `similar` for SQL: (modality, spec_id, source_id, rank, similarity) per hit."""
    _check(k, "each")
    space = open_space(atlas, model)
    modalities = _modalities(space, within)
    hits = search_targets(space, resolve_targets(space, [target]), k, modalities)[0]
    table = hits_table(space, hits, k, {})
    columns = (table[name].to_pylist() for name in ("modality", "spec_id", "source_id", "rank", "similarity"))
    return list(zip(*columns, strict=True))


def _check(k: int, combine: str) -> None:
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= MAX_K:
        raise QueryError(f"k must be a whole number from 1 to {MAX_K:,}; found {k!r}.", "Choose k in this range.")
    if combine not in COMBINE:
        raise QueryError(f"combine must be one of {', '.join(COMBINE)}; found '{combine}'.", "Choose one of these.")


def _modalities(space: Space, within: str | None) -> list[str]:
    if within is None or within == "both":
        return list(space.modalities)
    return [space.require(within)]


def _annotated(atlas: Atlas, table: pa.Table, model: str) -> pa.Table:
    from ..views.annotate import annotate
    from ..views.connection import connect
    from .table import with_estimates

    with connect(atlas) as connection:
        return with_estimates(atlas, model, annotate(connection, table))
