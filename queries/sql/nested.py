"""Spectra and their vectors as nested columns, the layout that LSDB and nested-pandas read: structures of lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

from specclip_search.catalogs.names import stage_view
from specclip_search.errors import QueryError
from specclip_search.surveys import get_modality

from ..views.parquet import identifier

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas

#: a row with its arrays takes some 10 to 30 kB
ROWS_AT_ONCE = 4096
ROWS_A_TILE = 50_000
SPECTRUM, VECTOR = "model_spectrum", "model_vector"


def nested_statement(atlas: Atlas, table: str) -> str:
    """A SELECT of the spectra of one instrument with two nested columns.

    ``model_spectrum{wavelength, flux, error}`` is the model's input (vacuum; `wavelength` in the instrument's unit),
    ``model_vector{value}`` the shared vector by the active model; it is empty where a spectrum has none.

    Raises
    ------
    QueryError
        If `table` is not a view of spectra.
    """
    views = {stage_view("spectra", name): name for name in atlas.modalities()}
    if table not in views:
        raise QueryError(
            f"Nested columns are made of a view of spectra; found '{table[:60]}'.",
            f"Give one of {', '.join(views)}, or use --format hats for other tables." if views else "Ingest spectra.",
        )
    name = views[table]
    grid = ", ".join(f"{value!r}" for value in get_modality(name).wavelength.tolist())
    model = atlas.active_model
    vector, joined = "[]::FLOAT[]", ""
    if model is not None and atlas.vectors(model, name).exists:
        vector = "coalesce(v.vector::FLOAT[], []::FLOAT[])"
        joined = (
            " LEFT JOIN (SELECT DISTINCT ON (spec_id, release) spec_id, release, vector "
            f"FROM {identifier(stage_view('vectors', name))}) v "
            "ON s.spec_id = v.spec_id AND s.release IS NOT DISTINCT FROM v.release"
        )
    return (
        f"SELECT s.* EXCLUDE (flux, error), "
        f"struct_pack(wavelength := [{grid}]::DOUBLE[], flux := s.flux::FLOAT[], error := s.error::FLOAT[]) "
        f"AS {SPECTRUM}, struct_pack(value := {vector}) AS {VECTOR} FROM {identifier(table)} s{joined}"
    )
