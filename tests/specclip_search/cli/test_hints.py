"""What hints tell users to type exists: options, commands and keyword arguments."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import typer.main

from specclip_search.cli.main import ALLOW_PARTIAL, COMMANDS, app

SOURCE = Path(__file__).resolve().parents[3]
OTHER_PROGRAMS = re.compile(r"\b(gunzip|pip|git|unzip|python -m|chmod|pd\.read_json)\b[^;]*")


def hints() -> Iterator[tuple[str, str]]:
    """Where a hint stands, and its words with {} for what is filled in: the last argument of every error raised."""
    for base in ("specclip_search", "queries", "indexing", "training"):
        for file in sorted((SOURCE / base).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and len(node.args) >= 2 and _name(node.func).endswith("Error"):
                    text = _words(node.args[-1])
                    if text:
                        yield f"{file.relative_to(SOURCE)}:{node.lineno}", OTHER_PROGRAMS.sub("", text)


def _name(function: ast.expr) -> str:
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")


def _words(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(_words(part) or "{}" for part in node.values)
    if isinstance(node, ast.BinOp):
        return _words(node.left) + _words(node.right)
    if isinstance(node, ast.IfExp):
        return f"{_words(node.body)} {_words(node.orelse)}"
    return ""


@pytest.fixture(scope="module")
def command_line() -> tuple[set[str], set[str]]:
    """All options, and all commands with their sub-commands: `index`, `index build`."""
    options, names = {"--help", "--version"}, set()

    def walk(command: object, name: str) -> None:
        names.add(name)
        for parameter in command.params:  # type: ignore[attr-defined]
            options.update([*parameter.opts, *parameter.secondary_opts])
        for sub, inner in getattr(command, "commands", {}).items():
            walk(inner, f"{name} {sub}")

    group = typer.main.get_command(app)
    options.update(name for parameter in group.params for name in parameter.opts)
    # taken out of the arguments before the command line is parsed: it may stand anywhere
    options.add(ALLOW_PARTIAL)
    for name in COMMANDS:
        walk(group.get_command(None, name), name)  # type: ignore[attr-defined,arg-type]
    return options, names


@pytest.fixture(scope="module")
def keywords() -> set[str]:
    """Names of parameters of all functions and fields of all classes of the package."""
    found: set[str] = set()
    for base in ("specclip_search", "queries", "indexing", "training"):
        for file in (SOURCE / base).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.arguments):
                    found |= {argument.arg for argument in (*node.args, *node.kwonlyargs, *node.posonlyargs)}
                elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                    found.add(node.target.id)
    return found


def test_every_option_that_a_hint_names_exists(command_line: tuple[set[str], set[str]]) -> None:
    options, _ = command_line
    found = [(place, option) for place, text in hints() for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)]
    assert len(found) > 40
    assert [(place, option) for place, option in found if option not in options] == []


def test_every_command_that_a_hint_names_exists(command_line: tuple[set[str], set[str]]) -> None:
    _, names = command_line
    wrong, checked = [], 0
    for place, text in hints():
        for quoted in re.findall(r"`([^`]+)`", text):
            words = quoted.removeprefix("specclip-search ").split()
            if not words or (words[0] not in COMMANDS and not quoted.startswith("specclip-search")):
                continue
            if words[0].startswith(("-", "{")):
                continue
            checked += 1
            subcommands = [name.split()[1] for name in names if name.startswith(f"{words[0]} ")]
            second = words[1] if len(words) > 1 else ""
            has_sub = second in subcommands or not re.fullmatch(r"[a-z][a-z-]+", second)
            if words[0] not in names or (subcommands and not has_sub):
                wrong.append((place, quoted))
    assert checked > 20
    assert wrong == []


def test_every_keyword_that_a_hint_names_exists(keywords: set[str]) -> None:
    found = [(place, name) for place, text in hints() for name in re.findall(r"\b([a-z_]+)=(?:\.\.\.|'|\(|\[)", text)]
    assert found
    assert [(place, name) for place, name in found if name not in keywords] == []


def test_every_name_of_python_that_a_hint_gives_can_be_imported() -> None:
    found = [(place, name) for place, text in hints() for name in re.findall(r"\bspecclip_search(?:\.\w+)+", text)]
    assert found
    for place, name in found:
        module, _, last = name.rpartition(".")
        try:
            there = hasattr(import_module(module), last)
        except ImportError:
            there = False
        assert there, f"{place}: {name}"


def test_every_method_that_a_hint_gives_exists() -> None:
    """`Model.embed`, `Atlas.create`: a class of ours and what it has."""
    classes: dict[str, set[str]] = {}
    for base in ("specclip_search", "queries", "indexing", "training"):
        for file in (SOURCE / base).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    classes.setdefault(node.name, set()).update(
                        item.name for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)
                    )
    found = [(place, owner, name) for place, text in hints()
             for owner, name in re.findall(r"\b([A-Z]\w+)\.([a-z_]\w*)\b", text) if owner in classes]
    assert found
    assert [one for one in found if one[2] not in classes[one[1]]] == []
