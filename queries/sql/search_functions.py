"""Functions that an atlas adds to SQL: similar, cosine, separation_arcsec, cone, sky_match."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from specclip_search.errors import QueryError
from specclip_search.keys import parse_key

from .sky_function import add_sky_match

if TYPE_CHECKING:
    import duckdb

    from specclip_search.atlas import Atlas

    from ..views.label_sources import Catalogue

_HIT = 'STRUCT(modality VARCHAR, spec_id BIGINT, source_id BIGINT, "rank" INTEGER, "similarity" FLOAT)[]'

# haversine: exact for the smallest separations, where the cosine formula loses all digits
_SEPARATION = (
    "CREATE OR REPLACE MACRO separation_arcsec(ra1, dec1, ra2, dec2) AS "
    "3600 * degrees(2 * asin(least(1.0, sqrt(pow(sin(radians(dec2 - dec1) / 2), 2) "
    "+ cos(radians(dec1)) * cos(radians(dec2)) * pow(sin(radians(ra2 - ra1) / 2), 2)))))"
)
_COSINE = "CREATE OR REPLACE MACRO cosine(a, b) AS list_cosine_similarity(a, b)"
# the band in declination is a comparison of a column, so that row groups can be skipped by their statistics
_CONE = (
    "CREATE OR REPLACE MACRO cone(center_ra, center_dec, radius_deg) AS TABLE "
    "SELECT *, separation_arcsec(ra, dec, center_ra, center_dec) AS separation_arcsec FROM stars "
    "WHERE dec BETWEEN center_dec - radius_deg AND center_dec + radius_deg "
    "AND separation_arcsec(ra, dec, center_ra, center_dec) <= 3600 * radius_deg"
)
_SIMILAR = (
    'CREATE OR REPLACE MACRO "similar"(target, k := 20, within := NULL, of := NULL) AS TABLE '
    "(SELECT h.* FROM (SELECT unnest(_similar(target::VARCHAR, k::INTEGER, within::VARCHAR, of::VARCHAR)) h))"
)
_NAMES = ("modality", "spec_id", "source_id", "rank", "similarity")


class Failures:
    """The last error of our own that was raised inside DuckDB, which passes on only its text."""

    def __init__(self) -> None:
        self.last: Exception | None = None

    def keep(self, error: Exception) -> None:
        self.last = error

    def take(self) -> Exception | None:
        error, self.last = self.last, None
        return error


def add_functions(connection: duckdb.DuckDBPyConnection, atlas: Atlas, files: bool = True) -> Failures:
    """Make the functions known to `connection`.

    Parameters
    ----------
    files
        Whether a target of `similar` may be the path of a spectrum file.

    Returns
    -------
    Where errors of the functions are kept.
    """
    import duckdb
    from duckdb.func import FunctionNullHandling

    failures = Failures()

    def similar(target: str | None, k: int | None, within: str | None, of: str | None) -> list[dict[str, Any]] | None:
        if target is None or k is None:
            return None
        try:
            return _hits(atlas, target, k, within, of, files)
        except Exception as error:
            failures.last = error
            raise

    text, integer = duckdb.sqltype("VARCHAR"), duckdb.sqltype("INTEGER")
    # with side effects it is not run at EXPLAIN or while a statement is being bound
    connection.create_function(
        "_similar",
        similar,
        [text, integer, text, text],
        connection.type(_HIT),
        side_effects=True,
        null_handling=FunctionNullHandling.SPECIAL,
    )
    for macro in (_SIMILAR, _COSINE, _SEPARATION):
        connection.execute(macro)
    add_sky_match(connection, failures.keep)
    return failures


def add_cone(connection: duckdb.DuckDBPyConnection) -> None:
    """Make `cone` known; the view `stars` must stand."""
    connection.execute(_CONE)


def add_catalogue_function(connection: duckdb.DuckDBPyConnection, atlas: Atlas, source: Catalogue) -> None:
    """Make `<catalogue>_of(id)` known: the catalogue's rows of one star (or obsid), found without a join.

    A join reads the catalogue's ids whole; this goes by a sorted list of them straight to the rows.
    """
    from duckdb.func import PythonUDFType

    key = "source_id" if "source_id" in source.columns else "obsid"
    names = [field.name for field in source.fields]
    schema = pa.schema(source.fields).remove_metadata()
    kinds = connection.from_arrow(schema.empty_table()).types
    kind = ", ".join(f'"{name}" {kind}' for name, kind in zip(names, kinds, strict=True))

    def rows_of(ids: pa.ChunkedArray) -> pa.Array:
        from ..space.lookup import open_lookup

        lookup = open_lookup(atlas, f"catalog_{source.name}", source.files, key)
        query, row = lookup.find(ids.fill_null(-1).to_numpy())
        rows = lookup.take(row, names).to_struct_array()
        ends = np.concatenate([[0], np.cumsum(np.bincount(query, minlength=len(ids)))]).astype(np.int32)
        flat = rows.combine_chunks() if isinstance(rows, pa.ChunkedArray) else rows
        return pa.ListArray.from_arrays(pa.array(ends), flat)

    connection.create_function(
        f"_{source.name}_of", rows_of, ["bigint"], connection.type(f"STRUCT({kind})[]"), type=PythonUDFType.ARROW
    )
    connection.execute(
        f"CREATE OR REPLACE MACRO {source.name}_of(id) AS TABLE "
        f"(SELECT h.* FROM (SELECT unnest(_{source.name}_of(id::BIGINT)) h))"
    )


def _hits(atlas: Atlas, target: str, k: int, within: str | None, of: str | None, files: bool) -> list[dict[str, Any]]:
    # the index is opened only when a search is run: an atlas without one can be asked all else
    from importlib import import_module

    similar = import_module("specclip_search.queries.similar.similar")
    if target.startswith("["):
        hits = _by_vector(atlas, target, k, within, of)
    else:
        if not files:
            parse_key(target.partition("@")[0])
        hits = similar.search_hits(atlas, target, k, within)
    return [dict(zip(_NAMES, hit, strict=True)) for hit in hits]


def _by_vector(atlas: Atlas, target: str, k: int, within: str | None, of: str | None) -> list[tuple[Any, ...]]:
    """Hits of a vector. Its instrument must be known, because each instrument's own mean is taken away."""
    from importlib import import_module

    similar = import_module("specclip_search.queries.similar.similar")
    space = import_module("specclip_search.queries.space.space").open_space(atlas, None)
    if of is None and len(space.modalities) > 1:
        raise QueryError(
            "similar(vector, k) needs to know the vector's instrument.",
            f"Add of := '{space.modalities[0]}', or one of {', '.join(space.modalities[1:])}.",
        )
    try:
        vector = np.array(json.loads(target), dtype=np.float32)
    except (ValueError, TypeError, RecursionError) as error:
        raise QueryError(
            f"similar(vector, k) needs a list of numbers; found '{target[:60]}{'...' if len(target) > 60 else ''}'.",
            f"Take it from vectors_{of or space.modalities[0]}.",
        ) from error
    modality = space.require(of or space.modalities[0])
    dim = space.index(modality).dim
    length = float(np.linalg.norm(vector))
    if vector.shape != (dim,) or not np.isfinite(length) or length == 0:
        raise QueryError(
            f"similar(vector, k) needs {dim} finite numbers that are not all zero; found {vector.size}.",
            f"Take it from vectors_{modality}.",
        )
    one = import_module("specclip_search.queries.space.targets").Target("vector", modality, vector / length)
    modalities = [space.require(within)] if within not in (None, "both") else list(space.modalities)
    found = similar.search_targets(space, [one], k, modalities)[0]
    hits = []
    for part in found:
        keys = space.keys(part.modality)
        for row, similarity in zip(part.rows, part.similarity, strict=True):
            source_id = int(keys.source_id[row])
            hits.append(
                (part.modality, int(keys.spec_id[row]), source_id if source_id >= 0 else None, float(similarity))
            )
    hits.sort(key=lambda hit: -hit[3])
    return [
        (modality, spec_id, source_id, rank, similarity)
        for rank, (modality, spec_id, source_id, similarity) in enumerate(hits[:k], 1)
    ]
