"""A small paired survey with vectors, indexes and translations, shared by the tests of pictures."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from specclip_search.queries.space.space import Space


def _toys() -> ModuleType:
    """The toy survey of the searches' tests."""
    path = Path(__file__).resolve().parents[1] / "searches" / "conftest.py"
    spec = importlib.util.spec_from_file_location("toy_survey", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up by name
    sys.modules["toy_survey"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """900 pairs in three shards, some planted oddities; tests only read it, or add results to it."""
    from specclip_search.queries.translation.translate import translate

    survey = _toys().make_survey(tmp_path_factory.mktemp("drawn") / "atlas", stars=900, wrong=6, emission=6)
    survey.embed()
    translate(survey.atlas, survey.model)
    return survey


@pytest.fixture(scope="session")
def one_instrument(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """300 stars with XP spectra alone."""
    survey = _toys().make_survey(tmp_path_factory.mktemp("single") / "atlas", stars=300, shards=2)
    shutil.rmtree(survey.atlas.path / "spectra" / "lamost_lrs")
    survey.embed()
    return survey


@pytest.fixture(autouse=True)
def toy_model(drawn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The survey's model is not kept in the atlas: hand it out wherever one is loaded."""
    monkeypatch.setattr(Space, "loaded_model", lambda _: drawn.model)
    monkeypatch.setattr("specclip_search.training.model.load_model", lambda _: drawn.model)
