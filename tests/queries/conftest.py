"""Atlases that the tests of queries share: a toy survey with known truth, and a small atlas for SQL."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from specclip_search.atlas import Atlas
from specclip_search.queries.space.space import Space

from .small_atlas import fill
from .toy_survey import Survey, make_survey, write_spectra


@pytest.fixture(scope="session")
def survey_maker(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Survey]:
    def make(**options: Any) -> Survey:
        return make_survey(tmp_path_factory.mktemp("survey") / "atlas", **options)

    return make


@pytest.fixture(scope="session")
def add_spectra() -> Callable[..., None]:
    return write_spectra


@pytest.fixture(scope="session")
def searched(survey_maker: Callable[..., Survey]) -> Survey:
    """A survey with vectors, indexes, translations and planted oddities; tests only read it."""
    from specclip_search.queries.translation.translate import translate

    survey = survey_maker(stars=4000, wrong=30, emission=30)
    survey.embed()
    translate(survey.atlas, survey.model)
    return survey


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """900 pairs in three shards, some planted oddities; tests only read it, or add results to it."""
    from specclip_search.queries.translation.translate import translate

    survey = make_survey(tmp_path_factory.mktemp("drawn") / "atlas", stars=900, wrong=6, emission=6)
    survey.embed()
    translate(survey.atlas, survey.model)
    return survey


@pytest.fixture(scope="session")
def one_instrument(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """300 stars with XP spectra alone."""
    survey = make_survey(tmp_path_factory.mktemp("single") / "atlas", stars=300, shards=2, instruments=("gaia_xp",))
    survey.embed()
    return survey


@pytest.fixture
def toy_model(drawn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The survey's model is not kept in the atlas: hand it out wherever one is loaded."""
    monkeypatch.setattr(Space, "loaded_model", lambda _: drawn.model)
    monkeypatch.setattr("specclip_search.training.model.load_model", lambda _: drawn.model)


@pytest.fixture
def new_atlas(tmp_path: Path) -> Callable[[], Atlas]:
    return lambda: Atlas.create(tmp_path / "atlas's [1]")


@pytest.fixture
def atlas(new_atlas: Callable[[], Atlas]) -> Atlas:
    """A small atlas with both instruments, repeats, unknown stars and catalogues that disagree."""
    made = new_atlas()
    fill(made)
    return made
