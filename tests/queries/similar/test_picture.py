"""The picture shows what was found, marks the windows that matter, and refuses what it cannot draw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specclip_search.errors import QueryError
from specclip_search.queries.similar.picture import plot_similar
from specclip_search.queries.similar.similar import similar
from specclip_search.queries.similar.telling_windows import telling_windows
from specclip_search.queries.space.read_target import read_target
from specclip_search.queries.space.spectra import read_spectra, sample_fluxes
from specclip_search.surveys import GAIA_XP, LAMOST_LRS

pytestmark = pytest.mark.usefixtures("toy_model")

pytest.importorskip("matplotlib")


def test_svg_names_target_neighbours_and_summary(drawn: Any, tmp_path: Path) -> None:
    key = f"gaia:{drawn.source_id[10]}"
    found = similar(drawn.atlas, key, k=8, within="gaia_xp")
    plot_similar(drawn.atlas, found, tmp_path / "one.svg")
    import matplotlib

    assert matplotlib.rcParams["svg.fonttype"] == "path"
    text = (tmp_path / "one.svg").read_text(encoding="utf-8")
    # glyphs are drawn as paths, with the text itself as a comment
    assert f"<!-- {key} -->" in text
    assert "8 nearest: Teff = " in text
    assert "<!-- Gaia BP/RP -->" in text
    assert "LAMOST low resolution" not in text


def test_both_instruments_are_drawn_though_the_merged_list_holds_one(drawn: Any, tmp_path: Path) -> None:
    found = similar(drawn.atlas, f"lamost:{drawn.obsid[3]}", k=4, where="modality = 'lamost_lrs'")
    assert set(found.modality) == {"lamost_lrs"}
    found = similar(drawn.atlas, f"lamost:{drawn.obsid[3]}", k=4)
    plot_similar(drawn.atlas, found, tmp_path / "one.svg")
    text = (tmp_path / "one.svg").read_text(encoding="utf-8")
    assert "LAMOST low resolution" in text
    assert f"same star as lamost:{drawn.obsid[3]}" in text


def test_same_data_same_bytes(drawn: Any, tmp_path: Path) -> None:
    found = similar(drawn.atlas, [f"gaia:{star}" for star in drawn.source_id[:2]], k=5, within="gaia_xp", combine="any")
    for form in ("png", "svg", "pdf"):
        for name in ("a", "b"):
            plot_similar(drawn.atlas, found, tmp_path / f"{name}.{form}")
        assert (tmp_path / f"a.{form}").read_bytes() == (tmp_path / f"b.{form}").read_bytes()


def test_bad_requests_leave_no_file(drawn: Any, tmp_path: Path) -> None:
    found = similar(drawn.atlas, f"gaia:{drawn.source_id[0]}", k=3, within="gaia_xp")
    with pytest.raises(QueryError, match=r"must end in \.png, \.svg or \.pdf; found 'one\.bmp'"):
        plot_similar(drawn.atlas, found, tmp_path / "one.bmp")
    many = similar(drawn.atlas, [f"gaia:{star}" for star in drawn.source_id[:7]], k=3, within="gaia_xp")
    with pytest.raises(QueryError, match="at most 6 targets; found 7"):
        plot_similar(drawn.atlas, many, tmp_path / "many.png")
    assert list(tmp_path.iterdir()) == []


def test_spectra_come_in_the_order_asked_for(drawn: Any) -> None:
    wanted = np.array([drawn.obsid[700], -1, drawn.obsid[2], drawn.obsid[700]])
    rows = read_spectra(drawn.atlas, "lamost_lrs", wanted)
    assert rows.found.tolist() == [True, False, True, True]
    assert rows.source_id.tolist() == [drawn.source_id[700], -1, drawn.source_id[2], drawn.source_id[700]]
    np.testing.assert_array_equal(rows.flux[0], rows.flux[3])
    one = read_target(drawn.atlas, f"lamost:{drawn.obsid[2]}@dr9")
    np.testing.assert_array_equal(one.flux[0], rows.flux[2])
    with pytest.raises(QueryError, match="is not in this atlas"):
        read_target(drawn.atlas, f"lamost:{drawn.obsid[2]}@dr7")
    assert sample_fluxes(drawn.atlas, "gaia_xp", most=90).shape == (90, GAIA_XP.size)


def test_windows_that_matter() -> None:
    rng = np.random.default_rng(3)
    wave = LAMOST_LRS.wavelength
    line = np.exp(-0.5 * ((wave - 4862.7) / 6) ** 2)
    magnesium = np.exp(-0.5 * ((wave - 5177) / 9) ** 2)
    sample = 1 - 0.2 * line + rng.normal(0, 0.02, (200, len(wave))) - rng.uniform(0.2, 0.3, (200, 1)) * magnesium
    near = 1 - 0.2 * line + rng.normal(0, 0.02, (20, len(wave)))
    query = near[0] + 0.3 * line
    marked = telling_windows(LAMOST_LRS, query, np.full(len(wave), 0.02), near[1:], sample)
    apart = [window.name for window in marked if window.apart]
    assert apart == ["Hbeta"]
    assert next(window for window in marked if window.name == "Hbeta").z > 10
    shared = {window.name: window.z for window in marked if not window.apart}
    assert "Mg b" in shared
    assert shared["Mg b"] > 3
    # lines that readers look for are there in any case, without a claim
    classic = {window.name for window in marked if not window.telling}
    assert {"Hdelta", "Hgamma", "G band CH"} <= classic


def test_helium_is_told_of_hot_stars_alone() -> None:
    rng = np.random.default_rng(4)
    wave = LAMOST_LRS.wavelength
    helium = np.exp(-0.5 * ((wave - 4469) / 4) ** 2)
    balmer = sum(np.exp(-0.5 * ((wave - line) / 12) ** 2) for line in (4102.9, 4341.7, 4862.7))
    sample = 1 - rng.uniform(0.15, 0.25, (200, 1)) * balmer + rng.normal(0, 0.02, (200, len(wave)))
    for depth, told in ((0.2, False), (0.6, True)):
        near = 1 - depth * balmer - 0.2 * helium + rng.normal(0, 0.02, (20, len(wave)))
        marked = telling_windows(LAMOST_LRS, near[0], np.full(len(wave), 0.02), near, sample)
        assert ("He I 4471" in [window.name for window in marked]) is told
