"""The wheel as users install it: one name at top level, its data with it, used from any folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from specclip_search import __version__

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ("specclip_search", "training", "indexing", "queries")

USED = """
from pathlib import Path

import specclip_search
from specclip_search import Atlas, read_spectrum, similar
from specclip_search.queries.anomalies.identity import load_identity
from specclip_search.queries.report import report
from specclip_search.simulation.spectra.emulator import Emulator
from specclip_search.training.fit.recipe import load_recipe, shipped_recipes
from specclip_search.training.model import load_model
from specclip_search.training.xp_metallicity.networks import load_network
from specclip_search.training.xp_metallicity.trees import load_trees

folder = Path(specclip_search.__file__).resolve().parent
assert folder.parent == Path({installed!r}).resolve(), folder
assert Path(report.__file__).resolve().is_relative_to(folder)
assert load_model("mini").dim > 0
assert len(shipped_recipes()) >= 9 and load_recipe("own").name == "own"
assert load_network() is not None and load_trees() is not None and load_identity() is not None
assert Emulator.load() is not None
assert list((Path(report.__file__).parent / "templates").iterdir())
assert (folder / "py.typed").exists()
print("all there")
"""


def ran(*command: str | Path, folder: Path, packages: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([sys.executable, *map(str, command)], cwd=folder, capture_output=True, text=True, check=False,
                          env=environment | {"PYTHONPATH": str(packages)})
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the working tree, built beside it."""
    setuptools = pytest.importorskip("setuptools", reason="the wheel is built without network: setuptools is not here")
    if int(setuptools.__version__.split(".")[0]) < 77:
        pytest.skip(f"the wheel needs setuptools 77; found {setuptools.__version__}")
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheels")
    for name in SOURCE:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    return made_wheel(tree, out)


def made_wheel(tree: Path, out: Path) -> Path:
    """Built from a tree without network; the archive's time stamps are given."""
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation",
                    "--disable-pip-version-check", "--wheel-dir", out, tree], check=True,
                   env=os.environ | {"SOURCE_DATE_EPOCH": "1700000000"})
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index",
                    "--disable-pip-version-check", "--target", folder, wheel], check=True)
    return folder


def test_every_file_of_ours_is_in_it_under_one_name(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"specclip_search"}
    inside = {name.removeprefix("specclip_search/") for name in names}
    listed = subprocess.run(["git", "ls-files", *SOURCE], cwd=ROOT, capture_output=True, text=True, check=False)
    files = listed.stdout.split("\n")[:-1] or [str(f.relative_to(ROOT)) for name in SOURCE
                                              for f in (ROOT / name).rglob("*.py")]
    missing = [file for file in files if (ROOT / file).exists()
               and file.removeprefix("specclip_search/") not in inside and not file.endswith(".md")]
    assert missing == []


def test_a_tree_has_one_wheel(wheel: Path, tmp_path: Path) -> None:
    """Built again elsewhere, from files of another age, it is the same byte for byte."""
    with zipfile.ZipFile(wheel) as archive:
        assert {info.date_time[0] for info in archive.infolist()} == {2023}
    tree = tmp_path / "tree"
    for name in SOURCE:
        # not the files' own times
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"),
                        copy_function=shutil.copy)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    assert made_wheel(tree, tmp_path / "out").read_bytes() == wheel.read_bytes()


def test_it_is_used_beside_files_with_common_names(installed: Path, tmp_path: Path) -> None:
    for name in ("queries.py", "training.py", "indexing.py", "version.py"):
        (tmp_path / name).write_text("raise SystemExit('a file of the user was imported')\n")
    assert __version__ in ran("-m", "specclip_search", "--version", folder=tmp_path, packages=installed)
    shown = ran("-c", USED.format(installed=str(installed)), folder=tmp_path, packages=installed)
    assert shown.strip() == "all there"
