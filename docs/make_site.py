"""Build the documentation site: the pages of this repository and a reference made from the code.

    python docs/make_site.py            # writes build/site; needs mkdocs (the extra docs), no network
    python docs/make_site.py --pages    # writes the pages alone, to build/docs
"""

from __future__ import annotations

import inspect
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "build" / "docs"
COPIED = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "CITATION.cff", "LICENSE",
          "training/weights/mini/MODEL_CARD.md")
HEADER = ("| column | type | unit | UCD | definition |", "|---|---|---|---|---|")
COLUMNS_INTRODUCTION = """# Columns and scores

Definitions that travel with every table: in the metadata of Parquet, VOTable and FITS files.
[atlas_format.md](../atlas_format.md) describes the folders.
"""
_SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}$", re.M)


def commands_page() -> str:
    """Every command with its arguments and options, as `--help` shows them."""
    import typer.cli
    import typer.main

    from specclip_search.cli.main import PROGRAM, app

    program: Any = typer.main.get_command(app)
    context = program.make_context(PROGRAM, [], resilient_parsing=True)
    found = ["# Commands", "", *program.help.splitlines(), ""]
    found += [f"- `{', '.join(option.opts)}`: {option.help}" for option in program.get_params(context)]
    for name in program.list_commands(context):
        # a group's own module does not know the name it is called by
        command = program.get_command(context, name)
        command.name = name
        found += ["", typer.cli.get_docs_for_click(obj=command, ctx=context, indent=1, call_prefix=PROGRAM)]
    return re.sub(r"<(?=[A-Za-z/])", "&lt;", "\n".join(found))


def python_page() -> str:
    """Every public name with its signature and docstring."""
    import specclip_search

    found = ["# Python", "", "All names are imported from `specclip_search`.", ""]
    for name in sorted(specclip_search.__all__, key=str.lower):
        thing = getattr(specclip_search, name)
        if inspect.isroutine(thing) or inspect.isclass(thing):
            found += [f"## {name}", "", *_documented(name, thing)]
            for method, function in _methods(thing):
                found += [f"### {name}.{method}", "", *_documented(f"{name}.{method}", function)]
    return "\n".join(found) + "\n"


def _methods(thing: Any) -> Iterator[tuple[str, Any]]:
    if inspect.isclass(thing) and thing.__module__.startswith("specclip_search"):
        for method, function in vars(thing).items():
            plain = getattr(function, "__func__", function)
            if not method.startswith("_") and inspect.isfunction(plain) and plain.__doc__:
                yield method, plain


def _documented(name: str, thing: Any) -> list[str]:
    try:
        signature = str(inspect.signature(thing))
    except ValueError:
        signature = "(...)"
    return ["```python", f"{name}{signature}", "```", "", numpy_to_markdown(inspect.getdoc(thing) or ""), ""]


def numpy_to_markdown(text: str) -> str:
    """A NumPy docstring with bold headings, its parameters as a list, and examples as code."""
    parts = _SECTION.split(text)
    found = [parts[0].strip()]
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        found += ["", f"**{title.strip()}**", ""]
        if title.strip() == "Examples":
            found += ["```pycon", body.strip(), "```"]
            continue
        lines = body.strip("\n").splitlines()
        for line, following in zip(lines, [*lines[1:], ""], strict=True):
            if line and not line.startswith(" ") and following.startswith("    "):
                found.append(f"- `{line.strip()}`:")
            else:
                found.append(line if line.startswith(" ") or not line else line.strip())
    return "\n".join(found)


def tables() -> list[tuple[str, pa.Schema]]:
    """Tables of an atlas and of results: where each is, and its columns."""
    from specclip_search.atlas import schemas
    from specclip_search.indexing.search.neighbours import neighbour_schema
    from specclip_search.ingest.rows import WAITING
    from specclip_search.queries.anomalies.listing import anomalies_schema
    from specclip_search.queries.emp.schema import emp_schema
    from specclip_search.queries.maps.map import map_schema
    from specclip_search.queries.space.windows import WindowSet
    from specclip_search.queries.translation.schema import translations_schema
    from specclip_search.surveys import MODALITIES, PAIR

    return [
        *((f"spectra/{name}", modality.schema) for name, modality in MODALITIES.items()),
        ("observed/INSTRUMENT", schemas.observed_schema(True)),
        ("rejected/INSTRUMENT", schemas.REJECTED),
        ("waiting/INSTRUMENT", WAITING),
        ("vectors/MODEL/INSTRUMENT", schemas.vectors_schema(768)),
        ("estimates/MODEL/INSTRUMENT", schemas.estimates_schema()),
        ("translations/MODEL", translations_schema(*map(WindowSet.of, PAIR))),
        ("results/anomalies", anomalies_schema()),
        ("results/emp", emp_schema()),
        ("results/map", map_schema()),
        ("results/neighbours", neighbour_schema(32)),
    ]


def columns_page() -> str:
    """Every column of the atlas and of results, with its type, unit, UCD and definition."""
    from specclip_search.atlas.schemas import said_of
    from specclip_search.tables.meanings import all_known

    found = [COLUMNS_INTRODUCTION]
    for name, schema in tables():
        found += [f"## {name}", "", *HEADER]
        for field in schema:
            said = said_of(field)
            found.append(_row(field.name, str(field.type), said))
        found.append("")
    found += ["## By name", "", "Of results, and of catalogues that bring no definition of their own.", "", *HEADER]
    found += [_row(name, "", said) for name, said in sorted(all_known().items())]
    return "\n".join(found) + "\n"


def _row(name: str, kind: str, said: dict[str, str]) -> str:
    cells = (f"`{name}`", kind, said.get("unit", ""), said.get("ucd", ""), said.get("description", ""))
    return "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |"


REFERENCE = {"commands": commands_page, "python": python_page, "columns": columns_page}


def write_pages(folder: Path) -> None:
    """Copy the repository's pages to a folder, in the same places, and write the reference beside them."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "docs", folder / "docs", ignore=shutil.ignore_patterns("*.py", "*.yml", "__pycache__"))
    for name in COPIED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "docs" / "reference").mkdir()
    for name, page in REFERENCE.items():
        (folder / "docs" / "reference" / f"{name}.md").write_text(page(), encoding="utf-8")


def build(pages: Path, site: Path) -> None:
    """Build the site from the pages; a link that leads nowhere is an error."""
    from mkdocs.commands.build import build as build_site
    from mkdocs.config import load_config

    config = load_config(str(ROOT / "docs" / "mkdocs.yml"), docs_dir=str(pages), site_dir=str(site), strict=True)
    build_site(config)


def main() -> None:
    write_pages(PAGES)
    if "--pages" not in sys.argv:
        build(PAGES, ROOT / "build" / "site")


if __name__ == "__main__":
    main()
