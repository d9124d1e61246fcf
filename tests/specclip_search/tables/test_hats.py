"""HATS layout: tiles that share out every row once, margins that miss none, opened by LSDB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from specclip_search.atlas.schemas import described
from specclip_search.errors import QueryError
from specclip_search.tables.hats import INDEX, margin_name, write_hats
from specclip_search.tables.sky_tiles import Tiles, margin_order, margin_rows, share_out, sky_cells, with_gaps


def field_stars(rows: int, seed: int = 0) -> pa.Table:
    """A crowded cluster in an empty sky; some ids are beyond floats, one value and one position are missing."""
    rng = np.random.default_rng(seed)
    ra = np.concatenate([rng.uniform(0, 360, rows // 2), 40 + rng.normal(0, 0.3, rows - rows // 2)])
    dec = np.concatenate([np.degrees(np.arcsin(rng.uniform(-1, 1, rows // 2))), rng.normal(0, 0.3, rows - rows // 2)])
    schema = pa.schema(
        [
            described("source_id", pa.int64(), "Gaia source_id", ucd="meta.id;meta.main"),
            described("ra", pa.float64(), "right ascension", "deg", "pos.eq.ra;meta.main"),
            described("dec", pa.float64(), "declination", "deg", "pos.eq.dec;meta.main"),
            described("feh", pa.float32(), "[Fe/H]", "dex", "phys.abund.Fe"),
            pa.field("visits", pa.int64()),
        ]
    )
    return pa.table(
        [
            2**61 + np.arange(rows),
            pa.array([None, *ra[1:]]),
            dec,
            rng.normal(size=rows).astype(np.float32),
            pa.array([None if i % 3 == 0 else i for i in range(rows)], pa.int64()),
        ],
        schema=schema,
    )


def test_tiles_hold_few_rows_and_cover_the_sky() -> None:
    counts = np.zeros(12 * 4**4, int)
    counts[[5, 6, 7, 100, 3000]] = [40, 3, 60, 10, 500]
    tiles = share_out(counts, 4, 100)
    of = tiles.of(np.arange(len(counts)), 4)
    assert (of[counts > 0] >= 0).all()
    # 40 + 3 + 60 are too many for one tile; 500 rows in one finest cell cannot be parted
    assert sorted(int(counts[of == i].sum()) for i in range(len(tiles))) == [3, 10, 40, 60, 500]
    cover = with_gaps(tiles)
    assert (cover.of(np.arange(len(counts)), 4) >= 0).all()
    assert float(np.sum(4.0**-cover.order)) == 12.0
    assert set(zip(tiles.order, tiles.pixel, strict=True)) <= set(zip(cover.order, cover.pixel, strict=True))


@pytest.mark.parametrize("around", [(0.0, 0.0), (45.0, 41.8), (0.3, 89.7), (180.0, -89.9), (90.0, 0.0)])
def test_margin_misses_no_row_near_an_edge(around: tuple[float, float]) -> None:
    rng = np.random.default_rng(1)
    ra = (around[0] + rng.uniform(-0.5, 0.5, 2000) / max(0.01, np.cos(np.radians(around[1])))) % 360
    dec = np.clip(around[1] + rng.uniform(-0.5, 0.5, 2000), -90, 90)
    arcsec, order = 30.0, margin_order(30.0)
    cover = with_gaps(share_out(np.bincount(sky_cells(ra, dec, 9), minlength=12 * 4**9), 9, 50))
    assert order >= cover.order.max()
    rows, tiles = margin_rows(cover, sky_cells(ra, dec, order), order)
    found = set(zip(rows.tolist(), tiles.tolist(), strict=True))
    own = cover.of(sky_cells(ra, dec))
    # positions on circles about each row: the tiles they fall in are within reach of it
    for angle in np.linspace(0, 2 * np.pi, 16, endpoint=False):
        near_dec = dec + arcsec / 3600 * np.sin(angle)
        near_ra = ra + arcsec / 3600 * np.cos(angle) / np.cos(np.radians(dec))
        inside = np.abs(near_dec) < 89.999
        other = cover.of(sky_cells(near_ra[inside], near_dec[inside]))
        rows_inside = np.flatnonzero(inside)
        across = other != own[rows_inside]
        assert set(zip(rows_inside[across].tolist(), other[across].tolist(), strict=True)) <= found


def test_every_row_once_with_its_metadata(tmp_path: Path) -> None:
    table = field_stars(5000)
    report = write_hats(table.to_batches(700), table.schema, tmp_path / "stars", max_rows=300)
    assert (report.read, report.kept, report.without_position) == (5000, 4999, 1)
    files = sorted((tmp_path / "stars" / "stars" / "dataset").rglob("*.parquet"))
    assert len(files) == report.tiles > 15
    parts = [pq.ParquetFile(file).read() for file in files]
    assert max(part.num_rows for part in parts) <= 300
    for file, part in zip(files, parts, strict=True):
        order, pixel = int(file.parts[-3].split("=")[1]), int(file.stem.split("=")[1])
        cells = part[INDEX].to_numpy()
        assert (np.diff(cells) >= 0).all()
        assert set(Tiles(np.array([order]), np.array([pixel])).of(cells).tolist()) == {0}
    whole = pa.concat_tables(parts).drop_columns([INDEX]).sort_by("source_id")
    assert whole.equals(table.slice(1), check_metadata=False)
    assert whole.schema.field("feh").metadata == table.schema.field("feh").metadata
    assert [path.name for path in tmp_path.iterdir()] == ["stars"]


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    table = field_stars(10)
    with pytest.raises(QueryError, match="no column ra"):
        write_hats(table.drop_columns(["ra"]).to_batches(), table.drop_columns(["ra"]).schema, tmp_path / "a")
    nowhere = table.slice(0, 1)
    with pytest.raises(QueryError, match="No row has a finite ra"):
        write_hats(nowhere.to_batches(), table.schema, tmp_path / "a")
    with pytest.raises(QueryError, match="wider than the smallest tile"):
        write_hats(field_stars(5000).to_batches(), table.schema, tmp_path / "a", max_rows=5, margin_arcsec=900)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").touch()
    with pytest.raises(QueryError, match="already exists"):
        write_hats(table.to_batches(), table.schema, tmp_path / "full")


def test_lsdb_opens_it(tmp_path: Path, lsdb: Any) -> None:
    table = field_stars(3000)
    write_hats(table.to_batches(), table.schema, tmp_path / "my stars", max_rows=1000)
    catalogue = lsdb.open_catalog(tmp_path / "my stars")
    assert catalogue.hc_structure.catalog_info.total_rows == len(catalogue) == 2999
    assert catalogue.margin.hc_structure.catalog_info.margin_threshold == 10
    assert catalogue.margin.hc_structure.catalog_info.catalog_name == margin_name("my_stars", 10)
    import dask

    with dask.config.set(scheduler="synchronous"):
        frame = catalogue.compute(progress_bar=False).sort_values("source_id")
    assert frame["source_id"].tolist() == table["source_id"].to_pylist()[1:]
    assert frame["visits"].isna().sum() == 999
    assert str(frame["visits"].dtype) == "int64[pyarrow]"
