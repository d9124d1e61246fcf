"""The neighbours' labels in one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from specclip_search.queries.similar.similar import similar
from specclip_search.queries.similar.summary import summarise


def test_summary_says_median_and_scatter(searched: Any) -> None:
    found = similar(searched.atlas, "lamost:101004", k=20, within="gaia_xp")
    summary = summarise(found).set_index("label")
    assert summary.loc["feh", "median"] == pytest.approx(found.feh.median())
    assert summary.loc["feh", "text"].startswith(f"20 nearest: [Fe/H] = {found.feh.median():.2f} +- ")
    assert summary.loc["teff", "text"].endswith(" K")
    assert summary.attrs["model"] == "toy"


def test_each_target_is_summed_up_by_itself(searched: Any) -> None:
    keys = [f"lamost:{number}" for number in searched.obsid[:50]]
    summary = summarise(similar(searched.atlas, keys, k=5))
    assert summary.groupby("target").size().index.tolist() == sorted(keys)


def test_missing_labels_are_counted_not_guessed() -> None:
    frame = pd.DataFrame({"feh": [-1.0, np.nan, -2.0], "teff": [np.nan] * 3})
    summary = summarise(frame)
    assert summary.label.tolist() == ["feh"]
    assert summary.text[0].startswith("2 of 3 nearest: [Fe/H] = -1.50")
