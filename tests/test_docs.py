"""The pages: links lead somewhere, examples name options that exist, and the reference misses nothing."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import click
import pytest
import typer.main

import specclip_search
from specclip_search.cli.main import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
# made by docs/make_site.py
GLOBAL = {"--help", "--version", "--allow-partial"}
GENERATED = {f"docs/reference/{name}.md" for name in ("commands", "python", "columns")}
_FENCED = re.compile(r"^```.*?^```", re.M | re.S)


@pytest.fixture(scope="module")
def make_site() -> Any:
    spec = importlib.util.spec_from_file_location("make_site", ROOT / "docs" / "make_site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    text = _FENCED.sub("", page.read_text("utf-8"))
    headings = re.findall(r"^#+ +(.+?) *$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", heading).lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", _FENCED.sub("", page.read_text("utf-8")))
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        found = (page.parent / file).resolve() if file else page
        if str(found.relative_to(ROOT)) in GENERATED:
            continue
        if not found.exists() or (anchor and anchor not in anchors(found)):
            wrong.append(target)
    assert wrong == []


def commands() -> dict[str, Any]:
    """Commands by their whole names."""

    def walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
        yield path, command
        if hasattr(command, "list_commands"):
            context = click.Context(command)
            for name in command.list_commands(context):
                yield from walk(command.get_command(context, name), f"{path} {name}".strip())

    return dict(walk(typer.main.get_command(app), ""))


COMMANDS = commands()


def calls(page: Path) -> list[str]:
    """Calls of the program in a page's code blocks."""
    blocks = re.findall(r"^```(?:sh|text|console)?\n(.*?)^```|((?:^    .*\n)+)", page.read_text("utf-8"), re.M | re.S)
    lines = "\n".join(fenced or indented for fenced, indented in blocks).replace("\\\n", " ").splitlines()
    found = [re.match(r"\s*(?:\$ )?specclip-search (.*)", line) for line in lines]
    return [line[1] for line in found if line]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_name_commands_and_options_that_exist(page: Path) -> None:
    for call in calls(page):
        words = list(takewhile(lambda word: word not in ("&", "&&", "|", ">"), shlex.split(call, comments=True)))
        group = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0]
        assert group in COMMANDS, call
        known = {option for one in COMMANDS[group].params for option in (*one.opts, *one.secondary_opts)} | GLOBAL
        for word in words:
            if re.match(r"--?[a-z]", word):
                assert word.partition("=")[0] in known, f"{word} of: {call}"


def test_the_tutorial_goes_from_files_to_candidates() -> None:
    used = {" ".join(call.split()[:2]) if call.split()[0] in ("ingest", "index") else call.split()[0]
            for call in calls(ROOT / "docs" / "tutorial.md")}
    assert {"ingest lamost", "ingest gaia-xp", "embed", "index build", "similar", "emp", "anomalies", "export"} <= used


def test_the_reference_has_every_command_and_option(make_site: Any) -> None:
    page = make_site.commands_page()
    for name, command in COMMANDS.items():
        if not name:
            continue
        heading = f"`specclip-search {name}`\n"
        assert heading in page, name
        section = page.split(heading)[1].split("\n##")[0]
        for parameter in command.params:
            if parameter.param_type_name == "option" and not parameter.hidden:
                assert all(option in section for option in parameter.opts), (name, parameter.opts)
                assert parameter.help, (name, parameter.opts)


def test_the_reference_has_every_public_name_and_column(make_site: Any) -> None:
    page = make_site.python_page()
    for name in set(specclip_search.__all__) - {"__version__", "LAMOST_LRS", "GAIA_XP"}:
        assert f"\n## {name}\n" in page, name
    assert "**Parameters**" in page
    assert not re.search(r"^-{4,}$", page, re.M)
    columns = make_site.columns_page()
    undefined = []
    for name, schema in make_site.tables():
        for field in schema:
            assert f"| `{field.name}` |" in columns
            if not (field.metadata or {}).get(b"description"):
                undefined.append(f"{name}: {field.name}")
    assert undefined == []


def test_the_atlas_format_names_every_folder_and_key() -> None:
    from specclip_search.atlas.atlas import FORMAT_VERSION

    text = (ROOT / "docs" / "atlas_format.md").read_text("utf-8")
    assert f"# The atlas format, version {FORMAT_VERSION}\n" in text
    source = (ROOT / "specclip_search" / "atlas" / "atlas.py").read_text("utf-8")
    folders = set(re.findall(r'self\.path / "(\w+)"', source))
    assert len(folders) > 9
    assert [folder for folder in folders if f"  {folder}/" not in text] == []


def test_the_site_is_built_without_dead_links(make_site: Any, tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install 'specclip-search[docs]'")
    make_site.write_pages(tmp_path / "pages")
    make_site.build(tmp_path / "pages", tmp_path / "site")
    assert "pos.eq.ra" in (tmp_path / "site" / "docs" / "reference" / "columns.html").read_text("utf-8")
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 25
    # it needs no other machine
    assert [page.name for page in pages
            if re.search(r'<(?:script|link)[^>]+(?:src|href)="https?://', page.read_text("utf-8"))] == []
