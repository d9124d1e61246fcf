"""What every test may use: the real spectra beside the repository, and small atlases."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# before numpy, torch or FAISS are imported: threads that wait for each other burn a busy machine's time
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")

REPOSITORY = Path(__file__).resolve().parents[1]

# no property is tested against the clock: a slow machine is no fault
_unhurried: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
}
settings.register_profile("specclip-search", max_examples=60, **_unhurried)
# `make harden`: pytest --hypothesis-profile=harden
settings.register_profile("harden", max_examples=2000, **_unhurried)
settings.load_profile("specclip-search")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real spectra and reference numbers; the test is skipped where it is absent."""
    folder = Path(os.environ.get("SPECCLIP_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real spectra and reference numbers are not at {folder} (set SPECCLIP_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def cases(shared_data: Path) -> Path:
    """Folder of small files that gave real trouble, each with a README of what is right."""
    folder = shared_data.parent / "cases"
    if not folder.is_dir():
        pytest.skip(f"the files of known trouble are not at {folder}")
    return folder


@pytest.fixture(scope="session")
def lsdb() -> Any:
    """LSDB, where it is installed; not compiled, which for a few tiles would take longer than they do."""
    numba = pytest.importorskip("numba", reason="LSDB is not installed")
    before, numba.config.DISABLE_JIT = numba.config.DISABLE_JIT, True
    try:
        return pytest.importorskip("lsdb", reason="LSDB is not installed")
    finally:
        numba.config.DISABLE_JIT = before
