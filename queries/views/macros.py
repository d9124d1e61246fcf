"""SQL functions that need no search: cosine, separation_arcsec, cone, and a catalogue's rows of one star."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from .parquet import identifier

if TYPE_CHECKING:
    import duckdb

    from specclip_search.atlas import Atlas

    from .label_sources import Catalogue

# haversine formula: accurate for small separations, unlike the cosine formula
_SEPARATION = (
    "CREATE OR REPLACE MACRO separation_arcsec(ra1, dec1, ra2, dec2) AS "
    "3600 * degrees(2 * asin(least(1.0, sqrt(pow(sin(radians(dec2 - dec1) / 2), 2) "
    "+ cos(radians(dec1)) * cos(radians(dec2)) * pow(sin(radians(ra2 - ra1) / 2), 2)))))"
)
_COSINE = "CREATE OR REPLACE MACRO cosine(a, b) AS list_cosine_similarity(a, b)"
# the declination range is a plain column comparison, so that row groups can be skipped by their statistics
_CONE = (
    "CREATE OR REPLACE MACRO cone(center_ra, center_dec, radius_deg) AS TABLE "
    "SELECT *, separation_arcsec(ra, dec, center_ra, center_dec) AS separation_arcsec FROM stars "
    "WHERE dec BETWEEN center_dec - radius_deg AND center_dec + radius_deg "
    "AND separation_arcsec(ra, dec, center_ra, center_dec) <= 3600 * radius_deg"
)


def add_macros(connection: duckdb.DuckDBPyConnection) -> None:
    """Register `cosine` and `separation_arcsec`."""
    for macro in (_COSINE, _SEPARATION):
        connection.execute(macro)


def add_cone(connection: duckdb.DuckDBPyConnection) -> None:
    """Register `cone`; the view `stars` must exist."""
    connection.execute(_CONE)


def add_catalogue_function(connection: duckdb.DuckDBPyConnection, atlas: Atlas, source: Catalogue) -> None:
    """Register `<catalogue>_of(id)`: the catalogue's rows of one star (or obsid), found without a join.

    A join reads all ids of the catalogue; this uses a sorted list of ids to read only the matching rows.
    """
    from duckdb.func import PythonUDFType

    key = "source_id" if "source_id" in source.columns else "obsid"
    names = [field.name for field in source.fields]
    schema = pa.schema(source.fields).remove_metadata()
    kinds = connection.from_arrow(schema.empty_table()).types
    row = connection.struct_type(dict(zip(names, kinds, strict=True)))

    def rows_of(ids: pa.ChunkedArray) -> pa.Array:
        from ..space.lookup import open_lookup

        lookup = open_lookup(atlas, f"catalog_{source.name}", source.files, key)
        query, row = lookup.find(ids.fill_null(-1).to_numpy())
        rows = lookup.take(row, names).to_struct_array()
        ends = np.concatenate([[0], np.cumsum(np.bincount(query, minlength=len(ids)))]).astype(np.int32)
        flat = rows.combine_chunks() if isinstance(rows, pa.ChunkedArray) else rows
        return pa.ListArray.from_arrays(pa.array(ends), flat)

    connection.create_function(
        f"_{source.name}_of", rows_of, ["bigint"], connection.list_type(row), type=PythonUDFType.ARROW
    )
    connection.execute(
        f"CREATE OR REPLACE MACRO {identifier(f'{source.name}_of')}(id) AS TABLE "
        f"(SELECT h.* FROM (SELECT unnest({identifier(f'_{source.name}_of')}(id::BIGINT)) h))"
    )
