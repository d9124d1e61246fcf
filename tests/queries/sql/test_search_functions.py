"""`similar` in SQL over a real index: by vector as by id, correlated, within an instrument; and odd vectors."""

from __future__ import annotations

import numpy as np
import pytest

from specclip_search.atlas import Atlas
from specclip_search.errors import QueryError
from specclip_search.indexing import build_index
from specclip_search.queries.sql.sandbox import run_untrusted

from ..small_atlas import star, write_vectors

STARS = [star(number) for number in range(10)]


@pytest.fixture
def indexed(atlas: Atlas) -> Atlas:
    """Vectors of ten XP spectra, and an index of them."""
    write_vectors(atlas, "gaia_xp", STARS, STARS, seed=1)
    build_index(atlas, modality="gaia_xp")
    return atlas


def test_by_vector_each_spectrum_comes_once_the_nearest_first(indexed: Atlas) -> None:
    rows = indexed.sql(
        "SELECT s.* FROM (SELECT vector FROM vectors_gaia_xp ORDER BY spec_id LIMIT 1) q, similar(q.vector, 10) s "
        "ORDER BY s.rank"
    ).df()
    assert rows["spec_id"][0] == STARS[0]
    assert sorted(rows["spec_id"]) == STARS
    assert rows["rank"].tolist() == list(range(1, 11))
    assert np.all(np.diff(rows["similarity"]) <= 0)
    assert rows["similarity"][0] == pytest.approx(1, abs=1e-3)


def test_by_vector_and_by_id_agree_but_for_the_star_itself(indexed: Atlas) -> None:
    by_id = indexed.sql(f"SELECT spec_id FROM similar('gaia:{STARS[3]}', 5, within := 'gaia_xp')").df()["spec_id"]
    by_vector = indexed.sql(
        f"SELECT spec_id FROM similar((SELECT vector FROM vectors_gaia_xp WHERE spec_id = {STARS[3]}), 6)"
    ).df()["spec_id"]
    assert by_vector[0] == STARS[3]
    assert by_vector[1:].tolist() == by_id.tolist()


def test_correlated_over_targets(indexed: Atlas) -> None:
    rows = indexed.sql(
        "SELECT t.spec_id AS target, s.spec_id, s.rank FROM (SELECT spec_id FROM spectra_gaia_xp WHERE spec_id IN "
        f"({STARS[0]}, {STARS[1]})) t, similar('gaia:' || t.spec_id, 3) s ORDER BY ALL"
    ).df()
    assert rows.groupby("target")["rank"].max().to_dict() == {STARS[0]: 3, STARS[1]: 3}
    assert not (rows["target"] == rows["spec_id"]).any()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("'['", "needs a list of numbers; found '\\['"),
        ("'[\"a\"]'", "needs a list of numbers"),
        ("'[[1], [2, 3]]'", "needs a list of numbers"),
        ("repeat('[', 100000)", r"needs a list of numbers; found '\[{60}\.\.\.'"),
        ("'[1, 2]'", "finite numbers that are not all zero; found 2"),
        ("'[1e999]'", "finite numbers"),
    ],
)
def test_what_is_no_vector_is_told_to_owner_and_stranger(indexed: Atlas, target: str, message: str) -> None:
    statement = f"SELECT * FROM similar({target}, 3)"
    with pytest.raises(QueryError, match=message):
        indexed.sql(statement).df()
    with pytest.raises(QueryError, match=message):
        run_untrusted(indexed, statement)
