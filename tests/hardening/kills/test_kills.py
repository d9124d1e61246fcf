"""A few kills of every kind of stage, always on; `make harden` makes a thousand (KILLS=1000)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# a whole that is replaced, an index, an output outside the atlas; the survey that they need is not killed
FEW = "catalogue replaced,index,export parquet"

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="it looks for processes in /proc")


def kill(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(HERE / "run.py"), "--folder", str(tmp_path), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_killed_runs_end_with_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip("faiss", reason="FAISS is not installed")
    done = kill(tmp_path, "--kills", "4", "--seed", "7", "--steps", FEW)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 kills, 0 faults" in done.stdout


def test_a_run_that_does_not_finish_what_it_began_is_found_out(tmp_path: Path) -> None:
    """The harness itself: a writer that appends in place loses or repeats rows."""
    done = kill(tmp_path, "--kills", "3", "--steps", "in place", "--seed", "0")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "atlas/rows.txt differs" in done.stdout
