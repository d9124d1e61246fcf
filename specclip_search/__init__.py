"""specclip-search: vector search and anomaly discovery for stellar spectra.

Names are imported when first used, so that importing the package is fast.
"""

from __future__ import annotations

from .lazy import lazy_names
from .version import __version__

_HOMES = {
    "Atlas": "specclip_search.atlas",
    "LAMOST_LRS": "specclip_search.surveys",
    "GAIA_XP": "specclip_search.surveys",
    "Modality": "specclip_search.surveys",
    "Spectrum": "specclip_search.spectrum",
    "SpecclipError": "specclip_search.errors",
    "read_spectrum": "specclip_search.readers",
    "load_model": "specclip_search.training.model",
    "similar": "specclip_search.queries.similar.similar",
    "anomalies": "specclip_search.queries.anomalies.anomalies",
    "emp_candidates": "specclip_search.queries.emp.candidates",
}

__all__ = ["__version__", *_HOMES]

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
