"""`export --hats`: spectra and vectors as nested columns that LSDB opens and joins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from specclip_search.atlas import Atlas
from specclip_search.cli.main import run
from specclip_search.indexing.vectors.embed import embed
from specclip_search.ingest import ingest_gaia_xp
from specclip_search.readers.surveys.mmu import is_mmu
from specclip_search.surveys import GAIA_XP, XP
from specclip_search.training.model import load_model


@pytest.fixture(scope="module")
def atlas(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    """Five real XP stars with positions and vectors, and one without a position."""
    made = Atlas.create(tmp_path_factory.mktemp("nested") / "atlas")
    ingest_gaia_xp(made, [shared_data / "gaia_xp" / "sampled" / "XP_SAMPLED_RAW_dr3int6.csv"], workers=1)
    ingest_gaia_xp(made, [shared_data / "gaia_xp" / "continuous" / "18Sco-XP-spectra.csv"], workers=1)
    embed(made, load_model("mini"))
    return made


def ran(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        run(list(arguments))
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def exported(atlas: Atlas, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "xp"
    assert ran("export", f"spectra_{XP}", "--hats", "-o", str(folder), "-a", str(atlas.path)) == 0
    return folder


def test_the_files_are_structures_of_lists(atlas: Atlas, exported: Path) -> None:
    from specclip_search.readers.content import look

    files = sorted((exported / "xp" / "dataset").rglob("*.parquet"))
    table = pa.concat_tables([pq.ParquetFile(file).read() for file in files])
    rows = {row["spec_id"]: row for row in table.to_pylist()}
    own = {row["spec_id"]: row for row in atlas.spectra(XP).read().to_pylist()}
    vectors = {row["spec_id"]: row["vector"] for row in atlas.vectors("mini", XP).read().to_pylist()}
    assert set(rows) == {key for key, row in own.items() if row["ra"] is not None}
    assert len(rows) == 2
    for key, row in rows.items():
        np.testing.assert_array_equal(row["model_spectrum"]["wavelength"], GAIA_XP.wavelength)
        np.testing.assert_array_equal(row["model_spectrum"]["flux"], own[key]["flux"])
        np.testing.assert_allclose(row["model_spectrum"]["error"], np.array(own[key]["error"], np.float32))
        np.testing.assert_array_equal(row["model_vector"]["value"], np.array(vectors[key], np.float32))
    assert table.schema.field("source_id").type == pa.int64()
    # these are the model's inputs: never read back as observed spectra
    assert not is_mmu(look(files[0]))


def test_lsdb_opens_and_joins_them(exported: Path, lsdb: Any) -> None:
    opened = lsdb.open_catalog(exported)
    frame = opened.compute(progress_bar=False)
    assert frame["model_spectrum"].iloc[0]["flux"].shape == (343,)
    assert frame["model_vector"].iloc[0]["value"].shape == (768,)
    sub = lsdb.open_catalog(exported, columns=["source_id", "ra", "dec", "model_spectrum.flux"])
    assert sub.compute(progress_bar=False)["model_spectrum.flux"].shape == (2 * 343,)
    matched = opened.crossmatch(opened, radius_arcsec=1.0, suffixes=("_a", "_b")).compute(progress_bar=False)
    assert len(matched) == 2
    assert (matched["source_id_a"] == matched["source_id_b"]).all()
    one, two = (matched[f"model_vector_{side}"].iloc[0]["value"] for side in "ab")
    np.testing.assert_array_equal(one, two)


def test_what_is_no_view_of_spectra(atlas: Atlas, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ran("export", "stars", "--hats", "-o", str(tmp_path / "a"), "-a", str(atlas.path)) == 2
    assert f"Give one of spectra_{XP}" in capsys.readouterr().err
    assert ran("export", f"spectra_{XP}", "--hats", "-f", "csv", "-o", str(tmp_path / "a"), "-a", str(atlas.path)) == 2
    assert "Nested columns are for hats" in capsys.readouterr().err
