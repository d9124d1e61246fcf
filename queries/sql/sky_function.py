"""`sky_match` in SQL: match two tables by position."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ..sky.crossmatch import matched

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas

    from ..views.connection import AtlasConnection

_SIDE = 'STRUCT("row" BIGINT, ra DOUBLE, dec DOUBLE, pmra DOUBLE, pmdec DOUBLE)[]'
_PAIR = 'STRUCT("left" BIGINT, "right" BIGINT, separation_arcsec DOUBLE, candidates BIGINT)[]'
_PAIR_TYPE = pa.list_(
    pa.struct(
        [
            pa.field("left", pa.int64()),
            pa.field("right", pa.int64()),
            pa.field("separation_arcsec", pa.float64()),
            pa.field("candidates", pa.int64()),
        ]
    )
)
# a table without proper motions gets null ones; rows are numbered to identify them
_POSITIONS = (
    '(SELECT list(struct_pack("row" := _sky_row, ra := ra::DOUBLE, dec := dec::DOUBLE, pmra := pmra::DOUBLE, '
    "pmdec := pmdec::DOUBLE)) FROM (SELECT * FROM {side} UNION ALL BY NAME "
    "SELECT NULL::DOUBLE AS pmra, NULL::DOUBLE AS pmdec WHERE false))"
)
_SKY_MATCH = (
    "CREATE OR REPLACE MACRO sky_match(left_table, right_table, radius_arcsec := 1.0, nearest := true, "
    "left_epoch := NULL, right_epoch := NULL) AS TABLE "
    "WITH _sky_left AS MATERIALIZED (SELECT *, row_number() OVER () - 1 AS _sky_row FROM query_table(left_table)), "
    "_sky_right AS MATERIALIZED (SELECT *, row_number() OVER () - 1 AS _sky_row FROM query_table(right_table)), "
    f"_sky_pairs AS (SELECT unnest(_sky_match({_POSITIONS.format(side='_sky_left')}, "
    f"{_POSITIONS.format(side='_sky_right')}, radius_arcsec::DOUBLE, nearest::BOOLEAN, left_epoch::DOUBLE, "
    "right_epoch::DOUBLE), recursive := true)) "
    "SELECT l.* EXCLUDE (_sky_row), r.* EXCLUDE (_sky_row), p.separation_arcsec, p.candidates FROM _sky_pairs p "
    'JOIN _sky_left l ON l._sky_row = p."left" JOIN _sky_right r ON r._sky_row = p."right" '
    'ORDER BY p."left", p.separation_arcsec'
)


def add_sky_match(connection: AtlasConnection, atlas: Atlas, files: bool) -> None:
    """Register `sky_match(left, right, radius_arcsec := 1.0, ...)` on `connection`.

    It returns the same rows as `specclip_search.queries.sky.crossmatch.crossmatch`; tables are given by name, as
    views or names of a WITH.
    """
    from duckdb.func import FunctionNullHandling, PythonUDFType

    def pairs(
        left: pa.ChunkedArray,
        right: pa.ChunkedArray,
        radius: pa.ChunkedArray,
        nearest: pa.ChunkedArray,
        left_epoch: pa.ChunkedArray,
        right_epoch: pa.ChunkedArray,
    ) -> pa.Array:
        try:
            plain = zip(*(column.to_pylist() for column in (radius, nearest, left_epoch, right_epoch)), strict=True)
            return pa.array([_pairs(left[n], right[n], *row) for n, row in enumerate(plain)], _PAIR_TYPE)
        except Exception as error:
            connection.failures.keep(error)
            raise

    connection.duckdb.create_function(
        "_sky_match",
        pairs,
        [connection.duckdb.type(kind) for kind in (_SIDE, _SIDE, "DOUBLE", "BOOLEAN", "DOUBLE", "DOUBLE")],
        connection.duckdb.type(_PAIR),
        type=PythonUDFType.ARROW,
        side_effects=True,
        null_handling=FunctionNullHandling.SPECIAL,
    )
    connection.duckdb.execute(_SKY_MATCH)


def _pairs(
    left: pa.ListScalar,
    right: pa.ListScalar,
    radius: float,
    nearest: bool,
    left_epoch: float | None,
    right_epoch: float | None,
) -> pa.Scalar:
    """The pairs of two lists of positions, as rows of the two tables."""
    sides = [_side(side) for side in (left, right)]
    found, candidates = matched(
        sides[0][1], sides[1][1], radius, left_epoch=left_epoch, right_epoch=right_epoch, nearest=nearest
    )
    columns = [sides[0][0][found.left], sides[1][0][found.right], found.separation, candidates]
    rows = pa.StructArray.from_arrays([pa.array(column) for column in columns], fields=list(_PAIR_TYPE.value_type))
    return pa.ListArray.from_arrays(pa.array([0, len(rows)], pa.int32()), rows)[0]


def _side(rows: pa.ListScalar) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(N,) row numbers; their positions, and proper motions if any row has one."""
    if not rows.is_valid:
        return np.empty(0, np.int64), {"ra": np.empty(0), "dec": np.empty(0)}
    fields = {name: rows.values.field(name) for name in ("row", "ra", "dec", "pmra", "pmdec")}
    known = {name: values.to_numpy(zero_copy_only=False).astype(np.float64) for name, values in fields.items()}
    moves = fields["pmra"].null_count < len(fields["pmra"])
    names = ("ra", "dec", "pmra", "pmdec") if moves else ("ra", "dec")
    return fields["row"].to_numpy(), {name: known[name] for name in names}
