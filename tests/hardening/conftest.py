"""A small whole atlas that tests damage: both instruments, vectors, indexes, translations, estimates, a catalogue."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from specclip_search.atlas import Atlas
from specclip_search.atlas.integrity import forget

from ..queries.toy_survey import make_survey

STARS = 240


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is known of files is forgotten between tests, and never the user's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    forget()
    yield
    forget()


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The survey in whole; tests copy it."""
    from specclip_search.queries.anomalies.anomalies import anomalies
    from specclip_search.queries.emp.candidates import emp_candidates
    from specclip_search.queries.translation.translate import translate

    survey = make_survey(tmp_path_factory.mktemp("whole") / "atlas", stars=STARS, shards=3, wrong=4, emission=4)
    survey.embed()
    translate(survey.atlas, survey.model)
    anomalies(survey.atlas, top=5)
    emp_candidates(survey.atlas, top=5, builtin_seeds=False)
    return survey


@pytest.fixture
def copied(whole: Any, tmp_path: Path) -> Atlas:
    """A copy to damage."""
    shutil.copytree(whole.atlas.path, tmp_path / "atlas")
    return Atlas(tmp_path / "atlas")
