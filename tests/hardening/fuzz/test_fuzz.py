"""A small share of the fuzzer, always on, and every input that was once a fault; `make harden` runs the whole."""

from __future__ import annotations

import importlib
import random
import sys
import time
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).parent
SHARE_CPU_SECONDS = 8.0
MOST_INPUTS = 12


def _module(name: str) -> ModuleType:
    sys.path.insert(0, str(HERE.parents[2]))
    try:
        return importlib.import_module(f"tests.hardening.fuzz.{name}")
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module")
def fuzz(shared_data: Path) -> Any:
    run = _module("run")
    return run, {seed.name: seed for seed in run.seeds(shared_data)}


def test_a_small_share_of_damaged_inputs_gives_rows_or_our_own_errors(fuzz: Any, tmp_path: Path) -> None:
    run, seeds = fuzz
    began, faults, tried = time.process_time(), [], 0
    for number in range(MOST_INPUTS):
        for seed in seeds.values():
            if time.process_time() - began > SHARE_CPU_SECONDS:
                break
            outcome, splices, _ = run.one(seed, number, tmp_path, cpu_seconds=30.0)
            tried += 1
            if outcome not in ("accepted", "refused"):
                faults.append((seed.name, number, outcome, splices))
    assert faults == []
    assert tried >= len(seeds)


def test_the_seeds_themselves_are_accepted(fuzz: Any, tmp_path: Path) -> None:
    run, seeds = fuzz
    for seed in seeds.values():
        (tmp_path / "input").write_bytes(seed.data)
        outcome, trace = run.attempt(seed, tmp_path / "input", 60.0)
        assert outcome == "accepted", (seed.name, outcome, trace)


def test_inputs_that_were_once_faults(fuzz: Any, tmp_path: Path) -> None:
    run, seeds = fuzz
    found = _module("found").FOUND
    assert found
    for name, change in found:
        seed = next(seed for full, seed in seeds.items() if all(word in full for word in name.split()))
        splices = change(seed.data)
        (tmp_path / "input").write_bytes(run.apply(seed.data, splices))
        outcome, trace = run.attempt(seed, tmp_path / "input", 30.0)
        assert outcome in ("accepted", "refused"), (name, splices, trace)


def test_splices_are_applied_at_the_originals_offsets() -> None:
    mutations = _module("mutations")
    assert mutations.apply(b"0123456789", [(0, 0, b"a"), (2, 4, b""), (8, 10, b"xyz")]) == b"a014567xyz"
    for kind in ("fits", "text", "xml", "binary"):
        for number in range(200):
            data = b"SIMPLE  =                    T" + b"a,b\n1,2\n" * 40
            splices = mutations.mutate(data, kind, random.Random(number))
            assert all(before[1] <= after[0] for before, after in pairwise(splices))
