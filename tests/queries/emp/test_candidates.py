"""Metal-poor candidates: found, calibrated, never vouched for by their own label; lists of known stars."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from specclip_search import Atlas
from specclip_search.catalogs.ingest import ingest_catalog_table
from specclip_search.errors import QueryError
from specclip_search.keys import split_of
from specclip_search.queries.emp.candidates import emp_candidates
from specclip_search.queries.emp.known_stars import read_known
from specclip_search.queries.emp.probability import fit
from specclip_search.queries.emp.scores import score_stars
from specclip_search.queries.space.space import open_space

BELOW = -2.3


def true_feh(survey: Any, source_id: np.ndarray) -> np.ndarray:
    """[Fe/H] that a star was made with, as in the toy's labels."""
    return (-1.2 + 0.7 * survey.hidden[:, 1])[np.searchsorted(survey.source_id, source_id)]


@pytest.fixture(scope="module", autouse=True)
def _no_networks() -> Iterator[None]:
    """The toy's spectra are no stars': networks that know real ones have nothing to say of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("specclip_search.queries.emp.estimates.load_network", lambda: None)
        yield


@pytest.fixture(scope="module")
def candidates(searched: Any, _no_networks: None) -> pd.DataFrame:
    return emp_candidates(searched.atlas, below=BELOW, top=4000, builtin_seeds=False)


def test_the_poorest_are_on_top(searched: Any, candidates: pd.DataFrame) -> None:
    truth = true_feh(searched, candidates.source_id.to_numpy())
    number = int((truth < BELOW).sum())
    assert (truth[:number] < BELOW).mean() > 0.9
    residual = truth - candidates.feh
    assert np.median(np.abs(residual)) < 0.15


def test_probabilities_are_calibrated_on_stars_that_taught_nothing(searched: Any, candidates: pd.DataFrame) -> None:
    held_out = candidates[split_of(candidates.source_id.to_numpy()) == 9]
    is_below = true_feh(searched, held_out.source_id.to_numpy()) < BELOW
    assert held_out.probability.sum() == pytest.approx(is_below.sum(), abs=3 * np.sqrt(is_below.sum()) + 2)
    brier = np.mean((held_out.probability - is_below) ** 2)
    assert brier < 0.3 * is_below.mean() * (1 - is_below.mean())


def test_table_is_whole_and_says_how_it_was_made(searched: Any, candidates: pd.DataFrame) -> None:
    assert len(candidates) == len(searched.source_id)
    assert list(candidates.columns[:5]) == ["rank", "source_id", "lrs_spec_id", "xp_spec_id", "probability"]
    assert candidates.source_id.dtype == candidates.lrs_spec_id.dtype == np.int64
    assert candidates.probability.between(0, 1).all()
    assert candidates.probability.is_monotonic_decreasing
    assert np.isfinite(candidates[["probability", "feh", "feh_err", "xp_feh", "lrs_feh"]].to_numpy()).all()
    assert candidates.attrs["options"]["below"] == BELOW
    assert {"model_digest", "index_digest", "version", "notes"} <= set(candidates.attrs)
    stored = searched.atlas.sql("SELECT count(*), max(probability) FROM emp").fetchall()[0]
    assert stored == (len(searched.source_id), pytest.approx(candidates.probability[0]))
    assert set(" ".join(candidates["flags"]).split()) <= {
        "hot_star",
        "low_snr",
        "reddened",
        "instruments_disagree",
        "far_from_labels",
        "carbon_enhanced",
    }


def test_a_label_is_no_evidence_for_its_own_star(survey_maker: Callable[..., Any]) -> None:
    """One star's label is falsified: its neighbours' evidence moves, its own not at all."""
    first, second = (survey_maker(stars=700, seed=4, shards=1, labelled=False) for _ in range(2))
    star = int(np.flatnonzero((split_of(first.source_id) == 3) & (np.abs(first.hidden).max(axis=1) < 0.5))[0])
    scores = []
    for survey, falsified in ((first, False), (second, True)):
        feh = -1.2 + 0.7 * survey.hidden[:, 1]
        teff = 5500 - 700 * survey.hidden[:, 0]
        if falsified:
            feh[star] = -6.0
        ingest_catalog_table(survey.atlas, "truth", pa.table({"source_id": survey.source_id, "feh": feh, "teff": teff}))
        survey.embed()
        scores.append(score_stars(open_space(survey.atlas), -4.0, None, False))
    before, after = scores
    changed = {
        name: ~np.isclose(before.parts[name], after.parts[name], atol=1e-6, equal_nan=True)
        for name in ("xp_feh", "lrs_feh", "xp_linear_feh", "lrs_linear_feh", "xp_seeded_feh")
    }
    for name, different in changed.items():
        assert not different[star], name
        assert different.sum() > 0, name


def test_hot_stars_without_metallicity_are_not_taken_for_poor_ones(survey_maker: Callable[..., Any]) -> None:
    rng = np.random.default_rng(8)
    hidden = rng.normal(0, 1, (1200, 3))
    hidden[:, 0] = np.clip(hidden[:, 0], -1.3, None)
    hot = np.arange(60)
    # as featureless as the poorest, and off in temperature
    hidden[hot] = np.column_stack([rng.normal(-4.5, 0.3, 60), rng.normal(-3.0, 0.2, 60), rng.normal(0, 0.3, 60)])
    survey = survey_maker(stars=1200, hidden=hidden, shards=1, labelled=False)
    feh = -1.2 + 0.7 * hidden[:, 1]
    feh[hot] = np.nan
    table = {"source_id": survey.source_id, "feh": pa.array(feh, mask=np.isnan(feh)), "teff": 5500 - 700 * hidden[:, 0]}
    ingest_catalog_table(survey.atlas, "truth", pa.table(table))
    survey.embed()
    frame = emp_candidates(survey.atlas, below=BELOW, top=1200, builtin_seeds=False)
    is_hot = np.isin(frame.source_id, survey.source_id[hot])
    assert frame["flags"][is_hot].str.contains("hot_star").all()
    assert frame.probability[is_hot].max() < 0.3
    assert not frame["flags"][~is_hot].str.contains("hot_star").any()


def test_too_few_poor_stars_are_said_and_not_made_up(survey_maker: Callable[..., Any]) -> None:
    survey = survey_maker(stars=600, shards=1)
    survey.embed()
    frame = emp_candidates(survey.atlas, below=-4.5, top=5, builtin_seeds=False)
    notes = " ".join(frame.attrs["notes"])
    assert "serve as seeds" in notes
    assert "learned at -" in notes
    assert frame.probability.max() < 0.5


def test_known_stars_are_found_by_id_and_by_position(searched: Any, tmp_path: Path) -> None:
    stars = searched.source_id[[3, 50, 50, 900]]
    listed = pd.DataFrame({"source_id": [*stars, 5], "feh": [-2.9, -3.0, -3.4, np.nan, -2.0]})
    listed.to_csv(tmp_path / "ids.csv", index=False)
    known = read_known(searched.atlas, tmp_path / "ids.csv")
    assert known.source_id.tolist() == sorted(set(stars.tolist()))
    assert (known.listed, known.by) == (5, "source_id")
    np.testing.assert_allclose(known.feh, [-2.9, -3.2, np.nan])
    rows = searched.atlas.spectra("gaia_xp").read(["spec_id", "ra", "dec"]).to_pandas()
    near = pd.DataFrame({"ra": rows.ra[:4] + np.array([0, 2, 8, 0]) / 3600, "dec": rows.dec[:4], "feh": -3.0})
    found = read_known(searched.atlas, near)
    assert found.source_id.tolist() == sorted(rows.spec_id[[0, 1, 3]])
    assert found.by == "position"


def test_scores_are_kept_until_something_changes(
    survey_maker: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    survey = survey_maker(stars=600, shards=1)
    survey.embed()
    first = emp_candidates(survey.atlas, below=-2.0, top=30, builtin_seeds=False)
    known = pd.DataFrame({"source_id": first.source_id[:2], "feh": [-3.5, -3.5]})

    class ComputedAgain(Exception):
        pass

    def compute(*_: object) -> None:
        raise ComputedAgain

    monkeypatch.setattr("specclip_search.queries.emp.scores.score_stars", compute)
    again = emp_candidates(Atlas(survey.atlas.path), below=-2.0, top=30, builtin_seeds=False)
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert again.attrs == first.attrs
    assert len(emp_candidates(survey.atlas, below=-2.0, top=7, builtin_seeds=False)) == 7
    for changed in ({"below": -2.5}, {"known": known}, {"builtin_seeds": True}):
        with pytest.raises(ComputedAgain):
            emp_candidates(survey.atlas, **({"below": -2.0, "top": 30, "builtin_seeds": False} | changed))
    ingest_catalog_table(survey.atlas, "more", pa.table({"source_id": survey.source_id[:5], "feh": [-1.0] * 5}))
    with pytest.raises(ComputedAgain):
        emp_candidates(survey.atlas, below=-2.0, top=30, builtin_seeds=False)


def test_a_known_star_lifts_those_like_it(searched: Any, candidates: pd.DataFrame) -> None:
    poor = candidates.source_id.to_numpy()[:3]
    known = pd.DataFrame({"source_id": poor, "feh": [-3.5] * 3})
    frame = emp_candidates(searched.atlas, below=-3.0, known=known, top=20, builtin_seeds=False)
    assert any("3 of 3 listed stars found by source_id" in note for note in frame.attrs["notes"])
    assert frame.xp_seed_similarity.max() <= 1.0


def test_shared_list_of_known_stars_is_readable(searched: Any, shared_data: Path) -> None:
    known = read_known(searched.atlas, shared_data / "known_metal_poor.csv")
    assert known.by == "position"
    assert known.listed > 500


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name\nA\n", "neither source_id nor ra"),
        ("source_id\n1.5e18\n", "holds floats"),
        ('no table at all\n"', "known stars"),
    ],
)
def test_lists_that_say_nothing_are_refused(searched: Any, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "known.csv").write_text(content)
    with pytest.raises(QueryError, match=message):
        read_known(searched.atlas, tmp_path / "known.csv")


def test_refusals(searched: Any, survey_maker: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="below must lie"):
        emp_candidates(searched.atlas, below=3.0)
    with pytest.raises(QueryError, match="top must be"):
        emp_candidates(searched.atlas, top=0)
    with pytest.raises(QueryError, match="no file"):
        emp_candidates(searched.atlas, known=tmp_path / "none.csv")
    bare = survey_maker(stars=50, shards=1, labelled=False)
    bare.embed()
    with pytest.raises(QueryError, match="has \\[Fe/H\\]"):
        emp_candidates(bare.atlas, builtin_seeds=False)


def test_calibration_moves_down_when_positives_are_few() -> None:
    rng = np.random.default_rng(0)
    feh = rng.normal(-0.5, 0.5, 20_000)
    evidence = np.column_stack([feh + rng.normal(0, 0.2, len(feh)), feh + rng.normal(0, 0.3, len(feh))])
    terms = np.column_stack([rng.uniform(1, 2, len(feh))])
    calibration = fit(evidence, terms, feh, -3.0)
    assert "moved down" in calibration.note
    for below in (-1.0, -1.5, -2.0):
        _, sigma, probability = fit(evidence, terms, feh, below).predict(evidence, terms, below)
        assert probability.sum() == pytest.approx((feh < below).sum(), rel=0.25)
        assert np.median(sigma) == pytest.approx(0.166, rel=0.4)
