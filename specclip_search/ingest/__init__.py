"""Files into the atlas: spectra, catalogues, and the public library of XP spectra."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "ingest_lamost": ".lamost",
    "ingest_gaia_xp": ".gaia",
    "ingest_catalog": ".catalog",
    "ingest_catalog_table": ".catalog",
    "ingest_library": ".library_stage",
    "IngestReport": ".report",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
