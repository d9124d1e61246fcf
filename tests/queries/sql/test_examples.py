"""Every statement of the documentation runs and gives rows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from specclip_search.atlas import Atlas

from ..small_atlas import star, write_vectors

PAGE = Path(__file__).resolve().parents[3] / "docs" / "sql.md"
STATEMENTS = re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
# no star of the small atlas has two releases of one instrument
EMPTY = "a.release < b.release"


def test_there_are_ten() -> None:
    assert len(STATEMENTS) == 10


@pytest.mark.parametrize("statement", STATEMENTS, ids=range(len(STATEMENTS)))
def test_statement_of_the_documentation(atlas: Atlas, monkeypatch: pytest.MonkeyPatch, statement: str) -> None:
    ids = [star(i) for i in range(10)]
    write_vectors(atlas, "gaia_xp", ids, ids, seed=1)

    def search_hits(atlas: Atlas, target: str, k: int, within: str | None) -> list[tuple]:
        return [("gaia_xp", ids[i], ids[i], i + 1, 1 - i / 100) for i in range(min(k, 10))]

    monkeypatch.setattr("specclip_search.queries.sql.search_functions.search_hits", search_hits)
    table = atlas.sql(statement).arrow()
    assert (table.num_rows > 0) == (EMPTY not in statement)
