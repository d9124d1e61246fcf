"""Labels estimated from the spectra found, beside those of catalogues."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from specclip_search.atlas.arrays import table_from_columns
from specclip_search.atlas.schemas import estimates_schema
from specclip_search.queries.similar.similar import similar
from specclip_search.queries.similar.summary import summarise

XP = "gaia_xp"


@pytest.fixture(scope="module")
def unlabelled(survey_maker: Callable[..., Any]) -> Any:
    """A survey without a catalogue of labels, whose XP spectra have estimates: feh tells the row."""
    survey = survey_maker(stars=400, labelled=False)
    survey.embed()
    stage, schema = survey.atlas.estimates(XP, survey.model.name), estimates_schema()
    with stage.lock():
        for part in survey.atlas.vectors(survey.model.name, XP).parts():
            vectors = survey.atlas.vectors(survey.model.name, XP).read(["spec_id", "source_id", "release"])
            mine = vectors.filter(np.isin(vectors["spec_id"].to_numpy(), _ids(survey, part.number)))
            count = mine.num_rows
            known: dict[str, Any] = {name: mine[name] for name in ("spec_id", "source_id", "release")}
            known["flag"] = np.zeros(count, np.int32)
            for field in schema:
                known.setdefault(field.name, np.full(count, np.nan, np.float32))
            known["feh"] = (-(mine["spec_id"].to_numpy() // 128 % 1000) / 500).astype(np.float32)
            known["teff"] = np.full(count, 5000.0, np.float32)
            stage.write(part.number, table_from_columns(known, schema), schema=schema, inputs=part.digest)
    return survey


def _ids(survey: Any, number: int) -> np.ndarray:
    import pyarrow.parquet as pq

    path = survey.atlas.vectors(survey.model.name, XP).parquet_path(number)
    return np.asarray(pq.read_table(path, columns=["spec_id"])["spec_id"])


def test_each_hit_has_its_own_spectrum_s_estimate(unlabelled: Any) -> None:
    found = similar(unlabelled.atlas, f"gaia:{unlabelled.source_id[5]}", k=40)
    own = found.modality == XP
    expected = -(found.spec_id[own] // 128 % 1000) / 500
    np.testing.assert_allclose(found.feh_estimated[own], expected, atol=1e-6)
    assert (found.teff_estimated[own] == 5000).all()
    # no LAMOST spectrum has an estimate, and no label has an error
    assert found.feh_estimated[~own].isna().all()
    assert found.feh_err_estimated.isna().all()
    assert found.attrs["columns"]["teff_estimated"]["unit"] == "K"


def test_the_summary_says_that_it_is_of_estimates(unlabelled: Any) -> None:
    found = similar(unlabelled.atlas, f"gaia:{unlabelled.source_id[5]}", k=20, within=XP)
    told = summarise(found).set_index("label")
    assert told.loc["teff_estimated", "text"] == "20 nearest: estimated Teff = 5000 +- 0 K"
    assert told.loc["feh_estimated", "median"] == pytest.approx(found.feh_estimated.median())


def test_an_atlas_without_estimates_has_no_such_columns(searched: Any) -> None:
    found = similar(searched.atlas, f"gaia:{searched.source_id[5]}", k=5)
    assert not [name for name in found if name.endswith("_estimated")]
