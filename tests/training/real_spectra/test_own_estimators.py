"""`train estimators --labels` on real LAMOST spectra whose labels are on another scale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from specclip_search.atlas import Atlas
from specclip_search.catalogs.ingest import ingest_catalog_table
from specclip_search.cli.main import app
from specclip_search.errors import QueryError
from specclip_search.ingest.rows import spectra_table
from specclip_search.queries.evaluation.real import lamost_spectra
from specclip_search.surveys import LAMOST_LRS, LRS
from specclip_search.surveys.batch import prepare_batch
from specclip_search.training.estimators.estimators import load_estimators
from specclip_search.training.model import load_model
from specclip_search.training.real_spectra.own_estimators import fit_to_catalogue

OFFSET = {"teff": 150.0, "logg": 0.2, "feh": -0.15}


@pytest.fixture(scope="module")
def atlas(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    """700 real LAMOST spectra of S/N above 30 with labels on the user's own scale, by obsid; no star is known."""
    import pyarrow as pa

    from specclip_search.indexing.vectors.embed import embed

    table = pd.read_csv(shared_data / "lamost_real" / "labels.csv")
    spectra, _ = lamost_spectra(shared_data)
    good = (table["snrg"] > 30) & table["teff"].between(4500, 7000) & table[["logg", "feh"]].notna().all(axis=1)
    rows = np.flatnonzero(good)[:700]
    chosen = [spectra[row] for row in rows]
    for number, one in enumerate(chosen):
        one.spec_id = 128 * (1000 + number)
        one.meta.pop("source_id")
    made = Atlas.create(tmp_path_factory.mktemp("own") / "atlas")
    prepared = prepare_batch(LAMOST_LRS, chosen)
    kept = spectra_table(LAMOST_LRS, chosen, prepared)
    stage = made.spectra(LRS)
    with stage.lock():
        stage.write(0, kept, schema=kept.schema, inputs="own")
    ids = np.array([one.spec_id for one in chosen], np.int64)
    labels = {name: table[name].to_numpy()[rows] + offset for name, offset in OFFSET.items()}
    ingest_catalog_table(made, "mine", pa.table({"obsid": ids, **labels}))
    ingest_catalog_table(made, "few", pa.table({"obsid": ids[:40], "teff": labels["teff"][:40]}))
    embed(made, load_model("mini"), [LRS])
    return made


def test_estimators_take_the_catalogues_scale_and_say_their_errors(atlas: Atlas) -> None:
    base = load_estimators(load_model("mini"))
    answer = CliRunner().invoke(
        app, ["train", "estimators", "--labels", "mine", "--model", "mini", "--atlas", str(atlas.path)]
    )
    assert answer.exit_code == 0, answer.output
    assert "before and after" in answer.stderr
    own = load_estimators(load_model(atlas.model_folder("mini")))
    assert base is not None
    assert own is not None
    assert own.digest != base.digest
    # what is shipped stays
    assert load_estimators(load_model("mini")).digest == base.digest  # type: ignore[union-attr]
    rows: dict[str, Any] = {row["label"]: row for row in own.metrics["own_catalogue"]["comparison"]}
    for name, offset in OFFSET.items():
        row = rows[name]
        assert row["before"]["bias"] == pytest.approx(-offset, abs=0.35 * abs(offset))
        assert abs(row["after"]["bias"]) < 0.3 * abs(offset)
        assert row["after"]["scatter"] < 1.25 * row["before"]["scatter"]
        assert 0.5 < row["after"]["within"] < 0.9
    vectors = load_model("mini").embed(LRS, np.ones((1, 1462), np.float32) + 0.1 * np.sin(np.arange(1462, dtype="f4")))
    before, after = (one.estimate(LRS, vectors, np.array([50.0])) for one in (base, own))
    # labels that the catalogue lacks are given as before, their errors too
    assert abs(after["alpha_fe"] - before["alpha_fe"])[0] < 0.15
    np.testing.assert_allclose(after["c_fe_err"], before["c_fe_err"], rtol=0.5)


def test_what_cannot_be_fitted(atlas: Atlas) -> None:
    model = load_model(atlas.model_folder("mini"))
    with pytest.raises(QueryError, match=r"have labels in 'few'"):
        fit_to_catalogue(atlas, model, "few")
    with pytest.raises(QueryError, match="A model of this atlas was expected"):
        fit_to_catalogue(atlas, load_model("mini"), "mine")
    with pytest.raises(QueryError, match="has no catalogue 'nobody'"):
        fit_to_catalogue(atlas, model, "nobody")
