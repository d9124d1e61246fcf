"""What was planted is found, what is clean has uniform p-values, and the words fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import stats

from specclip_search.errors import QueryError
from specclip_search.keys import split_of
from specclip_search.queries.anomalies.anomalies import anomalies, score
from specclip_search.queries.space.space import open_space
from specclip_search.queries.translation.translate import translate


@pytest.fixture(scope="module")
def listed(searched: Any) -> pd.DataFrame:
    return anomalies(searched.atlas, top=4000)


def kind_of(survey: Any, frame: pd.DataFrame) -> np.ndarray:
    planted = np.full(len(survey.obsid), "clean", dtype=object)
    for name, members in survey.planted.items():
        planted[members] = name
    return planted[np.searchsorted(survey.obsid, frame.lrs_spec_id)]


def test_planted_oddities_are_at_the_top(searched: Any, listed: pd.DataFrame) -> None:
    planted = kind_of(searched, listed)
    assert (planted[:48] != "clean").mean() >= 0.97
    assert (listed.q_value[:40] < 0.05).all()


def test_a_list_by_one_quantity(searched: Any, listed: pd.DataFrame) -> None:
    by = anomalies(searched.atlas, top=40, by="identity")
    assert by.z_identity.is_monotonic_decreasing
    assert by["rank"].tolist() == list(range(1, 41))
    assert set(by.source_id) == set(listed.nlargest(40, "z_identity").source_id)
    wrong = kind_of(searched, by) == "wrong"
    assert wrong[:20].mean() > (kind_of(searched, listed) == "wrong")[:20].mean()
    assert by.attrs["options"]["by"] == "identity"
    with pytest.raises(QueryError, match="no quantity 'beauty'"):
        anomalies(searched.atlas, by="beauty")


def test_p_values_of_clean_pairs_are_uniform(searched: Any, listed: pd.DataFrame) -> None:
    clean = listed[kind_of(searched, listed) == "clean"]
    reference = listed.attrs["reference_stars"]
    assert listed.attrs["reference"] == "validation"
    # the reference is a sample, too: the test of two samples (Kolmogorov & Smirnov) at 0.1 %
    limit = np.sqrt(-0.5 * np.log(0.0005) * (1 / len(clean) + 1 / reference))
    assert stats.kstest(clean.p_value, "uniform").statistic < limit
    others = clean[split_of(clean.source_id.to_numpy()) != 8]
    # a few hundred reference stars of a toy model; 60,707 clean pairs of a survey have 0.050 (docs/anomalies.md)
    assert 0.03 < (others.p_value < 0.05).mean() < 0.10


def test_score_does_not_follow_signal_to_noise_or_colour(searched: Any, listed: pd.DataFrame) -> None:
    clean = listed[kind_of(searched, listed) == "clean"]
    for name in ("lrs_snr", "xp_snr", "teff"):
        assert abs(stats.spearmanr(clean.score, clean[name]).statistic) < 0.1


def test_reasons_name_window_sign_and_sigma(searched: Any, listed: pd.DataFrame) -> None:
    planted = kind_of(searched, listed)
    emission = listed[planted == "emission"]
    assert emission.reason.str.match(r"H-beta filled in by emission, \+\d+ sigma at 4862 A in LRS").mean() > 0.8
    wrong = listed[planted == "wrong"]
    assert (wrong.kind == "wrong_match").mean() > 0.6
    assert wrong.reason[wrong.kind == "wrong_match"].str.contains("each has close neighbours, which disagree by").all()
    assert (emission.kind == "wrong_match").mean() < 0.1


def test_table_is_whole(searched: Any, listed: pd.DataFrame) -> None:
    assert len(listed) == 4000
    first = ["rank", "lrs_spec_id", "xp_spec_id", "source_id", "score", "p_value", "q_value", "kind", "reason"]
    assert list(listed.columns[:9]) == first
    assert listed.source_id.dtype == np.int64
    assert (listed.source_id == listed.xp_spec_id).all()
    numbers = listed.select_dtypes("number")
    assert np.isfinite(numbers.to_numpy(float)).all()
    assert listed.p_value.between(0, 1).all()
    assert (listed.q_value >= listed.p_value * 0.999).all()
    assert listed.lrs_simulated.all()
    assert (listed.reason[:100] != "").all()


def test_same_command_same_list_and_scores_are_kept(searched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = anomalies(searched.atlas, top=20)
    monkeypatch.setattr(
        "specclip_search.queries.anomalies.anomalies.score", lambda *_: pytest.fail("scores were computed again")
    )
    second = anomalies(searched.atlas, top=20)
    pd.testing.assert_frame_equal(first, second)
    assert first.attrs == second.attrs
    assert {"model", "model_digest", "vectors_digest", "version", "options", "reference"} <= set(first.attrs)


def test_scores_are_a_table_for_sql(searched: Any, listed: pd.DataFrame) -> None:
    rows = searched.atlas.sql("SELECT lrs_spec_id, score, reason FROM anomalies ORDER BY score DESC LIMIT 3").df()
    assert rows.lrs_spec_id.tolist() == listed.lrs_spec_id[:3].tolist()
    field = searched.atlas.results("anomalies").read().schema.field("score")
    assert b"-log10 p" in field.metadata[b"description"]


def test_visits_of_one_star_do_not_vouch_for_each_other(
    survey_maker: Callable[..., Any], add_spectra: Callable[..., None]
) -> None:
    """An emission star seen forty times is as odd as one seen once."""
    survey = survey_maker(stars=800, emission=1, shards=1)
    star = survey.planted["emission"][0]
    flux = np.stack(survey.atlas.spectra("lamost_lrs").read(["flux"])["flux"].to_numpy())[star]
    visits = 40
    rng = np.random.default_rng(0)
    repeats = flux + 0.02 * rng.normal(size=(visits, len(flux)))
    add_spectra(
        survey.atlas,
        "lamost_lrs",
        500_000 + np.arange(visits),
        np.full(visits, survey.source_id[star]),
        repeats,
        np.full_like(repeats, 0.02),
        np.full(visits, 50.0),
        first=1,
    )
    survey.embed()
    translate(survey.atlas, survey.model)
    top = anomalies(survey.atlas, top=41, group=False)
    assert (top.source_id == survey.source_id[star]).mean() > 0.9


def test_new_labels_or_translations_make_scores_stale(survey_maker: Callable[..., Any]) -> None:
    from specclip_search.catalogs.ingest import ingest_catalog_table

    survey = survey_maker(stars=300, labelled=False)
    survey.embed()
    translate(survey.atlas, survey.model)
    anomalies(survey.atlas, top=5)
    before = survey.atlas.results("anomalies").parts()[0].inputs
    ingest_catalog_table(survey.atlas, "more", pa.table({"source_id": survey.source_id, "teff": np.full(300, 5000.0)}))
    anomalies(survey.atlas, top=5)
    assert survey.atlas.results("anomalies").parts()[0].inputs != before


def test_pairs_without_vectors_are_counted(survey_maker: Callable[..., Any], add_spectra: Callable[..., None]) -> None:
    survey = survey_maker(stars=300, shards=1)
    survey.embed()
    size = 1462
    add_spectra(
        survey.atlas,
        "lamost_lrs",
        np.array([777]),
        survey.source_id[:1],
        np.ones((1, size)),
        np.full((1, size), 0.02),
        np.array([40.0]),
        first=1,
    )
    translate(survey.atlas, survey.model)
    pairs, _, scores, _ = score(open_space(survey.atlas))
    assert (len(pairs), pairs.unembedded) == (300, 1)
    assert np.isfinite(scores.score).all()


def test_refusals(searched: Any, survey_maker: Callable[..., Any]) -> None:
    with pytest.raises(QueryError, match="top must be"):
        anomalies(searched.atlas, top=0)
    with pytest.raises(QueryError, match="k must lie"):
        anomalies(searched.atlas, k=1)
    bare = survey_maker(stars=40, shards=1)
    bare.embed()
    with pytest.raises(QueryError, match="specclip-search translate"):
        anomalies(bare.atlas)
