"""Verdicts are kept, refused where they make no sense, and learned from."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from specclip_search.atlas import Atlas
from specclip_search.errors import QueryError
from specclip_search.queries.anomalies.anomalies import anomalies
from specclip_search.queries.anomalies.verdicts import read_verdicts, record, record_verdict
from specclip_search.queries.statistics.learned_shift import learned_shift, odd_patterns


@pytest.fixture(scope="module")
def judged(searched: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The scored survey once more, to give verdicts in."""
    anomalies(searched.atlas, top=1)
    folder = tmp_path_factory.mktemp("judged") / "atlas"
    return replace(searched, atlas=Atlas(shutil.copytree(searched.atlas.path, folder)))


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
        for row, good in list(zip(frame.itertuples(), wanted(judged, frame), strict=True))[:10]:
            pair = int(row.lrs_spec_id), int(row.xp_spec_id)
            record(judged.atlas, "anomalies", pair, "interesting" if good else "artifact")
        recall.append(wanted(judged, anomalies(judged.atlas, top=30)).mean())
    # the first ten of the list are nearly all wanted: what is not must be seen, too, before it can sink
    assert len(read_verdicts(judged.atlas)) == 30
    # of those that do not stand at the top already most must rise there
    assert recall[-1] - recall[0] > 0.8 * (1 - recall[0])
    after = anomalies(judged.atlas, top=60)
    assert after.learned.between(-1, 1).all()
    # scores and p-values are what they were: only ranks have moved
    same = after.merge(before, on="lrs_spec_id", suffixes=("", "_before"))
    assert (same.score == same.score_before).all()
    assert anomalies(judged.atlas, top=60, learn=False).lrs_spec_id.tolist() == before.lrs_spec_id.tolist()


def test_a_verdict_replaces_the_one_before(judged: Any) -> None:
    row = anomalies(judged.atlas, top=1, learn=False).iloc[0]
    ids = int(row.lrs_spec_id), int(row.xp_spec_id)
    record(judged.atlas, "anomalies", ids, "interesting")
    count = len(read_verdicts(judged.atlas))
    record(judged.atlas, "anomalies", ids, "normal")
    verdicts = read_verdicts(judged.atlas)
    assert len(verdicts) == count
    assert verdicts.verdict[(verdicts.lrs_spec_id == ids[0])].tolist() == ["normal"]


def test_a_verdict_by_key_is_kept_for_every_pair_of_the_spectrum(judged: Any) -> None:
    row = anomalies(judged.atlas, top=1, learn=False).iloc[0]
    assert record_verdict(judged.atlas, f"lamost:{row.lrs_spec_id}", "interesting") >= 1
    verdicts = read_verdicts(judged.atlas)
    assert "interesting" in verdicts.verdict[verdicts.lrs_spec_id == int(row.lrs_spec_id)]
    with pytest.raises(QueryError, match="lamost:7 is in no pair"):
        record_verdict(judged.atlas, "lamost:7", "normal")
    with pytest.raises(QueryError, match="not a spectrum key"):
        record_verdict(judged.atlas, "7", "normal")


def test_wrong_verdicts_are_refused(judged: Any) -> None:
    with pytest.raises(QueryError, match="interesting, artifact, normal"):
        record(judged.atlas, "anomalies", (1, 2), "boring")
    with pytest.raises(QueryError, match="no pair lamost:1 and gaia:2"):
        record(judged.atlas, "anomalies", (1, 2), "normal")


def turned(degrees: list[float]) -> np.ndarray:
    angle = np.radians(degrees)
    return np.column_stack([np.cos(angle), np.sin(angle)])


def test_verdicts_fade_with_distance_and_with_unlike_reasons() -> None:
    same, first, good = np.tile([1.0, 0.0], (4, 1)), np.array([0]), np.array([1.0])
    fading = [0.0, 5.0, 40.0, 120.0]
    by_vector = learned_shift(turned(fading), same, first, good)
    assert by_vector[0] == 1.0
    assert (np.diff(by_vector) < 0).all()
    by_reason = learned_shift(same, turned(fading), first, good)
    assert (np.diff(by_reason) < 0).all()
    # a star odd for another reason is left alone, however near; one far off for the same reason hardly moves
    assert by_reason[-1] < 0.01 < by_vector[-1] < 0.1
    assert (learned_shift(same, same, np.empty(0, int), np.empty(0)) == 0).all()


def test_both_sides_of_a_quarrel_are_heard() -> None:
    patterns = turned([0.0, 4.0, 8.0, 45.0, 49.0, 90.0])
    vectors = np.tile([1.0, 0.0], (6, 1))
    shift = learned_shift(vectors, patterns, np.array([0, 1, 3]), np.array([1.0, 1.0, -1.0]))
    assert shift[[0, 1, 3]].tolist() == [1.0, 1.0, -1.0]
    assert shift[2] > 0.3
    assert shift[4] < -0.3
    assert abs(shift[5]) < abs(shift[4])
    # a user who likes all that was shown says nothing of what is unlike it
    pleased = learned_shift(vectors, patterns, np.array([0, 1]), np.ones(2))
    assert abs(pleased[5]) < 1e-3
    # and one who likes nothing wants none of what is like it, however much there was of it
    bored = learned_shift(np.tile([1.0, 0.0], (60, 1)), np.tile([1.0, 0.0], (60, 1)), np.arange(50), -np.ones(50))
    assert (bored[50:] < -0.9).all()


def test_patterns_do_not_depend_on_how_odd_a_star_is() -> None:
    patterns = odd_patterns(np.array([[8.0, -3.0, 0.0], [0.5, -30.0, 0.0], [-1.0, -1.0, -1.0]], np.float32))
    np.testing.assert_allclose(patterns, [[1, 0, 0], [1, 0, 0], [0, 0, 0]])
