"""The map keeps near spectra near, is the same twice, keeps ids whole and is coloured by any column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from specclip_search.errors import QueryError
from specclip_search.queries.anomalies.anomalies import anomalies
from specclip_search.queries.maps.colours import colouring
from specclip_search.queries.maps.layout import lay_out, place, principal_axes
from specclip_search.queries.maps.map import check_color, label_columns, make_map, map_table, write_map
from specclip_search.queries.maps.picture import draw_map, map_image, view_of

pytestmark = pytest.mark.usefixtures("toy_model")

pytest.importorskip("matplotlib")
pytest.importorskip("umap")


@pytest.fixture(scope="module")
def mapped(drawn: Any) -> Any:
    anomalies(drawn.atlas, top=5)
    make_map(drawn.atlas, sample=600, seed=4)
    return drawn


def clusters(rows: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors in three tight groups, and the group of each."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 3, rows)
    vectors = np.eye(3, 60)[group] + 0.05 * rng.normal(size=(rows, 60))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), group


def test_layout_keeps_groups_apart_and_places_the_rest_in_them() -> None:
    vectors, group = clusters()
    layout = lay_out(lambda rows: vectors[rows], len(vectors), 200, seed=1)
    again = lay_out(lambda rows: vectors[rows], len(vectors), 200, seed=1)
    np.testing.assert_array_equal(layout.position, again.position)
    assert layout.sampled.size == 200
    assert np.isfinite(layout.position).all()
    rest = np.setdiff1d(np.arange(len(vectors)), layout.sampled)
    middle = np.array([layout.position[layout.sampled][group[layout.sampled] == g].mean(axis=0) for g in range(3)])
    nearest = np.argmin(np.linalg.norm(layout.position[rest][:, None] - middle, axis=2), axis=1)
    assert (nearest == group[rest]).mean() > 0.99
    assert not np.array_equal(layout.position, lay_out(lambda rows: vectors[rows], 600, 200, seed=2).position)


def test_vectors_are_read_in_order_and_in_bounded_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, _ = clusters()
    monkeypatch.setattr("specclip_search.queries.maps.layout.BATCH_ROWS", 64)
    asked: list[np.ndarray] = []
    lay_out(lambda rows: asked.append(rows) or vectors[rows], len(vectors), 100, seed=1)  # type: ignore[func-returns-value]
    assert max(len(rows) for rows in asked) <= 64
    assert all((np.diff(rows) > 0).all() for rows in asked)
    np.testing.assert_array_equal(np.sort(np.concatenate(asked)), np.arange(600))


def test_a_point_between_islands_is_placed_on_one() -> None:
    laid = np.array([[0.0, 0.0]] * 6 + [[10.0, 0.0]] * 4, dtype=np.float32)
    position = place(laid, np.arange(10)[None], np.ones((1, 10)))
    np.testing.assert_allclose(position, [[0.0, 0.0]], atol=1e-6)
    alone = place(laid, np.array([[7, -1, -1]]), np.array([[0.1, 9.0, 9.0]]))
    np.testing.assert_allclose(alone, [[10.0, 0.0]], atol=1e-6)


def test_principal_axes_are_numpys() -> None:
    rng = np.random.default_rng(0)
    data = (rng.normal(size=(300, 6)) * [5, 3, 1, 0.1, 0.1, 0.1]).astype(np.float32)
    mean, axes, explained = principal_axes(data, 2)
    _, values, right = np.linalg.svd(data - data.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(axes.T @ right[:2].T), np.eye(2), atol=1e-4)
    assert explained == pytest.approx((values[:2] ** 2).sum() / (values**2).sum(), rel=1e-4)
    np.testing.assert_allclose(mean, data.mean(axis=0), atol=1e-5)


def test_map_holds_every_spectrum_with_its_stars_labels(mapped: Any, tmp_path: Path) -> None:
    table = map_table(mapped.atlas, label_columns(mapped.atlas))
    write_map(table, tmp_path / "map.parquet")
    read = pq.read_table(tmp_path / "map.parquet")
    assert read.num_rows == 2 * len(mapped.source_id)
    assert {"x", "y", "key", "spec_id", "source_id", "modality", "teff", "feh", "anomaly_score"} <= set(
        read.column_names
    )
    assert read.schema.field("source_id").type == pa.int64()
    assert read.schema.field("teff").metadata[b"unit"] == b"K"
    frame = read.to_pandas()
    teff = dict(zip(mapped.source_id.tolist(), (5500 - 700 * mapped.hidden[:, 0]).tolist(), strict=True))
    np.testing.assert_allclose(frame.teff, [teff[star] for star in frame.source_id.tolist()])
    assert set(frame.key) == {f"gaia:{i}" for i in mapped.source_id} | {f"lamost:{i}" for i in mapped.obsid}
    assert np.isfinite(frame[["x", "y", "anomaly_score"]].to_numpy()).all()


def test_near_in_the_map_is_near_in_labels(mapped: Any) -> None:
    table = map_table(mapped.atlas, ["teff", "feh"]).to_pandas()
    xp = table[table.modality == "gaia_xp"]
    xy = xp[["x", "y"]].to_numpy()
    near = np.argsort(np.linalg.norm(xy[:, None] - xy[None], axis=2), axis=1)[:, 1:6]
    for name in ("teff", "feh"):
        values = xp[name].to_numpy()
        assert np.abs(values[near] - values[:, None]).mean() < 0.6 * np.abs(values[:, None] - values[None]).mean()


def test_a_kept_map_is_not_made_again(mapped: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specclip_search.queries.maps.map.lay_out", lambda *_: pytest.fail("the layout was made again"))
    stage = make_map(mapped.atlas, sample=600, seed=4)
    assert stage.parts()[0].extra["sample"] == 600
    assert mapped.atlas.sql("SELECT count(*) FROM map WHERE sampled").fetchall() == [(600,)]


def test_pictures_of_numbers_words_and_density(mapped: Any, tmp_path: Path) -> None:
    table = map_table(mapped.atlas, ["feh", "label_source"])
    for column in ("feh", "modality", "label_source", None):
        draw_map(table, column, tmp_path / f"{column}.png")
        assert (tmp_path / f"{column}.png").stat().st_size > 10_000
    draw_map(table, "feh", tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "feh.png").read_bytes()
    assert colouring(table, "modality").categories == ("gaia_xp", "lamost_lrs")
    assert colouring(table, "feh").label == "feh [dex]"


@pytest.mark.parametrize("apart", [8.0, 0.0])
def test_instruments_are_named_where_their_parts_lie_apart(tmp_path: Path, apart: float) -> None:
    rng = np.random.default_rng(5)
    modality = np.repeat(["gaia_xp", "lamost_lrs"], 300)
    x = rng.normal(size=600) + apart * (modality == "lamost_lrs")
    table = pa.table({"x": x, "y": rng.normal(size=600), "modality": modality, "feh": rng.normal(size=600)})
    draw_map(table, "feh", tmp_path / "map.svg")
    text = (tmp_path / "map.svg").read_text(encoding="utf-8")
    for title in ("Gaia BP/RP", "LAMOST low resolution"):
        assert (f"<!-- {title} -->" in text) is (apart > 0)


def test_a_pixel_shows_the_mean_and_the_commonest() -> None:
    table = pa.table({"x": [0.1, 0.1, 0.1, 0.9], "y": [0.1, 0.1, 0.1, 0.9], "v": [1.0, 3.0, np.nan, 9.0],
                      "c": ["b", "b", "a", "a"]})  # fmt: skip
    x, y = table["x"].to_numpy(), table["y"].to_numpy()
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb

    numbers = colouring(table, "v")
    image, most = map_image(x, y, numbers, (0, 1, 0, 1), 2)
    share = (2.0 - numbers.low) / (numbers.high - numbers.low)
    np.testing.assert_allclose(image[0, 0, :3], colormaps["viridis"](share)[:3], atol=0.01)
    assert most == 3
    assert image[0, 1, 3] == image[1, 0, 3] == 0
    image, _ = map_image(x, y, colouring(table, "c"), (0, 1, 0, 1), 2)
    np.testing.assert_allclose(
        image[0, 0, :3], to_rgb("#E69F00" if colouring(table, "c").categories[0] == "a" else "#0072B2")
    )


def test_view_is_square_and_holds_all_points() -> None:
    left, right, bottom, top = view_of(np.array([0.0, 4.0]), np.array([1.0, 2.0]))
    assert right - left == pytest.approx(top - bottom)
    assert left < 0 < 4 < right
    assert bottom < 1 < 2 < top


def test_requests_that_cannot_be_met(mapped: Any) -> None:
    with pytest.raises(QueryError, match="there is no 'colour'"):
        check_color(mapped.atlas, "colour")
    with pytest.raises(QueryError, match="at least 50 spectra in its sample; found 20"):
        make_map(mapped.atlas, sample=20)
    empty = pa.table({"x": [0.0], "y": [0.0], "v": pa.array([None], pa.float64())})
    with pytest.raises(QueryError, match="No mapped spectrum has a value of 'v'"):
        colouring(empty, "v")
