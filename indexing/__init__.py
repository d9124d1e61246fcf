"""Embedding runs, the vector store, the index and its searches; names are loaded when first used."""

from __future__ import annotations

from specclip_search.lazy import lazy_names

_HOMES = {
    "embed": ".embedding",
    "EmbedReport": ".embedding",
    "build_index": ".build",
    "plan_build": ".build",
    "BuildReport": ".report",
    "tune_index": ".tune",
    "check_index": ".check",
    "index_info": ".check",
    "neighbours": ".neighbour_graph",
    "neighbour_stage": ".neighbour_graph",
    "VectorIndex": ".search",
    "SearchResult": ".answers",
    "KeyTable": ".keytable",
    "VectorTable": ".vectors",
}

__all__ = sorted(_HOMES)

__getattr__ = lazy_names(__name__, _HOMES)
