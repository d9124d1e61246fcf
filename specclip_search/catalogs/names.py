"""Names that SQL gives a meaning of its own: no catalogue may take one, or it would hide what users ask for.

The maker of views uses these names itself, so that the two lists cannot drift apart.
"""

from __future__ import annotations

WHOLE_ATLAS = ("stars", "spectra", "epochs")
"""Views over all instruments."""
STAGE_PREFIXES = ("spectra", "observed", "vectors", "estimates", "rejected")
"""Views of one instrument are called by one of these, an underscore and the instrument."""
RESULTS = ("translations", "neighbours", "anomalies", "emp", "map", "verdicts", "changes", "visit_changes")
"""Views of results that commands make."""
FUNCTIONS = ("similar", "translate", "cone", "sky_match", "cosine", "separation_arcsec")
"""Functions of SQL that take the place of a table or a value."""
OWN = ("links", "truth", "truth_lrs", "truth_spread")
"""Catalogues that `link` and `simulate` make: no file may be ingested in their place."""
_PREFIXES = (*(f"{prefix}_" for prefix in STAGE_PREFIXES), "sqlite_", "duckdb_", "pg_", "pragma_", "_")
_SCHEMAS = ("information_schema", "main", "temp", "system", "pg_catalog", "tables", "all")


def is_reserved(name: str) -> bool:
    """Whether a catalogue of this name would hide, or be hidden by, a view, function or schema."""
    word = name.lower()
    return word in (*WHOLE_ATLAS, *STAGE_PREFIXES, *RESULTS, *FUNCTIONS, *_SCHEMAS) or word.startswith(_PREFIXES)


def stage_view(prefix: str, modality: str) -> str:
    """Name of the view of one instrument's stage."""
    assert prefix in STAGE_PREFIXES
    return f"{prefix}_{modality}"


def result_view(name: str) -> str:
    """Name of the view of a stored result."""
    return name.replace("-", "_").replace(".", "_").lower()
