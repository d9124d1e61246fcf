"""A real LAMOST survey in small, with its wrecks."""

from __future__ import annotations

import importlib.util
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Survey:
    folder: Path
    good: list[Path]
    reasons: Counter = field(default_factory=Counter)


@pytest.fixture(scope="session")
def tools() -> ModuleType:
    return _load("survey")


@pytest.fixture
def survey(shared_data, tmp_path, tools) -> Survey:
    """120 good files in a release's tree and 24 wrecks among them."""
    originals = sorted((shared_data / "lamost").rglob("*.fits.gz"))[:40]
    made = Survey(tmp_path / "dr", tools.good_files(originals, tmp_path / "dr", 120))
    for number in range(24):
        _, reason = tools.wreck(made.good[number], tmp_path / "dr" / "20170101" / "WRECKS", number)
        made.reasons[reason] += 1
    return made
