"""A small paired survey with scores, a map and verdicts, shown by an explorer; its model is a toy."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("starlette", reason="the extra 'web' is not installed")
pytest.importorskip("httpx2", reason="starlette's test client needs httpx2")

from starlette.testclient import TestClient

from specclip_search.atlas import Atlas
from specclip_search.atlas.arrays import table_from_columns
from specclip_search.errors import CheckpointError
from specclip_search.queries.space.space import Space
from specclip_search.web.app import make_app
from specclip_search.web.settings import Settings

TESTS = Path(__file__).resolve().parents[2]


def _toys() -> ModuleType:
    """The toy survey of the queries' tests."""
    path = TESTS / "queries" / "toy_survey.py"
    spec = importlib.util.spec_from_file_location("toy_survey", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up by name
    sys.modules["toy_survey"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """400 pairs with translations, anomaly and EMP scores, and a map; tests only read it."""
    from specclip_search.queries.anomalies.anomalies import anomalies
    from specclip_search.queries.emp.candidates import emp_candidates
    from specclip_search.queries.translation.translate import translate

    survey = _toys().make_survey(tmp_path_factory.mktemp("shown") / "atlas", stars=400, wrong=6, emission=6)
    survey.model.estimate = _no_estimators
    survey.embed()
    translate(survey.atlas, survey.model)
    with pytest.MonkeyPatch.context() as patch:
        # networks that know real spectra have nothing to say of toys
        patch.setattr("specclip_search.queries.emp.estimates.load_network", lambda: None)
        anomalies(survey.atlas, top=5)
        emp_candidates(survey.atlas, below=-2.0, top=5, builtin_seeds=False)
    _lay_out(survey)
    return survey


def _no_estimators(modality: str, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """A model without estimators, as the real one says it."""
    raise CheckpointError("Model 'toy' has no label estimators.", "Train them.")


def _lay_out(survey: Any) -> None:
    """A map by the hidden parameters: where UMAP is not installed there is one all the same."""
    from specclip_search.queries.maps.map import map_schema

    schema = map_schema()
    ids = {"lamost_lrs": survey.obsid, "gaia_xp": survey.source_id}
    n = len(survey.source_id)
    columns = {
        "x": np.concatenate([survey.hidden[:, 0], survey.hidden[:, 0] + 8]).astype(np.float32),
        "y": np.concatenate([survey.hidden[:, 1], survey.hidden[:, 1]]).astype(np.float32),
        "modality": [name for name in ids for _ in range(n)],
        "release": ["dr9"] * (2 * n),
        "spec_id": np.concatenate(list(ids.values())),
        "source_id": np.concatenate([survey.source_id] * 2),
        "sampled": np.ones(2 * n, dtype=bool),
    }
    stage = survey.atlas.results("map")
    with stage.lock():
        stage.write(
            0, table_from_columns(columns, schema), schema=schema, inputs="toy",
            extra={"model": "toy", "sample": n, "shards": 1},
        )  # fmt: skip


@pytest.fixture(autouse=True)
def _toy_model(shown: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The survey's model is not kept in the atlas: hand it out wherever one is loaded."""
    monkeypatch.setattr(Space, "loaded_model", lambda _: shown.model)


@pytest.fixture(scope="session")
def opened() -> Iterator[Callable[..., TestClient]]:
    """Opens explorers; all are closed at the end."""
    with ExitStack() as stack:
        held: dict[Any, TestClient] = {}

        def open_client(atlas: Atlas, host: str = "localhost", **settings: Any) -> TestClient:
            key = (atlas.path, host, tuple(sorted((k, id(v) if k == "tokens" else v) for k, v in settings.items())))
            if key not in held:
                app = make_app(atlas, Settings(**{"offline": True, "sql_workers": 1, **settings}))
                client = TestClient(app, base_url=f"http://{host}", follow_redirects=False)
                held[key] = stack.enter_context(client)
            held[key].cookies.clear()
            return held[key]

        yield open_client


@pytest.fixture
def client(shown: Any, opened: Callable[..., TestClient]) -> TestClient:
    """The survey as its owner sees it."""
    return opened(shown.atlas)


@pytest.fixture
def own_atlas(shown: Any, tmp_path: Path) -> Atlas:
    """A copy of the survey's atlas to give verdicts on."""
    shutil.copytree(shown.atlas.path, tmp_path / "atlas", ignore=shutil.ignore_patterns(".lock", "*.lock"))
    return Atlas(tmp_path / "atlas")


def as_table(content: dict[str, Any]) -> pa.Table:
    """An answer in JSON as a table of texts and numbers."""
    names = [column["name"] for column in content["columns"]]
    return pa.table({name: [row[i] for row in content["rows"]] for i, name in enumerate(names)})
