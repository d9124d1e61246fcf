"""Pages say what the queries say, in every format, with ids whole; unchanged ones are not sent again."""

from __future__ import annotations

import io
import json
import struct
from typing import Any

import numpy as np
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from specclip_search.queries.anomalies.anomalies import anomalies
from specclip_search.queries.similar.similar import similar
from specclip_search.web.pages.sky import mollweide
from specclip_search.web.pages.tiles import Tiles, inside_polygon

from .conftest import as_table

PAGES = (
    "/index",
    "/anomalies",
    "/emp",
    "/verdicts",
    "/map",
    "/map/chosen",
    "/map/point",
    "/sky",
    "/sql",
    "/sql/schema",
    "/about",
    "/star/KEY",
    "/star/KEY/neighbours",
)
QUERY = {"/map/chosen": "?box=-1,-1,1,1", "/sql": "?q=SELECT source_id, ra FROM stars ORDER BY source_id LIMIT 7"}


def key_of(shown: Any, number: int = 5) -> str:
    return f"gaia:{shown.source_id[number]}"


def unpacked(body: bytes) -> dict[str, dict[str, Any]]:
    """Panels of the viewer's bytes, by name, with their arrays."""
    (length,) = struct.unpack("<I", body[:4])
    head = json.loads(body[4 : 4 + length])
    numbers = np.frombuffer(body[4 + length :], "<f4")
    return {
        panel["name"]: {**panel, "arrays": {k: numbers[a : a + n] for k, (a, n) in panel["arrays"].items()}}
        for panel in head["panels"]
    }


@pytest.mark.parametrize("page", PAGES)
def test_every_page_in_every_format(client: TestClient, shown: Any, page: str) -> None:
    path = page.replace("KEY", key_of(shown))
    query = QUERY.get(page, "")
    answers = {form: client.get(f"{path}.{form}{query}") for form in ("json", "csv", "vot", "parquet")}
    assert {form: answer.status_code for form, answer in answers.items()} == dict.fromkeys(answers, 200)
    answers["json"].json()
    table = pq.read_table(io.BytesIO(answers["parquet"].content))
    assert answers["csv"].text.splitlines()[0].split(",") == table.column_names
    assert b"<VOTABLE" in answers["vot"].content[:600]
    again = client.get(f"{path}.json{query}", headers={"If-None-Match": answers["json"].headers["etag"]})
    assert again.status_code == 304
    assert again.content == b""
    for answer in answers.values():
        assert "default-src 'self'" in answer.headers["content-security-policy"]


def test_ids_are_texts_for_browsers_and_integers_elsewhere(client: TestClient, shown: Any) -> None:
    query = {"q": "SELECT source_id, source_id + 0 AS unnamed, n_lamost FROM stars ORDER BY source_id LIMIT 3"}
    rows = client.get("/sql.json", params=query).json()
    assert [row[0] for row in rows["rows"]] == [str(i) for i in shown.source_id[:3]]
    assert [row[1] for row in rows["rows"]] == [str(i) for i in shown.source_id[:3]]
    assert rows["rows"][0][2] == 1
    table = pacsv.read_csv(io.BytesIO(client.get("/sql.csv", params=query).content))
    assert table["source_id"].to_pylist() == shown.source_id[:3].tolist()


def test_a_star_s_page(client: TestClient, shown: Any) -> None:
    key = key_of(shown)
    page = client.get(f"/star/{key}.json").json()
    assert page["source_id"] == str(shown.source_id[5])
    assert page["keys"] == {"gaia_xp": key, "lamost_lrs": f"lamost:{shown.obsid[5]}"}
    assert page["ra"] == pytest.approx(180.005)
    truth = {entry["label"]: entry["value"] for entry in page["labels"]}
    assert truth["teff"] == pytest.approx(5500 - 700 * shown.hidden[5, 0], rel=1e-5)
    assert page["anomaly"]["row"]["lrs_spec_id"] == str(shown.obsid[5])
    assert page["anomaly"]["z"][0]["z"] >= page["anomaly"]["z"][-1]["z"]
    assert page["emp"]["row"]["source_id"] == str(shown.source_id[5])
    assert page["map"] == pytest.approx(shown.hidden[5, :2] + [8, 0], abs=1e-4)
    # the same star by its other spectrum
    other = client.get(f"/star/lamost:{shown.obsid[5]}@dr9.json").json()
    assert other["source_id"] == page["source_id"]
    for text in ("gaia:17", "lamost:101001@dr1", "gaia:abc", "etc/passwd", "gaia:1@../..", "nobody:5"):
        answer = client.get(f"/star/{text}.json")
        assert answer.status_code in (400, 404), text
        assert answer.json()["error"]


def test_neighbours_are_those_of_similar(client: TestClient, shown: Any) -> None:
    key = key_of(shown, 40)
    page = client.get(f"/star/{key}/neighbours.json?k=9&within=gaia_xp").json()
    table = as_table(page)
    expected = similar(shown.atlas, key, 9, "gaia_xp", exclude_repeats=True)
    assert table["spec_id"].to_pylist() == [str(i) for i in expected.spec_id]
    assert page["keys"][0] == f"gaia:{expected.spec_id[0]}"
    assert table["feh"].to_pylist() == pytest.approx(expected.feh.tolist(), rel=1e-5)
    refused = client.get(f"/star/{key}/neighbours.json?k=100000").json()
    assert refused["error"] == "k must be a whole number from 1 to 200; found '100000'."
    assert client.get(f"/star/{key}/neighbours.json?where=1=1").status_code == 400


def test_spectra_of_the_viewer(client: TestClient, shown: Any) -> None:
    from specclip_search.queries.space.spectra import read_spectra

    panels = unpacked(client.get(f"/star/{key_of(shown, 9)}/spectra").content)
    assert list(panels) == ["lamost_lrs", "gaia_xp"]
    for name, ids in (("lamost_lrs", shown.obsid), ("gaia_xp", shown.source_id)):
        arrays = panels[name]["arrays"]
        stored = read_spectra(shown.atlas, name, ids[[9]])
        np.testing.assert_allclose(arrays["flux"], stored.flux[0], rtol=1e-6)
        assert (arrays["low"] <= arrays["high"]).all()
        assert np.abs(arrays["residual"]).mean() < 3
        assert {window["name"] for window in panels[name]["windows"]}
        assert any(window["sigma"] is not None for window in panels[name]["windows"])
    other = "gaia_xp"
    predicted = shown.model.translate("lamost_lrs", read_spectra(shown.atlas, "lamost_lrs", shown.obsid[[9]]).flux)
    np.testing.assert_allclose(panels[other]["arrays"]["predicted"], predicted[0], rtol=1e-4)
    own = unpacked(client.get(f"/star/{key_of(shown, 9)}/spectra?own=1").content)
    assert set(own["gaia_xp"]["arrays"]) == {"wavelength", "flux", "error"}


def test_the_residual_of_windows_agrees_with_that_of_pixels(client: TestClient, shown: Any) -> None:
    number = int(shown.planted["emission"][0])
    panel = unpacked(client.get(f"/star/{key_of(shown, number)}/spectra").content)["lamost_lrs"]
    told = {window["name"]: window["sigma"] for window in panel["windows"]}
    wave = panel["arrays"]["wavelength"]
    inside = (wave > 4850) & (wave < 4875)
    assert told["Hbeta"] > 5
    assert panel["arrays"]["residual"][inside].mean() > 3


def test_lists_are_those_of_the_queries_and_filters_filter(client: TestClient, shown: Any) -> None:
    table = as_table(client.get("/anomalies.json?top=20").json())
    expected = anomalies(shown.atlas, top=20)
    assert table["lrs_spec_id"].to_pylist() == [str(i) for i in expected.lrs_spec_id]
    np.testing.assert_allclose(table["score"].to_pylist(), expected.score, rtol=1e-6)
    kind = table["kind"].to_pylist()[0]
    assert set(as_table(client.get(f"/anomalies.json?kind={kind}").json())["kind"].to_pylist()) == {kind}
    strict = as_table(client.get("/anomalies.json?score=3&snr=40").json())
    assert min([*strict["score"].to_pylist(), 3]) >= 3
    assert min([*strict["lrs_snr"].to_pylist(), 40]) >= 40
    poor = as_table(client.get("/emp.json?top=50&p=0.2").json())
    assert poor["probability"].to_pylist() == sorted(poor["probability"].to_pylist(), reverse=True)
    assert min([*poor["probability"].to_pylist(), 0.2]) >= 0.2
    assert client.get("/anomalies.json?top=x").status_code == 400
    assert client.get("/anomalies.json?q=nan").status_code == 400


def test_tiles_count_every_point_once(client: TestClient, shown: Any) -> None:
    info = client.get("/map.json").json()
    assert info["points"] == 800
    for level in range(info["levels"] + 1):
        total = 0
        for x in range(2**level):
            for y in range(2**level):
                body = client.get(f"/map/tiles/{level}/{x}/{y}").content
                assert len(body) == 256 * 256 * 3
                total += int(np.frombuffer(body, "<u2", 256 * 256).sum(dtype=int))
        assert total == 800
    coloured = client.get("/map/tiles/0/0/0?color=feh").content
    counts = np.frombuffer(coloured, "<u2", 256 * 256)
    colours = np.frombuffer(coloured, np.uint8, 256 * 256, 2 * 256 * 256)
    assert ((colours == 255) == (counts == 0)).all()
    for bad in ("9/0/0", "1/2/0", "x/0/0", "0/0/-1"):
        assert client.get(f"/map/tiles/{bad}").status_code == 400
    assert "There are: " in client.get("/map.json?color=nothing").json()["hint"]


def test_a_mean_colour_is_the_mean(shown: Any) -> None:
    rng = np.random.default_rng(3)
    x, y, colour = rng.normal(size=20_000), rng.normal(size=20_000), rng.uniform(size=20_000)
    colour[::7] = np.nan
    tiles = Tiles(x, y)
    grid = tiles.colour_grid(colour)
    body = tiles.tile(0, 0, 0, grid)
    counts = np.frombuffer(body, "<u2", 65_536).reshape(256, 256)
    iy, ix = np.unravel_index(int(counts.argmax()), counts.shape)
    side = tiles.extent.side / 256
    inside = (np.floor((tiles.x.astype(float) - tiles.extent.x0) / side) == ix) & (
        np.floor((tiles.y.astype(float) - tiles.extent.y0) / side) == iy
    )
    assert inside.sum() == counts[iy, ix]
    mean = np.frombuffer(body, np.uint8, 65_536, 2 * 65_536).reshape(256, 256)[iy, ix] / 254
    assert mean == pytest.approx(np.nanmean(colour[inside]), abs=1 / 254)


def test_points_of_a_box_are_those_in_it(client: TestClient, shown: Any) -> None:
    body = client.get("/map/points?box=-1,-1,1,1&color=teff").content
    count = len(body) // 9
    rows = np.frombuffer(body, "<u4", count)
    hidden = shown.hidden.astype(np.float32)
    expected = np.flatnonzero((np.abs(hidden[:, 0]) <= 1) & (np.abs(hidden[:, 1]) <= 1))
    assert rows.tolist() == expected.tolist()
    x = np.frombuffer(body, "<u2", count, 4 * count) / 65_535 * 2 - 1
    np.testing.assert_allclose(x, hidden[rows, 0], atol=1e-4)
    assert client.get(f"/map/point.json?row={rows[0]}").json()["keys"] == [f"lamost:{shown.obsid[rows[0]]}"]
    assert client.get("/map/points?box=1,1,0,0").status_code == 400


@pytest.mark.parametrize("area", ["box=-0.7,-0.3,0.9,1.1", "lasso=-1,-1,1.2,-0.8,0.3,0.1,1,1.4,-0.9,1"])
def test_an_area_s_rows_are_those_of_its_sql(client: TestClient, area: str) -> None:
    chosen = client.get(f"/map/chosen.json?{area}").json()
    assert chosen["chosen"] > 50
    by_sql = client.get("/sql.csv", params={"q": chosen["sql"]}).content
    by_area = client.get(f"/map/chosen.csv?{area}").content
    ids = [sorted(pacsv.read_csv(io.BytesIO(text))["spec_id"].to_pylist()) for text in (by_sql, by_area)]
    assert ids[0] == ids[1]
    assert {mean["modality"] for mean in chosen["mean"]} == {"lamost_lrs"}
    assert len(chosen["mean"][0]["median"]) == 1462


def test_inside_a_polygon() -> None:
    from matplotlib.path import Path as Outline

    corners = np.array([[0.0, 0.0], [4, 1], [2, 2], [5, 5], [-1, 4]])
    rng = np.random.default_rng(1)
    x, y = rng.uniform(-2, 6, (2, 5000))
    inside = inside_polygon(x, y, corners)
    assert (inside == Outline(corners).contains_points(np.column_stack([x, y]))).all()


def test_the_sky_counts_every_star_once_in_equal_areas(client: TestClient, shown: Any) -> None:
    page = client.get("/sky.json").json()
    assert page["stars"] == len(shown.source_id)
    for frame in ("icrs", "galactic"):
        body = client.get(f"/sky/density?frame={frame}").content
        width, height = struct.unpack("<II", body[:8])
        counts = np.frombuffer(body, "<u2", offset=8).reshape(height, width)
        assert counts.sum(dtype=int) == len(shown.source_id)
    # stars at 180 degrees lie at the rim, for 0 h is the middle
    x, y = mollweide(np.array([0.0, 180.0, 90.0]), np.array([0.0, 90.0, 0.0]))
    np.testing.assert_allclose(x, [0, 0, 1], atol=1e-9)
    np.testing.assert_allclose(y, [0, 1, 0], atol=1e-9)
    assert client.get("/sky/density?frame=horizon").status_code == 400


def test_what_is_not_there_is_told(client: TestClient, opened: Any, own_atlas: Any) -> None:
    import shutil

    from specclip_search.atlas.manifest import forget_stages

    names = ("map", "anomalies", "emp")
    for name in names:
        shutil.rmtree(own_atlas.path / "results" / name)
    assert "run the command that makes this stage" in opened(own_atlas).get("/map.json").json()["hint"]
    forget_stages(own_atlas.path, {f"results/{name}" for name in names})
    bare = opened(own_atlas)
    for page, command in (("map", "map"), ("anomalies", "anomalies"), ("emp", "emp")):
        answer = bare.get(f"/{page}.json")
        assert answer.status_code == 400
        assert f"specclip-search {command}" in answer.json()["hint"]
    assert [check["good"] for check in bare.get("/about.json").json()["health"]] == [True, True, False, False, False]
    assert bare.get(f"/star/lamost:{101001}.json").json()["anomaly"] is None
    assert client.get("/nothing").status_code == 404


def test_a_changed_atlas_is_seen_at_once(opened: Any, own_atlas: Any) -> None:
    from specclip_search.queries.anomalies.verdicts import record

    explorer = opened(own_atlas)
    before = explorer.get("/anomalies.json?top=3")
    row = as_table(before.json())
    pair = int(row["lrs_spec_id"][2].as_py()), int(row["xp_spec_id"][2].as_py())
    record(own_atlas, "anomalies", pair, "interesting")
    after = explorer.get("/anomalies.json?top=600", headers={"If-None-Match": before.headers["etag"]})
    assert after.status_code == 200
    table = as_table(after.json())
    place = table["lrs_spec_id"].to_pylist().index(row["lrs_spec_id"][2].as_py())
    assert table["verdict"][place].as_py() == "interesting"
