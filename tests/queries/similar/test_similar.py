"""Searching by key, file and several targets: the answers, the columns, the refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from specclip_search.errors import QueryError
from specclip_search.keys import SpectrumKey
from specclip_search.queries.similar.similar import search_hits, similar
from specclip_search.queries.space.space import Space

LRS, XP = "lamost_lrs", "gaia_xp"


def brute_force(survey: Any, vector: np.ndarray, source: str, modality: str) -> np.ndarray:
    """Cosines of centred vectors with every spectrum of an instrument, by the formula."""
    stage = survey.atlas.vectors("toy", modality)
    centred = [
        np.stack(atlas_stage.read(["vector"])["vector"].to_numpy()).astype(float)
        for atlas_stage in (stage, survey.atlas.vectors("toy", source))
    ]
    matrix = centred[0] - centred[0].mean(axis=0)
    query = vector - centred[1].mean(axis=0)
    return (matrix @ query) / np.linalg.norm(matrix, axis=1) / np.linalg.norm(query)


def raw(survey: Any, modality: str, row: int) -> np.ndarray:
    return np.asarray(survey.atlas.vectors("toy", modality).read(["vector"])["vector"][row].as_py(), dtype=float)


def test_neighbours_equal_brute_force_within_and_across(searched: Any) -> None:
    for modality in (LRS, XP):
        found = similar(searched.atlas, "lamost:101004", k=10, within=modality)
        truth = brute_force(searched, raw(searched, LRS, 3), LRS, modality)
        if modality == LRS:
            truth[3] = -2.0
        ids = searched.obsid if modality == LRS else searched.source_id
        # the store keeps half precision: neighbours that are equally near may change places
        np.testing.assert_allclose(truth[np.searchsorted(ids, found.spec_id)], np.sort(truth)[::-1][:10], atol=2e-3)
        np.testing.assert_allclose(found.similarity, np.sort(truth)[::-1][:10], atol=2e-3)


def test_both_instruments_are_merged_by_rank(searched: Any) -> None:
    found = similar(searched.atlas, "lamost:101004", k=40)
    # one of each in turn, the more similar one first, so that neither hides the other
    assert found.rank_in_instrument.tolist() == [rank for rank in range(1, 21) for _ in range(2)]
    pairs = found.similarity.to_numpy().reshape(-1, 2)
    assert (pairs[:, 0] >= pairs[:, 1]).all()
    for _, own in found.groupby("modality"):
        assert (own.similarity.diff().dropna() <= 0).all()
    assert found["rank"].tolist() == list(range(1, 41))
    for _, part in found.groupby("modality"):
        assert part.rank_in_instrument.tolist() == list(range(1, len(part) + 1))
    assert set(found.modality) == {LRS, XP}


def test_columns_and_types(searched: Any) -> None:
    found = similar(searched.atlas, f"gaia:{searched.source_id[7]}", k=5, within=LRS)
    assert list(found.columns[:8]) == [
        "rank",
        "modality",
        "spec_id",
        "source_id",
        "similarity",
        "rank_in_instrument",
        "other_spec_id",
        "release",
    ]
    assert {"simulated", "snr", "ra", "dec", "teff", "logg", "feh"} <= set(found.columns)
    assert found.spec_id.dtype == found.source_id.dtype == np.int64
    # the star's own other spectrum: ids whole although they are above 2**53
    assert found.source_id[0] == searched.source_id[7]
    assert found.other_spec_id[0] == searched.source_id[7]
    assert found.spec_id[0] == searched.obsid[7]


def test_itself_and_its_star_are_left_out_when_asked(searched: Any) -> None:
    key, star = "lamost:101004", searched.source_id[3]
    assert similar(searched.atlas, key, k=3, within=LRS, exclude_self=False).spec_id[0] == 101004
    assert 101004 not in similar(searched.atlas, key, k=3, within=LRS).spec_id.tolist()
    assert star in similar(searched.atlas, key, k=10).source_id.tolist()
    assert star not in similar(searched.atlas, key, k=10, exclude_repeats=True).source_id.tolist()


def test_where_searches_only_what_it_admits(searched: Any) -> None:
    found = similar(searched.atlas, "lamost:101004", k=2000, within=XP, where="teff > 6000 AND feh < -1")
    hidden = searched.hidden
    admitted = (5500 - 700 * hidden[:, 0] > 6000) & (-1.2 + 0.7 * hidden[:, 1] < -1)
    assert sorted(found.spec_id) == sorted(searched.source_id[admitted])
    with pytest.raises(QueryError, match="tefff"):
        similar(searched.atlas, "lamost:101004", where="tefff > 6000")


def test_many_targets_in_one_call_equal_single_calls(searched: Any) -> None:
    keys = [f"lamost:{searched.obsid[i]}" for i in range(25)] + [f"gaia:{searched.source_id[i]}" for i in range(25)]
    together = similar(searched.atlas, keys, k=4)
    assert len(together) == 200
    for key in (keys[0], keys[30]):
        alone = similar(searched.atlas, key, k=4)
        assert together[together.target == key].spec_id.tolist() == alone.spec_id.tolist()


def test_any_of_and_mean_of_several_seeds(searched: Any) -> None:
    keys = ["lamost:101004", f"gaia:{searched.source_id[40]}"]
    either = similar(searched.atlas, keys, k=12, within=XP, combine="any")
    singles = {key: similar(searched.atlas, key, k=60, within=XP) for key in keys}
    for row in either.itertuples():
        known = singles[row.nearest_target].set_index("spec_id").similarity
        assert known[row.spec_id] == pytest.approx(row.similarity, abs=1e-6)
    merged = (
        pd.concat(singles.values()).groupby("spec_id").similarity.max().drop(searched.source_id[40], errors="ignore")
    )
    assert either.spec_id.tolist() == merged.nlargest(12).index.tolist()
    same = similar(searched.atlas, ["lamost:101004", SpectrumKey(LRS, 101004)], k=5, within=XP, combine="mean")
    assert same.spec_id.tolist() == singles["lamost:101004"].spec_id[:5].tolist()


def test_the_newest_release_is_meant_unless_one_is_named(
    survey_maker: Callable[..., Any], add_spectra: Callable[..., None]
) -> None:
    survey = survey_maker(stars=200, shards=1)
    flux = np.stack(survey.atlas.spectra(LRS).read(["flux"])["flux"].to_numpy())[:1]
    other = flux[:, ::-1].copy()
    add_spectra(
        survey.atlas,
        LRS,
        survey.obsid[:1],
        survey.source_id[:1],
        other,
        np.full_like(other, 0.01),
        np.array([30.0]),
        release="dr10",
        first=1,
    )
    survey.embed()
    newest = similar(survey.atlas, "lamost:101001", k=3, within=XP)
    named = similar(survey.atlas, "lamost:101001@dr10", k=3, within=XP)
    older = similar(survey.atlas, "lamost:101001@dr9", k=3, within=XP)
    assert newest.spec_id.tolist() == named.spec_id.tolist() != older.spec_id.tolist()
    with pytest.raises(QueryError, match="release dr10, dr9, not in 'dr7'"):
        similar(survey.atlas, "lamost:101001@dr7")


def test_a_spectrum_file_is_read_prepared_and_embedded(
    searched: Any, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Space, "loaded_model", lambda self: searched.model)
    path = sorted((shared_data / "lamost" / "matrix").glob("*.fits*"))[0]
    found = similar(searched.atlas, path, k=5)
    assert len(found) == 5
    assert found.attrs["options"]["target"] == [str(path)]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("lamost:5", r"lamost:5 is not in this atlas \(4,000 lamost_lrs spectra, obsid 101001 to 105000\)"),
        ("gaia:12", r"source_id 5853418002145112704 to 5853418002145624576"),
        ("jwst:12", "is not a spectrum key"),
        ("lamost:1e5", "whole number"),
        ("no/such/file.fits", "no spectrum file"),
        ([], "No target"),
    ],
)
def test_wrong_targets_are_told_apart(searched: Any, target: Any, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        similar(searched.atlas, target)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k must be"),
        ({"k": 2.5}, "k must be"),
        ({"within": "sdss"}, "no 'sdss' vectors"),
        ({"combine": "all"}, "combine must be"),
    ],
)
def test_wrong_options_are_refused(searched: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(QueryError, match=message):
        similar(searched.atlas, "lamost:101004", **options)


def test_result_says_how_to_make_it_again(searched: Any) -> None:
    first = similar(searched.atlas, "lamost:101004", k=7, within=XP)
    assert first.attrs["model"] == "toy"
    assert first.attrs["model_digest"] == "sha256:toy"
    assert first.attrs["index_digest"][XP].startswith("sha256:")
    options = dict(first.attrs["options"])
    again = similar(searched.atlas, options.pop("target")[0], **options)
    assert first.equals(again)


def test_light_core_for_sql(searched: Any) -> None:
    hits = search_hits(searched.atlas, "lamost:101004", 3, XP)
    frame = similar(searched.atlas, "lamost:101004", k=3, within=XP)
    assert [hit[1] for hit in hits] == frame.spec_id.tolist()
    assert [hit[0] for hit in hits] == [XP] * 3
    assert [hit[3] for hit in hits] == [1, 2, 3]


def test_units_and_meanings_go_into_the_formats_that_hold_them(searched: Any, tmp_path: Path) -> None:
    from astropy.io import fits
    from astropy.io.votable import parse_single_table

    from specclip_search.tables import write_rows

    found = similar(searched.atlas, "lamost:101004", k=5)
    write_rows(found, output=tmp_path / "found.vot")
    fields = {field.name: field for field in parse_single_table(tmp_path / "found.vot").fields}
    assert str(fields["teff"].unit) == "K"
    assert fields["spec_id"].ucd == "meta.id;meta.main"
    assert "cosine" in fields["similarity"].description
    write_rows(found, output=tmp_path / "found.fits")
    header = fits.getheader(tmp_path / "found.fits", 1)
    names = {header[f"TTYPE{i}"]: i for i in range(1, header["TFIELDS"] + 1)}
    assert header[f"TUNIT{names['ra']}"] == "deg"
    assert header[f"TUCD{names['source_id']}"] == "meta.id"
    table = fits.getdata(tmp_path / "found.fits", 1)
    assert table["spec_id"].tolist() == found.spec_id.tolist()
