"""The SQL page: one statement in the sandbox, and what there is to ask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from specclip_search.queries.sql.sandbox import Answer
from specclip_search.queries.views.views import AtlasViews

from ...errors import QueryError
from ..answers import Page, rows_json

if TYPE_CHECKING:
    from ..session import Session

EXAMPLES = {
    "brightest spectra": "SELECT source_id, ra, dec, snr_xp, teff, logg, feh FROM stars ORDER BY snr_xp DESC LIMIT 100",
    "strangest stars": "SELECT source_id, anomaly_score, anomaly_q_value, anomaly_kind, anomaly_reason FROM stars "
    "WHERE anomaly_score IS NOT NULL ORDER BY anomaly_score DESC LIMIT 100",
    "metal-poor candidates": "SELECT source_id, emp_probability, emp_feh, emp_feh_err FROM stars "
    "WHERE emp_probability IS NOT NULL ORDER BY emp_probability DESC LIMIT 100",
    "labels of a star's neighbours": "SELECT s.source_id, h.similarity, s.teff, s.logg, s.feh "
    "FROM similar('{key}', 100) h JOIN stars s USING (source_id) ORDER BY h.similarity DESC",
    "spectra set aside": "SELECT reason, count(*) AS n FROM rejected_lamost_lrs GROUP BY reason ORDER BY n DESC",
}
_NESTED = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)


def sql_page(session: Session, query: Mapping[str, str]) -> Page:
    """The answer to `?q=`; without it an empty one."""
    statement = query.get("q", "").strip()
    if not statement:
        return Page({**rows_json(pa.table({})), "q": ""}, pa.table({}))
    answer: Answer = session.kept(("sql", statement), lambda: session.sandboxed(statement), verdicts=True)
    content = {**rows_json(answer.table, answer.truncated), "q": statement}
    return Page(content, answer.table)


def schema_page(session: Session, query: Mapping[str, str]) -> Page:
    """The views with their columns, units and meanings, and statements to begin with."""
    return session.kept(("schema",), lambda: _schema(session), verdicts=True)


def _schema(session: Session) -> Page:
    views: list[dict[str, Any]] = []
    rows: list[tuple[str, str, str, str, str]] = []
    found = AtlasViews(session.atlas).all
    for view in found.values():
        columns = []
        for field in view.fields():
            said = {key.decode(): value.decode("utf-8", "replace") for key, value in (field.metadata or {}).items()}
            kind = "list" if any(is_list(field.type) for is_list in _NESTED) else str(field.type)
            columns.append(
                {"name": field.name, "type": kind, "unit": said.get("unit", ""),
                 "description": said.get("description", "")}
            )  # fmt: skip
            rows.append((view.name, field.name, kind, said.get("unit", ""), said.get("description", "")))
        views.append({"name": view.name, "description": view.description, "columns": columns})
    names = ("view", "column", "type", "unit", "description")
    table = pa.table({name: pa.array([row[i] for row in rows], pa.string()) for i, name in enumerate(names)})
    return Page({"views": views, "examples": _examples(session, set(found))}, table)


def _examples(session: Session, views: set[str]) -> list[dict[str, str]]:
    """Statements that this atlas can answer."""
    scored = {
        "strangest stars": "anomalies",
        "metal-poor candidates": "emp",
        "spectra set aside": "rejected_lamost_lrs",
    }
    key = _any_key(session)
    return [
        {"name": name, "q": text.replace("{key}", key)}
        for name, text in EXAMPLES.items()
        if scored.get(name, "stars") in views and (key or "{key}" not in text)
    ]


def _any_key(session: Session) -> str:
    """Key of some spectrum, for an example."""
    from ...keys import SpectrumKey

    try:
        space = session.space
        modality = space.modalities[-1]
        return str(SpectrumKey(modality, int(space.keys(modality).spec_id[0])))
    except (QueryError, IndexError):
        return ""
