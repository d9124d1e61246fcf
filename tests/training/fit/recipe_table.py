"""The table of a recipe's settings as `docs/training.md` has it, from the settings themselves.

    python tests/training/fit/recipe_table.py            # writes it into docs/training.md
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(REPOSITORY))

from specclip_search.training.fit.recipe import Recipe  # noqa: E402

PAGE = REPOSITORY / "docs" / "training.md"
BEGIN = "| setting | default | meaning |\n"


def meanings(kind: type) -> dict[str, str]:
    """The string that stands under each field."""
    body = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)):
            found[field.target.id] = " ".join(str(text.value.value).split())
    return found


def as_toml(value: Any) -> str:
    """A default as one writes it in a recipe."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def lines(kind: type = Recipe, table: str = "") -> Iterator[str]:
    """One line of the table a setting; tables follow the settings outside any."""
    hints, meaning, later = get_type_hints(kind), meanings(kind), []
    for field in fields(kind):
        if is_dataclass(hints[field.name]):
            later.append((hints[field.name], field.name))
            continue
        default = "" if field.default is MISSING else f"`{as_toml(field.default)}`"
        name = f"`[{table}] {field.name}`" if table else f"`{field.name}`"
        yield f"| {name} | {default} | {meaning[field.name]} |"
    for inner, name in later:
        yield from lines(inner, name)


def with_table(text: str) -> str:
    """The document with its table replaced by what the settings say."""
    before, rest = text.split(BEGIN)
    after = rest[rest.index("\n\n") :]
    return before + "\n".join([BEGIN + "|---|---|---|", *lines()]) + after


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
