"""SQL over an atlas: its views, and the searches as functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..views.connection import AddFunction, AtlasConnection, Parameters, held_connection
from .resolve_function import add_resolve
from .search_functions import add_similar
from .sky_function import add_sky_match
from .translate_function import add_translate

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas

    from ..views.rows import Rows

SQL_FUNCTIONS: tuple[AddFunction, ...] = (add_similar, add_resolve, add_translate, add_sky_match)
"""SQL functions available besides DuckDB's own; each takes (connection, atlas, files)."""


def connect(atlas: Atlas, *, read_only: bool = False, untrusted: bool = False) -> AtlasConnection:
    """Open a DuckDB connection with a view over every stage of the atlas and the functions of SQL.

    Nothing is read or copied. Views cover the shards committed at this moment. Each view is
    created when a statement first uses it, so that opening a survey is as fast as opening a demo.

    Parameters
    ----------
    read_only
        Allow access to the atlas's own files only: no other file, no network, no extension,
        no change of settings.
    untrusted
        Functions accept no file paths; call `AtlasConnection.lock_down` afterwards.
    """
    held = None if read_only or untrusted else held_connection(atlas)
    if held is not None:
        return held
    return AtlasConnection(atlas, read_only=read_only, untrusted=untrusted, functions=SQL_FUNCTIONS)


def run(atlas: Atlas, statement: str, parameters: Parameters = None) -> Rows | None:
    """Run a statement over the atlas.

    Parameters
    ----------
    statement
        DuckDB SQL. Views: `stars`, `spectra`, `spectra_<modality>`, `vectors_<modality>`,
        `translations`, `neighbours`, `anomalies`, `emp`, `rejected_<modality>` and each
        catalogue; functions: `similar(target, k, within := ...)`, `resolve(text)`, `translate(target)`, `cosine(a, b)`,
        `separation_arcsec(ra1, dec1, ra2, dec2)`, `cone(ra, dec, radius_deg)`, and for a catalogue
        its rows of one star, `<catalogue>_of(source_id)`.
        `DESCRIBE <view>` lists its columns with units and descriptions.
    parameters
        Values for `?` or `$name`.

    Returns
    -------
    Rows, evaluated when read; None if the statement returns none.

    Raises
    ------
    QueryError
        If DuckDB rejects the statement; gives its message and the available tables.
    """
    return connect(atlas).run(statement, parameters)
