"""Embedding runs, the vector store, the index and its searches; names are imported on first use."""

from __future__ import annotations

from specclip_search.lazy import lazy_names

_HOMES = {
    "embed": ".vectors.embed",
    "EmbedReport": ".vectors.embed",
    "build_index": ".build.build",
    "plan_build": ".build.build",
    "BuildReport": ".build.report",
    "tune_index": ".build.tune",
    "check_index": ".build.check",
    "index_info": ".build.check",
    "neighbours": ".search.neighbours",
    "neighbour_stage": ".search.neighbours",
    "VectorIndex": ".search.index",
    "SearchResult": ".search.index",
    "KeyTable": ".vectors.keys",
    "VectorTable": ".vectors.table",
}

__all__ = sorted(_HOMES)

__getattr__ = lazy_names(__name__, _HOMES)
