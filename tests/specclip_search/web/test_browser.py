"""The explorer in a real browser: the ways that people go, by mouse and by keyboard."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specclip_search.atlas import Atlas
from specclip_search.queries.anomalies.verdicts import read_verdicts

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("uvicorn", reason="the extra 'web' is not installed")
from .serving import Served  # noqa: E402

CHROMIUM = os.environ.get("SPECCLIP_CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
pytestmark = pytest.mark.skipif(not Path(CHROMIUM).exists(), reason=f"there is no Chromium at {CHROMIUM}")
PAGES = (
    "/",
    "/anomalies",
    "/emp",
    "/map",
    "/sky?at=180.1,10.1",
    "/about",
    "/sql?q=SELECT+source_id,ra,dec+FROM+stars",
    "/file",
)
# the machine may be slow; a page that never comes fails all the same
PATIENCE_MS = 60_000


@pytest.fixture(scope="module")
def served(shown: Any) -> Iterator[Served]:
    one = Served(shown.atlas)
    yield one
    one.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        try:
            found = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        except playwright.Error as error:
            pytest.skip(f"Chromium does not start: {str(error).splitlines()[0]}")
        yield found
        found.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens pages; at the end there must be no error in their consoles and no request to anyone else."""
    contexts, wrong = [], []

    def open_at(url: str, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        own = "/".join(url.split("/")[:3])
        page.on("console", lambda m: wrong.append(f"{m.type}: {m.text}") if m.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(f"exception: {error}"))
        page.on("request", lambda r: None if r.url.startswith((own, "data:", "blob:")) else wrong.append(r.url))
        page.goto(url)
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert wrong == []


def test_from_an_id_to_a_star_to_its_neighbour_and_back(served: Served, shown: Any, open_page: Any) -> None:
    key = f"gaia:{shown.source_id[5]}"
    page = open_page(served.url)
    page.get_by_role("searchbox").fill(str(shown.source_id[5]))
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/star/{key}")
    page.get_by_role("heading", name=f"Gaia DR3 {shown.source_id[5]}").wait_for()
    page.locator(".panel canvas").first.wait_for()
    assert page.locator(".panel").count() == 2
    neighbour = page.locator(".multiples li a").first
    to = neighbour.get_attribute("href")
    neighbour.click()
    page.wait_for_url(f"**{to}")
    page.get_by_role("heading", level=1).wait_for()
    page.go_back()
    page.get_by_role("heading", name=f"Gaia DR3 {shown.source_id[5]}").wait_for()


def test_the_viewer_s_state_is_in_the_address(served: Served, shown: Any, open_page: Any) -> None:
    page = open_page(f"{served.url}/star/gaia:{shown.source_id[6]}")
    page.locator(".panel canvas").first.wait_for()
    page.get_by_label("Unit").select_option("nm")
    page.get_by_label("Medium").select_option("1")
    page.get_by_label("Mark").fill("4861.3, 5183.6 Mg")
    page.get_by_label("Mark").press("Enter")
    page.get_by_role("button", name="neighbours: median").click()
    page.wait_for_url("**hide=median*")
    again = open_page(page.url)
    again.locator(".panel canvas").first.wait_for()
    assert again.get_by_label("Unit").input_value() == "nm"
    assert again.get_by_label("Mark").input_value() == "4861.3, 5183.6 Mg"
    assert again.get_by_role("button", name="neighbours: median").get_attribute("aria-pressed") == "false"


def test_the_viewer_zooms_by_keys_and_wheel(served: Served, shown: Any, open_page: Any) -> None:
    page = open_page(f"{served.url}/star/gaia:{shown.source_id[6]}")
    plot = page.locator(".plot").first
    page.locator(".panel canvas").first.wait_for()
    before = plot.screenshot()
    plot.focus()
    page.keyboard.press("+")
    page.wait_for_timeout(150)
    zoomed = plot.screenshot()
    page.keyboard.press("0")
    page.wait_for_timeout(150)
    assert zoomed != before
    assert plot.screenshot() != zoomed


def test_twenty_are_judged_by_keyboard_and_stand_after_a_restart(own_atlas: Atlas, open_page: Any) -> None:
    first = Served(own_atlas)
    try:
        page = open_page(f"{first.url}/anomalies")
        page.locator(".star h2").first.wait_for()
        for number in range(20):
            said = ("interesting", "artifact", "normal")[number % 3]
            page.keyboard.press("123"[number % 3])
            page.locator(".rows li").nth(number).locator(f".tag.{said}").wait_for()
        page.locator(".progress").get_by_text("20 of 100 judged").wait_for()
        page.keyboard.press("z")
        page.locator(".progress").get_by_text("19 of 100 judged").wait_for()
        page.keyboard.press("k")
        page.keyboard.press("n")
        page.keyboard.type("seen 123 times")
        page.keyboard.press("Escape")
        page.keyboard.press("3")
        page.locator(".rows li").nth(18).locator(".tag.normal").wait_for()
    finally:
        first.stop()
    stored = read_verdicts(own_atlas)
    assert len(stored) == 19
    assert sorted(set(stored.verdict)) == ["artifact", "interesting", "normal"]
    second = Served(own_atlas)
    try:
        page = open_page(f"{second.url}/anomalies?verdict=artifact")
        page.locator(".rows .tag.artifact").first.wait_for()
        assert page.locator(".rows li").count() == (np.array(stored.verdict) == "artifact").sum()
    finally:
        second.stop()


def test_a_box_on_the_map_is_a_table_and_its_sql_gives_the_same(served: Served, shown: Any, open_page: Any) -> None:
    page = open_page(f"{served.url}/map")
    canvas = page.locator(".mapbox canvas[data-layer=points]")
    canvas.wait_for()
    page.get_by_role("button", name="Box").click()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.15, box["y"] + box["height"] * 0.25)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.45, box["y"] + box["height"] * 0.75, steps=5)
    page.mouse.up()
    told = page.locator("aside p b").first
    told.wait_for()
    number = int(told.inner_text().replace(",", ""))
    assert 0 < number < 800
    page.get_by_text("SQL", exact=True).last.click()
    page.get_by_role("link", name="Open in SQL").click()
    page.wait_for_url("**/sql?q=*")
    page.get_by_text(f"{number:,} row").first.wait_for()


def test_a_lasso_and_a_point(served: Served, shown: Any, open_page: Any) -> None:
    page = open_page(f"{served.url}/map?color=feh")
    canvas = page.locator(".mapbox canvas[data-layer=points]")
    canvas.wait_for()
    box = canvas.bounding_box()
    page.get_by_role("button", name="Lasso").click()
    middle = (box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.5)
    page.mouse.move(middle[0] + 120, middle[1])
    page.mouse.down()
    for angle in np.linspace(0, 2 * np.pi, 60):
        page.mouse.move(middle[0] + 120 * np.cos(angle), middle[1] + 90 * np.sin(angle))
    page.mouse.up()
    page.wait_for_url("**lasso=*")
    page.locator("aside .mean canvas").first.wait_for()
    page.get_by_role("button", name="Move").click()
    for step in range(40):
        page.mouse.click(middle[0] + 3 * step, middle[1])
        if page.locator("aside a b.id").count():
            break
    page.locator("aside a b.id").first.click()
    page.wait_for_url("**/star/*")


def test_sql_by_keyboard_and_a_link_to_it(served: Served, shown: Any, open_page: Any) -> None:
    page = open_page(f"{served.url}/sql")
    page.locator("#q").fill("SELECT source_id, ra, dec FROM stars WHERE ra < 180.01 ORDER BY ra")
    page.keyboard.press("Control+Enter")
    page.locator(".table tbody tr").first.wait_for()
    assert page.locator(".table tbody tr").count() == 10
    again = open_page(page.url)
    again.locator(".table tbody tr").first.wait_for()
    assert again.locator(".table tbody td a").first.inner_text() == str(shown.source_id[0])
    page.locator("#q").fill("SELECT * FROM nothing")
    page.keyboard.press("Control+Enter")


def test_a_refused_statement_is_told(served: Served, browser: Any) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{served.url}/sql?q=SELECT+*+FROM+read_text('/etc/passwd')")
    page.get_by_role("alert").first.wait_for(timeout=PATIENCE_MS)
    assert "may not be called here" in page.get_by_role("alert").first.inner_text()
    context.close()


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="files in memory need Linux")
def test_a_dropped_file_finds_its_neighbours(served: Served, shown: Any, shared_data: Path, open_page: Any) -> None:
    files = sorted(p for p in shared_data.rglob("spec-*.fits*") if p.stat().st_size < 5_000_000)
    if not files:
        pytest.skip(f"no LAMOST spectrum lies below {shared_data}")
    page = open_page(served.url)
    page.locator(".drop input").set_input_files(str(files[0]))
    page.wait_for_url("**/file")
    page.get_by_role("heading", name="Nearest spectra").wait_for()
    page.locator(".panel canvas").first.wait_for()
    assert page.locator(".table tbody tr").count() == 40


def test_the_public_is_offered_no_verdicts(shown: Any, open_page: Any) -> None:
    public = Served(shown.atlas, read_only=True)
    try:
        page = open_page(f"{public.url}/anomalies")
        page.locator(".star h2").first.wait_for()
        assert page.locator(".verdict button").count() == 0
        page.keyboard.press("1")
        home = open_page(public.url)
        home.get_by_role("heading", name="Strangest stars").wait_for()
        assert home.locator(".drop").count() == 0
    finally:
        public.stop()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark"), (390, "light"), (1280, "dark")])
def test_pages_fit(served: Served, shown: Any, open_page: Any, width: int, scheme: str) -> None:
    for path in (*PAGES, f"/star/gaia:{shown.source_id[5]}"):
        page = open_page(served.url + path, viewport={"width": width, "height": 850}, color_scheme=scheme)
        page.get_by_role("heading", level=1).first.wait_for()
        page.wait_for_load_state("networkidle")
        size = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert size[0] <= size[1], path
        page.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_pages_can_be_read_and_used_by_everyone(
    served: Served, shown: Any, open_page: Any, width: int, scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    found = {}
    for path in (*PAGES, f"/star/gaia:{shown.source_id[5]}"):
        page = open_page(served.url + path, viewport={"width": width, "height": 850}, color_scheme=scheme)
        page.get_by_role("heading", level=1).first.wait_for()
        page.wait_for_load_state("networkidle")
        violations = axe.run(page).response["violations"]
        serious = [v for v in violations if v["impact"] in ("serious", "critical")]
        if serious:
            found[path] = [(v["id"], [node["html"][:120] for node in v["nodes"]][:3]) for v in serious]
        page.close()
    assert found == {}
