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
    # files
    "read_spectrum": "specclip_search.readers",
    "to_specutils": "specclip_search.readers",
    "register_with_specutils": "specclip_search.readers",
    "ingest_lamost": "specclip_search.ingest",
    "ingest_gaia_xp": "specclip_search.ingest",
    "ingest_survey": "specclip_search.ingest",
    "ingest_mmu": "specclip_search.ingest",
    "fetch_gaia_xp": "specclip_search.fetch",
    "fetch_lamost": "specclip_search.fetch",
    "fetch_catalog": "specclip_search.fetch",
    "ingest_catalog": "specclip_search.catalogs.ingest",
    "ingest_library": "specclip_search.ingest",
    "recalibrate": "specclip_search.ingest",
    "link_stars": "specclip_search.queries.sky.link",
    "simulate_pairs": "specclip_search.simulation.samples.pairs",
    "simulate_metal_poor": "specclip_search.simulation.samples.metal_poor",
    "simulate_survey": "specclip_search.simulation.samples.survey",
    # models
    "load_model": "specclip_search.training.model",
    "find_model": "specclip_search.training.checkpoints.shipped",
    "shipped_models": "specclip_search.training.checkpoints.shipped",
    "load_card": "specclip_search.training.checkpoints.folder",
    "import_checkpoint": "specclip_search.training.checkpoints.importing",
    "export_model": "specclip_search.training.checkpoints.folder",
    "train": "specclip_search.training.fit.train",
    "train_estimators": "specclip_search.training.estimators.train",
    "adapt_to_catalogue": "specclip_search.training.real_spectra.adapt_atlas",
    # stages of an atlas
    "embed": "specclip_search.indexing.vectors.embed",
    "estimate": "specclip_search.indexing.vectors.estimate",
    "apply_heads": "specclip_search.indexing.vectors.label_heads",
    "translate": "specclip_search.queries.translation.translate",
    "build_index": "specclip_search.indexing.build.build",
    "index_info": "specclip_search.indexing.build.check",
    "check_index": "specclip_search.indexing.build.check",
    "tune_index": "specclip_search.indexing.build.tune",
    "neighbours": "specclip_search.indexing.search.neighbours",
    # questions
    "resolve": "specclip_search.queries.space.resolve",
    "observed_spectrum": "specclip_search.queries.space.observed",
    "spectrum_table": "specclip_search.queries.sql.spectrum_table",
    "similar": "specclip_search.queries.similar.similar",
    "summarise": "specclip_search.queries.similar.summary",
    "plot_similar": "specclip_search.queries.similar.picture",
    "anomalies": "specclip_search.queries.anomalies.anomalies",
    "anomalies_within": "specclip_search.queries.anomalies.one_instrument",
    "record_verdict": "specclip_search.queries.anomalies.verdicts",
    "emp_candidates": "specclip_search.queries.emp.candidates",
    "compare": "specclip_search.queries.compare.compare",
    "plot_comparison": "specclip_search.queries.compare.picture",
    "explain_match": "specclip_search.queries.explain.explain",
    "explain_group": "specclip_search.queries.explain.explain",
    "changes": "specclip_search.queries.changes.changes",
    "make_map": "specclip_search.queries.maps.map",
    "map_table": "specclip_search.queries.maps.map",
    "draw_map": "specclip_search.queries.maps.picture",
    "write_report": "specclip_search.queries.report.report",
    "evaluate": "specclip_search.queries.evaluation.evaluate",
    "evaluate_real": "specclip_search.queries.evaluation.real",
    "crossmatch": "specclip_search.queries.sky.crossmatch",
    "connect": "specclip_search.queries.sql.ask",
    # rows to other programs
    "export_table": "specclip_search.queries.sql.export",
    "export_bundle": "specclip_search.queries.sql.bundle",
    "write_rows": "specclip_search.tables",
    "to_qtable": "specclip_search.tables",
    "send_spectrum": "specclip_search.tables.samp",
    "explore": "specclip_search.web",
    "make_server": "specclip_search.web.agents",
    # the installation
    "rehearse": "specclip_search.ingest.rehearsal",
    "examine_installation": "specclip_search.cli.doctor",
    "examine_atlas": "specclip_search.cli.doctor",
}

__all__ = ["__version__", *_HOMES]

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
