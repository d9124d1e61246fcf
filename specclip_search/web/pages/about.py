"""What was searched, with what, how well the index finds it, and what every number means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from specclip_search.queries.report.facts import definitions, gather_facts

from ...errors import SpecclipError
from ...version import __version__
from ..answers import Page

if TYPE_CHECKING:
    from ..session import Session


def about_page(session: Session, query: Mapping[str, str]) -> Page:
    """The report's first part, and whether each search can be asked."""
    return session.kept(("about",), lambda: _about(session))


def _about(session: Session) -> Page:
    facts = gather_facts(session.space)
    counts = [[name, value] for name, value in facts.counts]
    meanings = [
        {"table": name, "columns": [list(column) for column in columns]} for name, columns in definitions(session.space)
    ]
    content: dict[str, Any] = {
        "atlas": session.atlas.path.resolve().name,
        "version": __version__,
        "digest": session.digest(),
        "counts": counts,
        "rejected": [list(row) for row in facts.rejected],
        "origin": [list(row) for row in facts.origin],
        "recall": [list(row) for row in facts.recall],
        "definitions": meanings,
        "health": health(session),
    }
    rows = [("counts", *row) for row in facts.counts] + [("origin", *row) for row in facts.origin]
    rows += [("rejected", f"{name}: {reason}", number) for name, reason, number in facts.rejected]
    rows += [("recall", f"{row[0]}, {row[2]}", f"recall@10 {row[3]}, recall@100 {row[4]}") for row in facts.recall]
    names = ("part", "name", "value")
    table = pa.table({name: pa.array([str(row[i]) for row in rows], pa.string()) for i, name in enumerate(names)})
    return Page(content, table)


def health(session: Session) -> list[dict[str, Any]]:
    """For each search whether it can be asked of this atlas, and what makes it so."""
    atlas, space = session.atlas, session.space
    checks: list[dict[str, Any]] = []
    for modality in space.modalities:
        try:
            index = space.index(modality)
            checks.append(
                {
                    "what": f"similar in {modality}",
                    "good": True,
                    "why": f"index {index.digest.removeprefix('sha256:')[:12]}",
                }
            )
        except SpecclipError as error:
            checks.append({"what": f"similar in {modality}", "good": False, "why": str(error)})
    for name, command in (("anomalies", "anomalies"), ("emp", "emp"), ("map", "map --output map.png")):
        stage = atlas.results(name)
        why = f"{stage.rows:,} rows" if stage.exists else f"run `specclip-search {command}`"
        checks.append({"what": name, "good": stage.exists, "why": why})
    return checks


def home_page(session: Session, query: Mapping[str, str]) -> Page:
    """What the first page says: how many spectra, what can be done, some stars to begin with."""
    page = about_page(session, query)
    content = {
        "atlas": page.content["atlas"],
        "counts": page.content["counts"],
        "health": page.content["health"],
        "version": page.content["version"],
    }
    return Page(content, page.table)
