"""Downloads from the archives: in chunks, resumable, with every id accounted for."""

from __future__ import annotations

from ..lazy import lazy_names

_HOMES = {
    "fetch_gaia_xp": ".datalink",
    "fetch_lamost": ".lamost",
    "fetch_catalog": ".catalog",
    "FetchReport": ".ledger",
}

__all__ = list(_HOMES)

__getattr__ = lazy_names(__name__, _HOMES)
