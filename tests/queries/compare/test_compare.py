"""`compare` on an atlas: catalogues, pipelines within one, columns with obsid alone, and what cannot be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specclip_search.atlas import Atlas
from specclip_search.catalogs.ingest import ingest_catalog
from specclip_search.errors import QueryError
from specclip_search.queries.compare.compare import compare
from specclip_search.queries.compare.picture import plot_comparison

from ..small_atlas import fill

STARS = 400
SOURCE = 5853418002145112704


def _catalogue(path: Path, columns: dict[str, Any]) -> Path:
    names = list(columns)
    rows = zip(*(columns[name] for name in names), strict=True)
    path.write_text("\n".join([",".join(names), *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    """A small atlas with three catalogues more, of stars of their own."""
    folder = tmp_path_factory.mktemp("catalogues")
    small = Atlas.create(folder / "atlas")
    fill(small)
    rng = np.random.default_rng(4)
    source_id = SOURCE + np.arange(STARS)
    teff, feh = rng.uniform(4500, 6500, STARS), rng.uniform(-1.5, 0.3, STARS)
    high = {"source_id": source_id, "teff": teff, "e_teff": np.full(STARS, 20.0), "feh": feh}
    gaia = {
        "source_id": source_id[:300], "teff_gspphot": teff[:300] + 100 + rng.normal(0, 30, 300),
        "teff_gspphot_lower": teff[:300] + 70, "teff_gspphot_upper": teff[:300] + 130,
        "mh_gspphot": feh[:300] - 0.2 + rng.normal(0, 0.05, 300), "teff_gspspec": teff[:300] + rng.normal(0, 40, 300),
    }
    obsid = 900_000_000 + np.arange(STARS)
    lasp = {"obsid": obsid, "teff_lasp": teff - 50 + rng.normal(0, 30, STARS)}
    for name, columns in {"high": high, "ap": gaia, "lasp": lasp}.items():
        ingest_catalog(small, name, _catalogue(folder / f"{name}.csv", columns))
    pairs = _catalogue(folder / "pairs.csv", {"obsid": obsid, "source_id": source_id})
    ingest_catalog(small, "pairs", pairs)
    return small


def test_pipelines_are_told_apart_and_their_offsets_found(atlas: Atlas) -> None:
    offsets = compare(atlas, ["teff"], ["high", "ap.gspphot", "ap.gspspec", "lasp"], "high").set_index("source")
    assert offsets["offset"].to_dict() == pytest.approx(
        {"high": 0.0, "ap.gspphot": 100.0, "ap.gspspec": 0.0, "lasp": -50.0}, abs=8
    )
    assert offsets.loc["lasp", "n"] == STARS
    assert offsets.loc["ap.gspphot", "scatter"] == pytest.approx(30, rel=0.4)
    metals = compare(atlas, ["feh"], ["high", "ap.gspphot"], show="pairs")
    assert metals["bias"].abs().to_list() == pytest.approx([0.2], abs=0.02)
    errors = compare(atlas, ["teff"], ["high", "ap.gspphot"], show="pairs")
    assert errors["pull"].to_list() == pytest.approx([30 / np.hypot(20, 30)], rel=0.25)


def test_stars_of_which_one_source_disagrees_are_listed(atlas: Atlas, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    ids = SOURCE + np.arange(STARS)
    base = compare(atlas, ["teff"], ["high", "lasp"], show="pairs")
    assert base["n"].to_list() == [STARS]
    values = atlas.sql("SELECT source_id, teff FROM high ORDER BY source_id").fetchnumpy()["teff"].copy()
    values += rng.normal(0, 20, STARS)
    values[7] += 2500
    ingest_catalog(atlas, "fourth", _catalogue(tmp_path / "fourth.csv", {"source_id": ids, "teff": values}))
    stars = compare(atlas, ["teff"], ["high", "lasp", "fourth"], show="stars")
    assert stars["source_id"].iloc[0] == SOURCE + 7
    assert stars["source_id"].dtype == np.int64
    assert stars["odd_source"].iloc[0] == "fourth"
    assert stars["deviation"].iloc[0] == pytest.approx(2500, abs=150)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"labels": ["mass"]}, "cannot be compared"), ({"sources": ["nobody"]}, "no source of labels 'nobody'"),
        ({"labels": ["c_fe"], "sources": ["high", "lasp"]}, "two are needed"),
        ({"sources": ["high", "lasp"], "reference": "ap"}, "not among the sources"),
        ({"show": "all"}, "must be one of"),
        ({"sources": ["high"]}, "Nothing can be compared"), ({"sources": ["high", "lasp"], "by": "nope"}, "nope"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused(atlas: Atlas, options: dict[str, Any], said: str) -> None:
    with pytest.raises(QueryError, match=said):
        compare(atlas, **options)


def test_the_picture_is_drawn(atlas: Atlas, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib (extra 'plots') is not installed")
    plot_comparison(atlas, tmp_path / "teff.png", "teff", ["high", "lasp", "ap.gspphot"])
    assert (tmp_path / "teff.png").read_bytes().startswith(b"\x89PNG")
