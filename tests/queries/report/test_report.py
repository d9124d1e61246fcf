"""The page is whole, says where everything comes from, fetches nothing, escapes what it was given, and opens."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from specclip_search.errors import MissingExtra, QueryError
from specclip_search.queries.report.cards import make_cards
from specclip_search.queries.report.report import MOST_CARDS, write_report
from specclip_search.queries.report.spectra_svg import Panel, panel_svg
from specclip_search.queries.report.words import emp_words
from specclip_search.queries.space.space import open_space
from specclip_search.queries.space.windows import WindowSet
from specclip_search.surveys import LAMOST_LRS
from specclip_search.version import __version__

pytestmark = pytest.mark.usefixtures("toy_model")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
VOID = {"meta", "link", "img", "br", "input", "hr"}


class Page(HTMLParser):
    """Tags in order, ids, and whether every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def having(self, tag: str, name: str) -> list[str]:
        return [attrs[name] for found, attrs in self.tags if found == tag and name in attrs]


@pytest.fixture(scope="module")
def page(drawn: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("specclip_search.queries.report.maps.SAMPLE", 400)
        patch.setattr("specclip_search.queries.space.space.Space.loaded_model", lambda _: drawn.model)
        result = write_report(drawn.atlas, path, anomalies=6, emp=0, title="A <b>toy</b> survey")
    assert result.anomalies == 6
    assert result.size == path.stat().st_size < 2_000_000
    return path


def test_page_is_well_formed_and_fetches_nothing(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    parsed = Page(text)
    assert all(source.startswith("data:image/png;base64,") for source in parsed.having("img", "src"))
    assert not parsed.having("script", "src")
    assert not [attrs for tag, attrs in parsed.tags if tag == "link"]
    assert "@import" not in text
    assert "url(" not in text
    policy = next(attrs["content"] for tag, attrs in parsed.tags if attrs.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    ids = [attrs["id"] for _, attrs in parsed.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    inner = [link.removeprefix("#") for link in parsed.having("a", "href") if link.startswith("#")]
    assert set(inner) <= set(ids)


def test_page_tells_what_was_searched_and_with_what(page: Path, drawn: Any) -> None:
    text = page.read_text(encoding="utf-8")
    space = open_space(drawn.atlas)
    for fact in (__version__, drawn.model.digest, space.index("gaia_xp").digest, "recall@10", "toy"):
        assert fact in text
    assert re.search(r"gaia_xp spectra</th><td>900<", text)
    for name in ("score", "p_value", "probability", "lrs_chi2"):
        assert re.search(rf'<th scope="row">{name}</th>', text), name
    options = json.loads(re.search(r"<pre>(.*?)</pre>", text, re.DOTALL)[1].replace("&#34;", '"'))  # type: ignore[index]
    assert options["query"] == "anomalies"
    assert options["options"]["top"] == 6


def test_text_from_outside_is_escaped(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<b>toy</b>" not in text
    assert "A &lt;b&gt;toy&lt;/b&gt; survey" in text


def test_cards_hold_spectra_residuals_neighbours_and_links(page: Path, drawn: Any) -> None:
    from specclip_search.queries.anomalies.anomalies import anomalies

    text = page.read_text(encoding="utf-8")
    first = anomalies(drawn.atlas, top=1).iloc[0]
    card = text[text.index('id="a1"') : text.index('id="a2"')]
    assert f"Gaia DR3 {first.source_id}" in card
    assert str(first.reason) in card.replace("&#39;", "'")
    assert card.count('class="spectrum"') == 2
    assert card.count('class="obs"') == card.count('class="pred"') == 2
    assert card.count('<rect class="bar') == len(WindowSet.of(LAMOST_LRS)) + 26
    assert card.count('<th scope="row">gaia:') == card.count('<th scope="row">lamost:') == 5
    assert f'<th scope="row">gaia:{first.source_id}' not in card
    for service in ("simbad", "aladin", "esasky", "vizier"):
        assert service in card
    assert "lamost.org" not in card, "a simulated spectrum has no page there"


def test_same_atlas_same_bytes(drawn: Any, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_report(drawn.atlas, tmp_path / f"{name}.html", anomalies=2, emp=0, maps=False)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_what_cannot_be_answered_is_noted(drawn: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise QueryError("No star has [Fe/H].", "Ingest a catalogue.")

    def not_installed(*_: object, **__: object) -> None:
        raise MissingExtra("umap-learn", "map", "a map of the space")

    monkeypatch.setattr("specclip_search.queries.emp.candidates.emp_candidates", refused)
    monkeypatch.setattr("specclip_search.queries.report.maps._is_current", lambda _: False)
    monkeypatch.setattr("specclip_search.queries.report.maps.make_map", not_installed)
    done = write_report(drawn.atlas, tmp_path / "report.html", anomalies=0, emp=5)
    assert (done.anomalies, done.emp, done.maps) == (0, 0, 0)
    assert done.notes[0] == "emp: No star has [Fe/H].\nIngest a catalogue."
    assert "specclip-search[map]" in done.notes[1]
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "No stars are listed" in text
    assert "No star has [Fe/H]." in text


def test_a_page_is_not_written_from_translations_out_of_date(
    drawn: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(*_: object, **__: object) -> None:
        raise QueryError("The translation errors were made by an earlier version.", "Run translate again.")

    monkeypatch.setattr("specclip_search.queries.anomalies.anomalies.anomalies", stale)
    with pytest.raises(QueryError, match="earlier version"):
        write_report(drawn.atlas, tmp_path / "report.html", anomalies=3, emp=0, maps=False)
    assert not (tmp_path / "report.html").exists()


def test_cards_of_an_atlas_with_one_instrument(one_instrument: Any) -> None:
    stars = one_instrument.source_id[:2].tolist()
    frame = pd.DataFrame({"rank": [1, 2], "source_id": stars, "xp_spec_id": stars, "xp_release": ["dr9"] * 2,
                          "probability": [0.9, 0.8], "flags": ["hot low_snr", ""]})  # fmt: skip
    first, second = make_cards(open_space(one_instrument.atlas), frame, "e", ("probability",))
    assert [caption for caption, _ in first.panels] == [
        "LAMOST low resolution: as the model predicts it; none was observed",
        "Gaia BP/RP: simulated",
    ]
    assert first.flags == ["hot", "low_snr"]
    assert first.keys == (f"gaia:{stars[0]}",)
    assert len(first.neighbours) == len(second.neighbours) == 5
    assert make_cards(open_space(one_instrument.atlas), frame.iloc[:0], "e", ()) == []


def test_words_of_a_metal_poor_candidate() -> None:
    row = pd.Series({"lrs_feh": -2.41, "lrs_feh_sigma": 0.1, "xp_feh": -2.6, "xp_feh_sigma": 0.2,
                     "xp_est_feh": -2.75, "xp_est_feh_err": 0.15})  # fmt: skip
    assert emp_words(row) == (
        "[Fe/H] by LRS: neighbours -2.41 ± 0.10; by XP: estimator -2.75 ± 0.15, neighbours -2.60 ± 0.20"
    )
    assert emp_words(pd.Series({"lrs_feh": np.nan, "lrs_feh_sigma": np.nan})) == ""


def test_bad_requests(drawn: Any, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match=r"must end in \.html; found 'report\.pdf'"):
        write_report(drawn.atlas, tmp_path / "report.pdf")
    with pytest.raises(QueryError, match=f"0 to {MOST_CARDS} cards of emp; found 500"):
        write_report(drawn.atlas, tmp_path / "report.html", emp=500)
    assert list(tmp_path.iterdir()) == []


def test_panel_marks_what_stands_out() -> None:
    flux = np.ones(LAMOST_LRS.size)
    names = WindowSet.of(LAMOST_LRS).names
    sigma = np.zeros(len(names))
    sigma[names.index("Hbeta")], sigma[names.index("Mg b")] = 12.0, -3.4
    svg = panel_svg(Panel(LAMOST_LRS, flux, flux * 0.9, sigma, "a & b"), "a1lrs")
    Page(svg)
    assert "a &amp; b" in svg
    assert "Largest residuals: Hbeta +12.0 sigma." in svg
    assert svg.count('class="bar far"') == 1
    assert "Hβ +12σ</text>" in svg
    assert "Mg b: -3.4 σ" in svg
    alone = panel_svg(Panel(LAMOST_LRS, None, flux, None, "predicted"), "e1lrs")
    assert 'class="obs"' not in alone
    assert "No residual was measured." in alone


def test_page_opens_in_a_browser(page: Path, tmp_path: Path) -> None:
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"no browser among {', '.join(BROWSERS)}")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--window-size=1200,2400"]
    shot = tmp_path / "page.png"
    opened = subprocess.run([browser, *options, f"--screenshot={shot}", page.as_uri()], capture_output=True,
                            text=True, timeout=1800, check=False)  # fmt: skip
    assert shot.exists(), opened.stderr[-2000:]
    # errors of scripts and refused requests are written to the console
    assert "CONSOLE" not in opened.stderr, opened.stderr[-2000:]
    import matplotlib.image

    pixels = matplotlib.image.imread(shot)[..., :3]
    assert pixels.shape[:2] == (2400, 1200)
    assert pixels.std() > 0.02
    dumped = subprocess.run([browser, *options, "--dump-dom", page.as_uri()], capture_output=True, text=True,
                            timeout=1800, check=True)  # fmt: skip
    assert '<p class="filter">' in dumped.stdout, "the script shows the filter"
