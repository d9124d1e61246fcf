"""Pages over an atlas made by someone else: its names and texts are shown, and are never markup, script or SQL."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest

from specclip_search.atlas import Atlas
from specclip_search.catalogs.ingest import ingest_catalog_table
from specclip_search.queries.anomalies.anomalies import anomalies
from specclip_search.queries.emp.candidates import emp_candidates
from specclip_search.queries.report.report import write_report
from specclip_search.queries.space.space import Space
from specclip_search.queries.translation.translate import translate

from ..queries.toy_survey import XP, make_survey
from .test_hostile_names import ANSI

ROOT = Path(__file__).resolve().parents[2]
MARKUP = "\"'><script>alert(1)</script><img src=x onerror=alert(1)><a href=javascript:alert(1)>"


class Parts(HTMLParser):
    """Tags with their attributes, what scripts hold, and all text, as a browser would see them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text: list[str] = []
        self._inside = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        (self.scripts if self._inside == "script" else self.text).append(data)


def assert_harmless(parts: Parts) -> None:
    for tag, attributes in parts.tags:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in ("src", "href", "xlink:href", "action", "formaction", "style"):
            value = (attributes.get(name) or "").strip().lower()
            assert "alert" not in value, (tag, attributes)
            assert not value.startswith(("javascript:", "vbscript:", "data:text")), (tag, attributes)
            assert name != "src" or value.startswith(("data:image/", "/")) or not value, (tag, attributes)
    assert "alert(1)" not in "".join(parts.scripts)
    assert {tag for tag, _ in parts.tags}.isdisjoint({"iframe", "object", "embed", "base"})


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that exists if a statement of the atlas's maker ran."""
    return tmp_path_factory.mktemp("outside") / "written-by-an-atlas"


@pytest.fixture(scope="module")
def hostile(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A survey with scores, whose release, catalogue, reasons and model's card hold HTML, SQL and escapes."""
    evil = f"{MARKUP}'; COPY (SELECT 1) TO '{written}'; --{ANSI}"
    survey = make_survey(tmp_path_factory.mktemp("pages") / "atlas", stars=160, wrong=4, emission=4, release=evil)
    survey.embed()
    translate(survey.atlas, survey.model)
    columns = {"source_id": survey.source_id, "feh": np.linspace(-4, 0, 160), evil: np.ones(160)}
    table = pa.table(columns)
    said = {"unit": evil, "description": evil}
    schema = pa.schema([pa.field(f.name, f.type, metadata=said if f.name != "source_id" else {}) for f in table.schema])
    ingest_catalog_table(survey.atlas, "labels", table.cast(schema))
    stage = survey.atlas.catalog("labels")
    with stage.lock():
        # ingest gives columns plain names; what another program wrote need not have them
        stage.write(0, table.cast(schema), schema=schema, inputs="hostile")
    manifest = json.loads((stage.folder / "catalog.json").read_text(encoding="utf-8"))
    manifest["parts"] = [part.digest for part in stage.parts()]
    del manifest["check"]
    (stage.folder / "catalog.json").write_text(json.dumps(manifest), encoding="utf-8")
    card = survey.atlas.model_folder("toy") / "model.toml"
    card.parent.mkdir(parents=True)
    card.write_text(f"format_version = 1\nname = {json.dumps(evil)}\norigin = {json.dumps(evil)}\n", encoding="utf-8")
    anomalies(survey.atlas, top=5)
    emp_candidates(survey.atlas, below=-2.0, top=5, builtin_seeds=False)
    for name in ("anomalies", "emp"):
        results = survey.atlas.results(name)
        with results.lock():
            for part in results.parts():
                rows = pa.parquet.ParquetFile(part.path).read()
                for field in rows.schema:
                    if pa.types.is_string(field.type) and "release" not in field.name:
                        place = rows.column_names.index(field.name)
                        rows = rows.set_column(place, field, pa.array([evil] * rows.num_rows))
                extra = part.extra | {"note": evil}
                results.write(part.number, rows, schema=rows.schema, inputs=part.inputs, extra=extra)
    survey.evil = evil
    return survey


@pytest.fixture(autouse=True)
def toy_model(hostile: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Space, "loaded_model", lambda _: hostile.model)
    monkeypatch.setattr("specclip_search.queries.report.maps.SAMPLE", 100)


def test_a_report_shows_what_an_atlas_says_and_runs_none_of_it(hostile: Any, written: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(hostile.atlas, path, anomalies=4, emp=0, title=hostile.evil)
    page = path.read_text(encoding="utf-8")
    parts = Parts(page)
    assert_harmless(parts)
    assert "".join(parts.text).count("<script>alert(1)</script>") >= 3, "it is there as text"
    own = (ROOT / "queries" / "report" / "templates" / "report.js").read_text(encoding="utf-8").strip()
    assert own in {script.strip() for script in parts.scripts}
    assert not written.exists()


def test_the_explorer_sends_what_an_atlas_says_as_data_alone(hostile: Any, written: Path) -> None:
    pytest.importorskip("starlette", reason="the extra 'web' is not installed")
    pytest.importorskip("httpx2", reason="starlette's test client needs httpx2")
    from starlette.testclient import TestClient

    from specclip_search.web.app import PAGES, SHELLS, make_app
    from specclip_search.web.settings import Settings

    key = f"gaia:{hostile.source_id[5]}"
    app = make_app(Atlas(hostile.atlas.path), Settings(offline=True, sql_workers=1))
    shown = 0
    with TestClient(app, base_url="http://localhost", follow_redirects=False) as client:
        for address in SHELLS:
            answer = client.get(address.replace("{key}", key))
            assert answer.status_code == 200, address
            assert "default-src 'self'" in answer.headers["content-security-policy"]
            assert_harmless(parts := Parts(answer.text))
            assert "alert" not in "".join(parts.text)
        statement = "SELECT s.*, l.* FROM spectra_gaia_xp s JOIN labels l USING (source_id) LIMIT 3"
        data = {**dict.fromkeys(PAGES, ""), "/sql": f"?q={statement}", "/map/chosen": "?box=-1,-1,1,1",
                f"/star/{key}": "", f"/star/{key}/neighbours": ""}
        for address, query in data.items():
            for form in ("json", "csv", "vot"):
                answer = client.get(f"{address}.{form}{query}")
                if answer.status_code == 404:
                    # there is no map in this atlas
                    continue
                assert answer.status_code == 200, (address, form, answer.text[:300])
                assert answer.headers["x-content-type-options"] == "nosniff"
                assert not answer.headers["content-type"].startswith("text/html")
                if form == "json":
                    shown += MARKUP in json.dumps(answer.json(), ensure_ascii=False).replace('\\"', '"')
                if form == "vot":
                    ElementTree.fromstring(answer.content)
        tables = ElementTree.fromstring(client.get("/tap/tables").content)
        assert any(MARKUP in (element.text or "") for element in tables.iter())
        refused = client.get(f"/star/gaia:{MARKUP}")
        assert "<script>alert" not in refused.text
    assert shown >= 4, "pages show what the atlas says"
    assert XP in hostile.atlas.modalities()
    assert not written.exists()


def test_the_front_end_makes_no_markup_from_text() -> None:
    """Preact sets text and attributes; nothing may go round it."""
    scripts = sorted((ROOT / "specclip_search" / "web" / "static").glob("*.js"))
    assert len(scripts) > 5
    ways = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc|"
                      r"createContextualFragment|setTimeout\(\s*['\"]")
    assert [f"{script.name}: {found[0]}" for script in scripts
            if (found := ways.search(script.read_text(encoding="utf-8")))] == []
