"""`resolve(text)` in SQL: the spectra that a key, an id, a name or a position stands for, as a table function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..space.resolve import resolve

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas

    from ..views.connection import AtlasConnection

_FOUND = (
    "STRUCT(kind VARCHAR, modality VARCHAR, spec_id BIGINT, release VARCHAR, source_id BIGINT, "
    "separation_arcsec DOUBLE, file VARCHAR)[]"
)
_RESOLVE = (
    'CREATE OR REPLACE MACRO "resolve"(words) AS TABLE '
    "(SELECT h.* FROM (SELECT unnest(_resolve(words::VARCHAR)) h))"
)


def add_resolve(connection: AtlasConnection, atlas: Atlas, files: bool) -> None:
    """Register `resolve(text)`; see `specclip_search.queries.space.resolve.resolve`.

    It has one row for each spectrum of the star, the best first; for a file one row with its path.

    Parameters
    ----------
    files
        Whether a text may name a file; if not, the file system is not looked at.
    """
    from duckdb.func import FunctionNullHandling

    def found(words: str | None) -> list[dict[str, Any]] | None:
        if words is None:
            return None
        try:
            return _rows(atlas, words, files)
        except Exception as error:
            connection.failures.keep(error)
            raise

    connection.duckdb.create_function(
        "_resolve",
        found,
        [connection.duckdb.type("VARCHAR")],
        connection.duckdb.type(_FOUND),
        side_effects=True,
        null_handling=FunctionNullHandling.SPECIAL,
    )
    connection.duckdb.execute(_RESOLVE)


def _rows(atlas: Atlas, words: str, files: bool) -> list[dict[str, Any]]:
    one = resolve(atlas, words, files=files)
    said = {"kind": one.kind, "source_id": one.source_id, "separation_arcsec": one.separation, "file": one.file}
    keys: list[tuple[str | None, int | None, str | None]] = [
        (key.modality, key.spec_id, release) for key, release in zip(one.keys, one.releases, strict=True)
    ]
    return [
        {**said, "modality": modality, "spec_id": spec_id, "release": release}
        for modality, spec_id, release in keys or [(None, None, None)]
    ]
