"""What is published: the conda recipe, the Docker image and the citation agree with pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from specclip_search import __version__
from specclip_search.training.checkpoints.shipped import find_model, shipped_models

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
# names on conda-forge that differ from those of PyPI
CONDA = {"astropy": "astropy-base", "duckdb": "python-duckdb", "isal": "python-isal",
         "safetensors": "python-safetensors", "torch": "pytorch"}


def bounds(requirements: list[str]) -> dict[str, str]:
    """Lower bounds by name."""
    found = [re.fullmatch(r"([\w-]+) ?>=([\d.]+)(;.*)?", one) for one in requirements]
    assert all(found), requirements
    return {one[1]: one[2] for one in found if one}


def test_the_conda_recipe_needs_what_the_package_needs() -> None:
    recipe = (ROOT / "recipe" / "meta.yaml").read_text("utf-8")
    run = re.search(r"  run:\n((?:    - .*\n)+)", recipe)
    assert run is not None
    named = bounds(re.findall(r"- (.*)", run[1]))
    assert named.pop("python") == PROJECT["requires-python"].removeprefix(">=")
    wanted = bounds([*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["cpu"]])
    assert named == {CONDA.get(name, name): bound for name, bound in wanted.items()}
    host = re.search(r"setuptools >=(\d+)", recipe)
    assert host is not None
    build = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["build-system"]["requires"]
    assert build == [f"setuptools>={host[1]}"]


def test_the_image_installs_extras_that_exist() -> None:
    texts = [(ROOT / "Dockerfile").read_text("utf-8"), (ROOT / "docs" / "install.md").read_text("utf-8")]
    extras = {extra for text in texts for found in re.findall(r"EXTRAS=([\w,]+)", text) for extra in found.split(",")}
    assert {"cpu", "gpu"} <= extras <= set(PROJECT["optional-dependencies"])


def test_the_citation_names_this_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {__version__}\n" in citation
    assert f"\nlicense: {PROJECT['license']}\n" in citation


def test_every_shipped_model_has_a_card() -> None:
    for name in shipped_models():
        card = (find_model(name) / "MODEL_CARD.md").read_text("utf-8")
        assert card.startswith(f"# Model card: {name}\n")
        assert {"## Training data", "## Measured on real spectra", "## Known failures"} <= set(card.splitlines())
