"""The front end: what others wrote is what they published, it is small, and it asks nobody else."""

from __future__ import annotations

import gzip
import hashlib
import re
import tomllib
from importlib.resources import files
from pathlib import Path

from starlette.testclient import TestClient

STATIC = Path(str(files("specclip_search.web") / "static"))
MOST_BYTES = 80_000


def sent() -> list[Path]:
    """What a browser loads."""
    return sorted(p for p in STATIC.rglob("*") if p.suffix in (".js", ".css", ".html", ".svg"))


def test_vendored_files_are_those_published() -> None:
    listed = tomllib.loads((STATIC / "vendor" / "vendor.toml").read_text(encoding="utf-8"))["file"]
    there = {p.name for p in (STATIC / "vendor").iterdir() if p.suffix in (".js", ".css")}
    assert {entry["name"] for entry in listed} == there
    licences = (STATIC / "vendor" / "LICENSES.txt").read_text(encoding="utf-8")
    for entry in listed:
        assert hashlib.sha256((STATIC / "vendor" / entry["name"]).read_bytes()).hexdigest() == entry["sha256"]
        assert entry["name"] in licences
        assert re.fullmatch(r"\d+\.\d+\.\d+", entry["version"])
        assert entry["licence"]
    assert "Leon Sorokin" in licences
    assert "Jason Miller" in licences
    assert "Apache License" in licences


def test_the_whole_front_end_is_small() -> None:
    assert sum(len(gzip.compress(p.read_bytes(), 9)) for p in sent()) < MOST_BYTES


def test_nothing_is_loaded_from_elsewhere_and_nothing_runs_inline() -> None:
    for path in sent():
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"""(?:import|fetch|src=|@import|url\()\s*\(?["']?https?:""", text), path.name
        assert not re.search(r"""from\s+["'](?!\./)""", text) or path.parent.name == "vendor", path.name
    for page in ("index.html", "login.html"):
        text = (STATIC / page).read_text(encoding="utf-8")
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=|javascript:", text), page


def test_files_are_sent_packed_and_only_those(client: TestClient) -> None:
    for path in sent():
        name = path.relative_to(STATIC).as_posix()
        answer = client.get(f"/static/{name}")
        if path.suffix == ".html":
            assert answer.status_code == 404
            continue
        assert answer.content == path.read_bytes()
        assert answer.headers["content-encoding"] == "gzip"
        again = client.get(f"/static/{name}", headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304
    for name in ("../app.py", "..%2fapp.py", "vendor", "", "vendor/../../app.py", "//etc/passwd"):
        assert client.get(f"/static/{name}").status_code in (404, 307), name


def test_every_page_of_a_person_is_the_shell(client: TestClient) -> None:
    for path in ("/", "/anomalies", "/emp", "/map", "/sky", "/sql", "/about", "/file", "/star/gaia:5"):
        page = client.get(path)
        assert page.status_code == 200
        assert page.headers["content-type"].startswith("text/html")
        assert page.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
