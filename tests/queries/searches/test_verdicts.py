"""Verdicts are kept, refused where they make no sense, and learned from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from queries.anomalies import anomalies
from queries.translate import translate
from queries.verdicts import give_verdict, judge, learned_shift, read_verdicts
from specclip_search.errors import QueryError


@pytest.fixture(scope="module")
def judged(survey_maker: Callable[..., Any]) -> Any:
    survey = survey_maker(stars=2500, wrong=30, emission=30, shards=1)
    survey.embed()
    translate(survey.atlas, survey.model)
    return survey


def wanted(survey: Any, frame: Any) -> np.ndarray:
    """An honest oracle: it wants emission stars and nothing else."""
    return np.isin(frame.lrs_spec_id, survey.obsid[survey.planted["emission"]])


def test_ranking_learns_what_the_user_wants(judged: Any) -> None:
    before = anomalies(judged.atlas, top=60)
    found = wanted(judged, before)
    recall = [found[:30].mean()]
    for _ in range(3):
        frame = anomalies(judged.atlas, top=60)
        if "verdict" in frame:
            frame = frame[frame.verdict.isna()]
        for row, good in list(zip(frame.itertuples(), wanted(judged, frame), strict=True))[:5]:
            give_verdict(judged.atlas, row.lrs_spec_id, row.xp_spec_id, "interesting" if good else "artifact")
        recall.append(wanted(judged, anomalies(judged.atlas, top=30)).mean())
    assert len(read_verdicts(judged.atlas)) == 15
    # most stand at the top already: a good part of those that do not must rise there
    assert recall[-1] - recall[0] > 0.25 * (1 - recall[0])
    after = anomalies(judged.atlas, top=60)
    assert after.learned.between(-1, 1).all()
    # scores and p-values are what they were: only ranks have moved
    same = after.merge(before, on="lrs_spec_id", suffixes=("", "_before"))
    assert (same.score == same.score_before).all()
    assert anomalies(judged.atlas, top=60, learn=False).lrs_spec_id.tolist() == before.lrs_spec_id.tolist()


def test_a_verdict_replaces_the_one_before(judged: Any) -> None:
    row = anomalies(judged.atlas, top=1, learn=False).iloc[0]
    ids = int(row.lrs_spec_id), int(row.xp_spec_id)
    count = len(give_verdict(judged.atlas, *ids, "interesting"))
    verdicts = give_verdict(judged.atlas, *ids, "normal")
    assert len(verdicts) == count
    assert verdicts.verdict[(verdicts.lrs_spec_id == ids[0])].tolist() == ["normal"]


def test_a_verdict_by_key_is_kept_for_every_pair_of_the_spectrum(judged: Any) -> None:
    row = anomalies(judged.atlas, top=1, learn=False).iloc[0]
    assert judge(judged.atlas, f"lamost:{row.lrs_spec_id}", "interesting") >= 1
    verdicts = read_verdicts(judged.atlas)
    assert "interesting" in verdicts.verdict[verdicts.lrs_spec_id == int(row.lrs_spec_id)]
    with pytest.raises(QueryError, match="lamost:7 is in no pair"):
        judge(judged.atlas, "lamost:7", "normal")
    with pytest.raises(QueryError, match="not a spectrum key"):
        judge(judged.atlas, "7", "normal")


def test_wrong_verdicts_are_refused(judged: Any) -> None:
    with pytest.raises(QueryError, match="interesting, artifact, normal"):
        give_verdict(judged.atlas, 1, 2, "boring")
    with pytest.raises(QueryError, match="no pair lamost:1 and gaia:2"):
        give_verdict(judged.atlas, 1, 2, "normal")


def test_verdicts_fade_with_distance() -> None:
    angle = np.radians([0.0, 5.0, 40.0, 120.0])
    vectors = np.column_stack([np.cos(angle), np.sin(angle)])
    shift = learned_shift(vectors, np.tile([1.0, 0.0], (4, 1)), np.array([0]), np.array([1.0]))
    assert (np.diff(shift) < 0).all()
    assert shift[0] > 0.9
    assert shift[-1] < 1e-3
    assert (learned_shift(vectors, vectors, np.empty(0, int), np.empty(0)) == 0).all()
