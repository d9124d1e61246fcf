"""Ingest of files into the atlas: spectra, catalogues, and the public library of XP spectra."""

from __future__ import annotations

from ..lazy import lazy_names

_HOMES = {
    "ingest_lamost": ".spectra",
    "ingest_gaia_xp": ".spectra",
    "ingest_survey": ".survey",
    "ingest_catalog": "..catalogs.ingest",
    "ingest_catalog_table": "..catalogs.ingest",
    "ingest_library": ".library",
    "ingest_mmu": ".mmu",
    "recalibrate": ".waiting",
    "IngestReport": "..stages.accounts",
}

__all__ = list(_HOMES)

__getattr__ = lazy_names(__name__, _HOMES)
