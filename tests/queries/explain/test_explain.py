"""What makes spectra alike: planted lines and labels are found, named, and nothing else is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from specclip_search.errors import QueryError
from specclip_search.queries.explain.explain import explain_group, explain_match
from specclip_search.queries.explain.group import common_traits
from specclip_search.queries.explain.match import COLOUR, in_words, judge_windows, without_colour
from specclip_search.surveys import LRS

NAMES = ("Ca HK", "Hbeta", "Mg b", "continuum 460", "continuum 750")


@pytest.fixture(scope="module")
def population() -> np.ndarray:
    """Five windows of 2,000 stars: all follow the colour, each with a scatter of its own of 0.02."""
    rng = np.random.default_rng(0)
    colour = rng.normal(0, 0.4, 2000)
    slope = np.array([0.5, 0.3, 0.2, 0.35, -0.35])
    return 1.0 + slope * colour[:, None] + 0.02 * rng.standard_normal((2000, 5))


def test_a_line_that_both_have_and_one_that_one_has_are_named(population: np.ndarray) -> None:
    ordinary = np.median(population, axis=0)
    two = np.stack([ordinary, ordinary])
    two[:, 0] -= 0.1  # both: calcium stronger than in stars of this colour
    two[0, 1] += 0.08  # the first: hydrogen weaker
    levelled, others = without_colour(NAMES, two, population)
    variances = np.full((2, 6), 1e-6)
    verdicts = judge_windows((*NAMES, COLOUR), levelled, variances, others)
    said = {verdict.name: verdict.verdict for verdict in verdicts}
    assert said == {"Ca HK": "alike", "Hbeta": "unlike", "Mg b": "", "continuum 460": "", "continuum 750": "",
                    COLOUR: ""}
    words = in_words(verdicts)
    assert words[0] == "Alike against other stars: Ca HK stronger."
    assert "Hbeta weaker in the first" in words[1]
    assert words[2] == "The differences are in hydrogen."
    # without taking off the colour, what both share drowns in its spread
    plain = judge_windows(NAMES, two, variances[:, :5], population)
    assert "alike" not in {verdict.verdict for verdict in plain}
    # noise as large as the difference is no difference
    noisy = judge_windows((*NAMES, COLOUR), levelled, np.full((2, 6), 1.0), others)
    assert {verdict.verdict for verdict in noisy} == {"", "alike"}


def test_traits_of_a_group_are_found_and_chance_is_not() -> None:
    rng = np.random.default_rng(1)
    others = {f"t{i}": rng.standard_normal(5000) for i in range(40)} | {"empty": np.full(5000, np.nan)}
    members = {f"t{i}": rng.standard_normal(25) for i in range(40)} | {"empty": np.ones(25)}
    members["t7"] = members["t7"] - 2.0
    traits = common_traits(members, others)
    assert len(traits) == 40
    assert traits[0].name == "t7"
    assert traits[0].q < 1e-6
    assert traits[0].shift == pytest.approx(-2.0, abs=0.5)
    assert min(trait.q for trait in traits[1:]) > 0.05
    assert common_traits({"t1": np.ones(3)}, {"t1": np.ones(3)}) == []


def test_spectra_of_an_atlas_are_explained(drawn: Any, toy_model: None) -> None:
    first, second = f"lamost:{drawn.obsid[2]}", f"lamost:{drawn.obsid[3]}"
    frame = explain_match(drawn.atlas, first, second)
    assert set(frame["verdict"]) <= {"", "alike", "unlike"}
    assert frame.attrs["words"]
    itself = explain_match(drawn.atlas, first, first)
    assert (itself["difference"].abs() < 1e-6).all()
    across = explain_match(drawn.atlas, first, f"gaia:{drawn.source_id[2]}")
    assert f"seen as {LRS} by the same star's spectrum" in across.attrs["words"][0]
    group = explain_group(drawn.atlas, [f"lamost:{obsid}" for obsid in drawn.obsid[:12]])
    assert {"trait", "kind", "q"} <= set(group.columns)
    with pytest.raises(QueryError, match="needs 5 spectra"):
        explain_group(drawn.atlas, [first])
