"""Functions that an atlas adds to SQL: similar, cosine, separation_arcsec, cone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

    from specclip_search.atlas import Atlas

_HIT = ("STRUCT(modality VARCHAR, spec_id BIGINT, source_id BIGINT, \"rank\" INTEGER, \"similarity\" FLOAT)[]")

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
    'CREATE OR REPLACE MACRO "similar"(target, k := 20, within := NULL) AS TABLE '
    "(SELECT h.* FROM (SELECT unnest(_similar(target::VARCHAR, k::INTEGER, within::VARCHAR)) h))"
)


class Failures:
    """The last error of our own that was raised inside DuckDB, which passes on only its text."""

    def __init__(self) -> None:
        self.last: Exception | None = None

    def take(self) -> Exception | None:
        error, self.last = self.last, None
        return error


def add_functions(connection: duckdb.DuckDBPyConnection, atlas: Atlas, stars: bool) -> Failures:
    """Make the functions known to `connection`.

    Parameters
    ----------
    stars
        Whether the view `stars` stands, which `cone` looks through.

    Returns
    -------
    Where errors of the functions are kept.
    """
    import duckdb

    failures = Failures()

    def similar(target: str | None, k: int | None, within: str | None) -> list[dict[str, Any]] | None:
        if target is None or k is None:
            return None
        try:
            return _hits(atlas, target, k, within)
        except Exception as error:
            failures.last = error
            raise

    text, integer = duckdb.sqltype("VARCHAR"), duckdb.sqltype("INTEGER")
    # with side effects it is not run at EXPLAIN or while a statement is being bound
    connection.create_function("_similar", similar, [text, integer, text], connection.type(_HIT), side_effects=True,  # type: ignore[arg-type]
                               null_handling="special")
    for macro in (_SIMILAR, _COSINE, _SEPARATION, *([_CONE] if stars else [])):
        connection.execute(macro)
    return failures


def _hits(atlas: Atlas, target: str, k: int, within: str | None) -> list[dict[str, Any]]:
    # the index is opened only when a search is run: an atlas without one can be asked all else
    from importlib import import_module

    hits = import_module("queries.similar").search_hits(atlas, target, k, within)
    names = ("modality", "spec_id", "source_id", "rank", "similarity")
    return [dict(zip(names, (hit[0], int(hit[1]), None if hit[2] is None else int(hit[2]), int(hit[3]), float(hit[4])),
                     strict=True)) for hit in hits]
