"""Pictures of candidates: files of the right kind, the same each time, refusals in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from specclip_search.errors import QueryError
from specclip_search.queries.emp.pictures import draw, histogram, sky_map

pytest.importorskip("matplotlib")


@pytest.fixture
def candidates() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    n = 60
    frame = pd.DataFrame(
        {
            "ra": rng.uniform(0, 360, n),
            "dec": np.degrees(np.arcsin(rng.uniform(-1, 1, n))),
            "probability": np.sort(rng.uniform(0, 1, n))[::-1],
            "feh": rng.normal(-2.6, 0.3, n),
            "flags": np.where(rng.random(n) < 0.2, "low_snr carbon_enhanced", ""),
        }
    )
    frame.loc[3, ["ra", "dec", "feh"]] = np.nan
    frame.attrs["options"] = {"below": -2.0}
    return frame


def test_pictures_are_written_and_say_what_they_show(candidates: pd.DataFrame, tmp_path: Path) -> None:
    drawn = {name: name.startswith("g") for name in ("galactic.svg", "equatorial.svg")}
    for name, galactic in drawn.items():
        sky_map(candidates, tmp_path / name, galactic)
    histogram(candidates, tmp_path / "feh.pdf")
    draw(candidates, tmp_path / "both.png")
    assert (tmp_path / "both.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "feh.pdf").read_bytes()[:4] == b"%PDF"
    texts = [(tmp_path / name).read_text() for name in drawn]
    assert "59 candidates below [Fe/H] = -2: Galactic" in texts[0]
    assert "1 more without position" in texts[0]
    assert "equatorial (ICRS)" in texts[1]
    carbon = int(candidates["flags"].str.contains("carbon").sum())
    assert f"carbon-enhanced ({carbon})" in texts[0]


def test_the_same_candidates_give_the_same_bytes(candidates: pd.DataFrame, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        sky_map(candidates, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_refusals(candidates: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match=r"must be one of \.png"):
        draw(candidates, tmp_path / "map.jpeg")
    with pytest.raises(QueryError, match="has a position"):
        sky_map(candidates.drop(columns="ra"), tmp_path / "map.png")
    with pytest.raises(QueryError, match="estimate of"):
        histogram(candidates.assign(feh=np.nan), tmp_path / "feh.png")
    assert not list(tmp_path.iterdir())
