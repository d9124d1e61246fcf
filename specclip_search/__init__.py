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
    "to_specutils": "specclip_search.readers",
    "register_with_specutils": "specclip_search.readers",
    "to_qtable": "specclip_search.tables",
    "load_model": "specclip_search.training.model",
    "similar": "specclip_search.queries.similar.similar",
    "anomalies": "specclip_search.queries.anomalies.anomalies",
    "anomalies_within": "specclip_search.queries.anomalies.one_instrument",
    "emp_candidates": "specclip_search.queries.emp.candidates",
    "ingest_lamost": "specclip_search.ingest",
    "ingest_gaia_xp": "specclip_search.ingest",
    "ingest_catalog": "specclip_search.catalogs.ingest",
    "observed_spectrum": "specclip_search.queries.space.observed",
    "link_stars": "specclip_search.queries.sky.link",
    "embed": "specclip_search.indexing.vectors.embed",
    "estimate": "specclip_search.indexing.vectors.estimate",
    "build_index": "specclip_search.indexing.build.build",
    "translate": "specclip_search.queries.translation.translate",
    "compare": "specclip_search.queries.compare.compare",
    "explain_match": "specclip_search.queries.explain.explain",
    "explain_group": "specclip_search.queries.explain.explain",
    "make_map": "specclip_search.queries.maps.map",
    "write_report": "specclip_search.queries.report.report",
    "crossmatch": "specclip_search.queries.sky.crossmatch",
    "export_table": "specclip_search.queries.sql.export",
}

__all__ = ["__version__", *_HOMES]

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
