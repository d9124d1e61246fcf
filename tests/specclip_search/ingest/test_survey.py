"""Files of other surveys as an encoder's input, every row accounted for."""

from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from specclip_search.errors import QueryError
from specclip_search.ingest.survey import survey_reading
from specclip_search.readers.survey_rows import Refused
from specclip_search.surveys import LAMOST_LRS
from specclip_search.surveys.batch import prepare_batch


@pytest.mark.parametrize(("survey", "folder", "kept", "refused"), [
    ("sdss", "boss", 1, {}), ("desi", "desi", 2, {"sky_fibre": 3, "bad_fibre": 1}),
    ("lamost_mrs", "lamost_mrs", 0, {"no_coverage": 5})])
def test_every_row_of_every_real_file(shared_data: Path, survey: str, folder: str, kept: int,
                                      refused: dict[str, int]) -> None:
    reading = pickle.loads(pickle.dumps(survey_reading(survey)))  # as a worker process gets it
    found = [row for file in sorted((shared_data / "surveys" / folder).glob("*")) for row in reading(str(file), None)]
    bad = [row for row in found if isinstance(row, Refused)]
    good = [row for row in found if not isinstance(row, Refused)]
    assert Counter(str(row.reason) for row in bad) == refused
    assert len(good) == kept
    for one in good:
        assert (one.modality, one.meta["seen_from"], len(one.wavelength)) == (survey, survey, 3909)
        assert isinstance(one.spec_id, int)
        assert (one.ivar > 0).any()
        assert one.meta["covered"] == pytest.approx(1.0, abs=0.01)
        assert one.meta["frame"] == "barycentric"
    if survey == "lamost_mrs":  # both its arms cover little of what LAMOST's low resolution needs
        assert all("28% of what LAMOST LRS input needs" in row.message for row in bad)
        return
    rows = prepare_batch(LAMOST_LRS, [replace(one, modality="lamost_lrs") for one in good])
    assert rows.keep.all()
    assert np.isfinite(rows.flux).all()


def test_exposures_a_file_of_another_survey_and_an_unknown_survey(shared_data: Path) -> None:
    boss = str(next((shared_data / "surveys" / "boss").glob("*")))
    epochs = [row.epoch for row in survey_reading("sdss", epochs=True)(boss, "dr17")]
    assert epochs == [None, *range(104927, 104934)]
    other = list(survey_reading("desi")(boss, None))
    assert len(other) == 1
    assert "a desi spectrum was expected; this one is of sdss" in other[0].message
    with pytest.raises(QueryError, match="No encoder takes spectra of 'jwst'"):
        survey_reading("jwst")
