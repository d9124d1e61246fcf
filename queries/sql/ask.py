"""SQL over an atlas: its views, and the searches as functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..views.connection import AddFunction, AtlasConnection, Parameters, held_connection
from .search_functions import add_similar
from .sky_function import add_sky_match
from .translate_function import add_translate

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas

    from ..views.rows import Rows

SQL_FUNCTIONS: tuple[AddFunction, ...] = (add_similar, add_translate, add_sky_match)
"""What statements may call besides DuckDB's own functions; each takes (connection, atlas, files)."""


def connect(atlas: Atlas, *, read_only: bool = False, untrusted: bool = False) -> AtlasConnection:
    """Open a DuckDB connection with a view over every stage of the atlas and the functions of SQL.

    Nothing is read or copied. Views stand over the shards committed at this moment, and each is
    made when a statement first names it, so that opening a survey costs as little as a demo.

    Parameters
    ----------
    read_only
        Shut out everything but the atlas's own files: no other file, no network, no extension,
        no change of settings.
    untrusted
        Functions take no paths of files; `AtlasConnection.lock_down` is to follow.
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
        SQL of DuckDB. Views: `stars`, `spectra`, `spectra_<modality>`, `vectors_<modality>`,
        `translations`, `neighbours`, `anomalies`, `emp`, `rejected_<modality>` and each
        catalogue; functions: `similar(target, k, within := ...)`, `translate(target)`, `cosine(a, b)`,
        `separation_arcsec(ra1, dec1, ra2, dec2)`, `cone(ra, dec, radius_deg)`, and for a catalogue
        its rows of one star by lookup, `<catalogue>_of(source_id)`.
        `DESCRIBE <view>` tells its columns with units and meaning.
    parameters
        Values for `?` or `$name`.

    Returns
    -------
    Rows, evaluated when read; None where the statement yields none.

    Raises
    ------
    QueryError
        If DuckDB refuses the statement; its message, and the tables there are.
    """
    return connect(atlas).run(statement, parameters)
