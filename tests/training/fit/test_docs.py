"""`docs/training.md` says what the settings are, and its recipes load."""

from __future__ import annotations

import re
import tomllib

from specclip_search.training.checkpoints.settings import read_settings
from specclip_search.training.fit.recipe import Backbones, load_recipe, shipped_recipes

from .recipe_table import PAGE, lines, with_table

TEXT = PAGE.read_text(encoding="utf-8")


def test_every_setting_stands_in_the_table_with_its_default_and_meaning() -> None:
    assert with_table(TEXT) == TEXT, "run: python tests/training/fit/recipe_table.py"
    for line in lines():
        name, meaning = line.split(" | ")[0], line.split(" | ")[-1]
        assert len(meaning) > 10, name


def test_recipes_and_examples_are_there() -> None:
    named = set(re.findall(r"specclip-search train (\S+) ", TEXT)) | set(re.findall(r"training\.launch (\S+) ", TEXT))
    assert {name for name in named if not name.endswith(".toml")} <= set(shipped_recipes())
    assert all(f"`{name}`" in TEXT for name in shipped_recipes())
    example = tomllib.loads(re.findall(r"```toml\n(.*?)```", TEXT, re.S)[0])
    assert read_settings(Backbones, example["backbones"], "example").frozen


def test_the_recipe_for_an_atlas_of_ones_own_needs_no_catalogue() -> None:
    own, mini = load_recipe("own"), load_recipe("mini")
    assert own.kind == mini.kind
    assert (own.data.labels, own.loss.label, own.model.label_hidden) == ((), 0.0, 0)
