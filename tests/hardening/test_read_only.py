"""An atlas that may be read and not written: stored results are answered from, refusals name the file."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from specclip_search.atlas import Atlas

from ..queries.toy_survey import FIRST_SOURCE

PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2


def without_rights() -> None:
    """Give up what lets the administrator pass over the rights of files."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None)
        for right in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
            libc.prctl(PR_CAPBSET_DROP, right, 0, 0, 0)


def ask(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the program as a user who has only the rights that files give."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "from specclip_search.cli.main import run; run()", *words]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, preexec_fn=without_rights
    )


@pytest.fixture
def readable(copied: Atlas) -> Iterator[Atlas]:
    """The copy, readable by all and writable by nobody."""
    for path in [copied.path, *copied.path.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    probe = subprocess.run(["touch", str(copied.path / "probe")], check=False, capture_output=True,
                           preexec_fn=without_rights)
    if probe.returncode == 0:
        pytest.skip("this system lets the user write to folders that are read-only")
    yield copied
    for path in [copied.path, *copied.path.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)


def test_a_read_only_atlas_answers_from_what_is_stored(readable: Atlas, tmp_path: Path) -> None:
    where = ["--atlas", str(readable.path), "-f", "csv"]
    for words in (["anomalies", "--top", "3"], ["similar", f"gaia:{FIRST_SOURCE}", "-k", "3"]):
        done = ask([*words, *where], tmp_path)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 4
    done = ask(["anomalies", "--top", "3", "-k", "20", *where], tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_refusals_name_the_file_and_doctor_names_all(readable: Atlas, tmp_path: Path) -> None:
    names = ("spectra/gaia_xp/part-000001.parquet", "results/anomalies/part-000000.json")
    closed = [readable.path / name for name in names]
    for path in closed:
        path.chmod(0)
    done = ask(["sql", "SELECT * FROM spectra", "--atlas", str(readable.path)], tmp_path)
    assert done.returncode == 2
    assert str(closed[0].name) in done.stderr
    assert "chmod u+r" in done.stderr
    found = ask(["doctor", "-f", "csv", "--atlas", str(readable.path)], tmp_path)
    assert found.returncode == 1
    assert all(path.name in found.stdout for path in closed), found.stdout + found.stderr
