"""Embedding runs, the vector store, the index and its searches; names are loaded when first used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "embed": "embedding",
    "EmbedReport": "embedding",
    "build_index": "build",
    "plan_build": "build",
    "BuildReport": "report",
    "tune_index": "tune",
    "check_index": "check",
    "index_info": "check",
    "neighbours": "neighbour_graph",
    "neighbour_stage": "neighbour_graph",
    "VectorIndex": "search",
    "SearchResult": "answers",
    "KeyTable": "keytable",
    "VectorTable": "vectors",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'indexing' has no attribute '{name}'")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
