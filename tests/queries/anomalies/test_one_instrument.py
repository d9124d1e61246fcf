"""One instrument's oddest spectra are found without a partner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from specclip_search.errors import QueryError
from specclip_search.queries.anomalies.anomalies import anomalies
from specclip_search.queries.anomalies.one_instrument import anomalies_within


def test_planted_spectra_lead_the_list_of_their_instrument(survey_maker: Callable[..., Any]) -> None:
    survey = survey_maker(stars=900, emission=6, shards=2)
    survey.embed()
    found = anomalies_within(survey.atlas, "lamost_lrs", 20, survey.model, 16)
    planted = set(survey.obsid[survey.planted["emission"]].tolist())
    assert set(found.spec_id[:6].tolist()) == planted
    assert found.reason[:6].str.contains("emission").all()
    assert found.own_peak_at[:6].between(4850, 4875).all()
    assert found["rank"].tolist() == list(range(1, 21))
    assert found.spec_id.dtype == np.int64
    other = anomalies_within(survey.atlas, "gaia_xp", 900, survey.model, 16)
    assert (other.p_value < 0.05).mean() < 0.15
    by_pattern = anomalies_within(survey.atlas, "lamost_lrs", 6, survey.model, 16, by="emission")
    assert set(by_pattern.spec_id.tolist()) == planted
    assert by_pattern.z_emission.is_monotonic_decreasing
    with pytest.raises(QueryError, match="there is no quantity 'mutual'"):
        anomalies_within(survey.atlas, "lamost_lrs", 6, survey.model, 16, by="mutual")
    with pytest.raises(QueryError, match="top must be"):
        anomalies_within(survey.atlas, "gaia_xp", 0, survey.model)
    with pytest.raises(QueryError, match="no 'desi' vectors"):
        anomalies_within(survey.atlas, "desi", 5, survey.model)


def test_an_atlas_of_one_instrument_is_sent_to_within(one_instrument: Any) -> None:
    with pytest.raises(QueryError, match="of gaia_xp alone") as caught:
        anomalies(one_instrument.atlas, model=one_instrument.model.name)
    assert "anomalies --within gaia_xp" in caught.value.hint
