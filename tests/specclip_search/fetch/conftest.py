"""The archive in this process, with stars of which some have no spectrum."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.table import Table

from specclip_search.fetch.patience import Patience

from ... import dr4_files
from .archive_server import FakeArchive, serving

STARS = 24


@pytest.fixture
def naps() -> list[float]:
    """Seconds that a download would have slept."""
    return []


@pytest.fixture
def patience(naps: list[float]) -> Patience:
    return Patience(tries=4, wait=2.0, pause=0.0, timeout=20.0, sleep=naps.append)


@pytest.fixture
def archive(shared_data: Path, tmp_path: Path) -> Iterator[FakeArchive]:
    """24 DR4 stars; the archive has no spectrum of every eighth. The same stars of DR3 are in ``dr3.csv``."""
    old, new, _ = dr4_files.write_both(shared_data, tmp_path, STARS)
    heading, *lines = new.read_text("utf-8").splitlines()
    new.unlink()
    old.rename(tmp_path / "dr3.csv")
    ids = [int(line.split(",")[1]) for line in lines]
    stars = Table({"source_id": np.array(ids, np.int64), "ra": 100 + np.arange(STARS) * 0.01,
                   "dec": np.full(STARS, 20.0), "pmra": np.linspace(-5, 5, STARS)})
    stars["ra"].unit = stars["dec"].unit = u.deg
    stars["pmra"].unit = u.mas / u.yr
    made = FakeArchive(heading, {star: line for place, (star, line) in enumerate(zip(ids, lines, strict=True))
                                 if place % 8 != 5}, stars)
    with serving(made):
        yield made
