"""LAMOST spectra find their Gaia stars: by id first, else by position, and never by a guess."""

import numpy as np
import pyarrow as pa
import pytest

from specclip_search import Atlas
from specclip_search.atlas.arrays import table_from_columns
from specclip_search.atlas.links import NO_SOURCE, star_links
from specclip_search.atlas.schemas import spectra_schema, vectors_schema
from specclip_search.catalogs.ingest import ingest_catalog_table
from specclip_search.errors import AtlasError, QueryError
from specclip_search.indexing.vectors.keys import KeyTable
from specclip_search.queries.sky.link import link_stars
from specclip_search.queries.space.pairs import read_keys, star_keys
from specclip_search.surveys import get_modality

GAIA = 2**61 + np.arange(8, dtype=np.int64) * 1001
OBSID = 100 + np.arange(8, dtype=np.int64)
ARCSEC = 1 / 3600


def lrs_table(ra, dec, source_id=None) -> pa.Table:
    n = len(OBSID)
    columns = {name: [None] * n for name in spectra_schema(get_modality("lamost_lrs").columns, 1462).names}
    columns |= {
        "spec_id": OBSID,
        "release": ["dr10"] * n,
        "simulated": [False] * n,
        "ra": pa.array(ra, from_pandas=True),
        "dec": pa.array(dec, from_pandas=True),
        "flux": np.ones((n, 1462)),
        "error": np.ones((n, 1462)),
    }
    if source_id is not None:
        columns["source_id"] = source_id
    return table_from_columns(columns, spectra_schema(get_modality("lamost_lrs").columns, 1462))


@pytest.fixture
def atlas(tmp_path):
    """Eight spectra: 0 own id, 1-2 by catalogue, 3 by place, 4 ambiguous, 5 fast, 6 alone, 7 without place."""
    atlas = Atlas.create(tmp_path / "a")
    ra, dec = 10.0 + np.arange(8), np.full(8, 30.0)
    own = np.ma.array(GAIA, mask=np.arange(8) != 0)
    table = lrs_table(np.where(np.arange(8) == 7, np.nan, ra), np.where(np.arange(8) == 7, np.nan, dec), own)
    stage = atlas.spectra("lamost_lrs")
    with stage.lock():
        stage.write(0, table, schema=table.schema, inputs="x")
    ingest_catalog_table(
        atlas, "lamost", pa.table({"obsid": OBSID[1:3], "gaia_source_id": [str(i) for i in GAIA[1:3]]})
    )
    star_ra = np.concatenate([ra[:6], [ra[4], ra[6]]])
    star_dec = np.concatenate([dec[:6], [dec[4] + 0.8 * ARCSEC, dec[6] + 60 * ARCSEC]])
    # star 5 has moved 8 arcsec north since 2000
    motion = np.where(np.arange(8) == 5, 500.0, 0.0)
    star_dec[5] += 8 * ARCSEC
    ingest_catalog_table(
        atlas,
        "gaia",
        pa.table({"source_id": GAIA, "ra": star_ra, "dec": star_dec, "pmra": np.zeros(8), "pmdec": motion}),
    )
    return atlas


def test_ids_of_a_catalogue_link_without_any_command(atlas):
    links = star_links(atlas, "obsid")
    assert dict(zip(links.spec_id.tolist(), links.source_id.tolist(), strict=True)) == {101: GAIA[1], 102: GAIA[2]}
    stars, known = read_keys(atlas.spectra("lamost_lrs").parts()[0], links)
    assert stars.tolist() == [GAIA[0], GAIA[1], GAIA[2], *[NO_SOURCE] * 5]
    assert known.sum() == 3


def test_positions_link_the_rest_and_ambiguous_ones_are_only_reported(atlas):
    report = link_stars(atlas, "gaia", radius_arcsec=2.0)
    assert (report.spectra, report.by_id, report.by_position) == (8, 3, 2)
    assert (report.ambiguous, report.unmatched, report.without_position) == (1, 1, 1)
    rows = {row["obsid"]: row for row in atlas.catalog("links").read().to_pylist()}
    assert rows[103]["source_id"] == GAIA[3]
    assert rows[105]["source_id"] == GAIA[5]
    assert rows[104]["source_id"] is None
    assert rows[104]["candidates"] == 2
    assert set(rows) == {103, 104, 105}
    keys = star_keys(atlas, "lamost_lrs")
    assert keys.source_id.tolist() == [GAIA[0], GAIA[1], GAIA[2], GAIA[3], GAIA[5]]
    assert link_stars(atlas, "gaia", radius_arcsec=2.0) == report


def test_without_proper_motion_the_fast_star_is_lost(atlas):
    assert link_stars(atlas, "gaia", lamost_epoch=2016.0).by_position == 1


def test_the_index_knows_linked_stars(atlas):
    stage = atlas.vectors("mini", "lamost_lrs")
    columns = {
        "spec_id": OBSID,
        "source_id": np.ma.array(GAIA, mask=True),
        "release": ["dr10"] * 8,
        "vector": np.eye(8),
        "norm": np.ones(8),
    }
    with stage.lock():
        stage.write(
            0,
            table_from_columns(columns, vectors_schema(8)),
            schema=vectors_schema(8),
            inputs="x",
            extra={"model_digest": "m"},
        )
    link_stars(atlas, "gaia")
    keys = KeyTable.open(atlas, "mini", "lamost_lrs")
    assert keys.rows_of_sources(GAIA[[1, 3, 4]])[0].tolist() == [1, 3]


def test_where_nothing_lies_near_no_earlier_link_is_left(atlas):
    link_stars(atlas, "gaia")
    far = {"source_id": GAIA + 10_001, "ra": 200.0 + np.arange(8), "dec": np.zeros(8)}
    ingest_catalog_table(atlas, "far", pa.table(far))
    report = link_stars(atlas, "far")
    assert (report.by_id, report.by_position, report.ambiguous, report.unmatched) == (3, 0, 0, 4)
    assert not atlas.catalog("links").exists
    assert (star_keys(atlas, "lamost_lrs").source_id != NO_SOURCE).sum() == 3
    assert link_stars(atlas, "gaia").by_position == 2
    assert atlas.sql("SELECT count(*) AS n FROM links").df()["n"].tolist() == [3]


def test_an_obsid_of_two_stars_is_linked_to_none(atlas):
    ingest_catalog_table(atlas, "other", pa.table({"obsid": OBSID[1:2], "source_id": GAIA[7:8]}))
    links = star_links(atlas, "obsid")
    assert links.spec_id.tolist() == [102]
    assert links.conflicts.tolist() == [101]
    assert link_stars(atlas, "gaia").conflicts == 1


def test_what_cannot_be_linked_is_told(atlas, tmp_path):
    ingest_catalog_table(atlas, "bare", pa.table({"source_id": GAIA}))
    with pytest.raises(QueryError, match="lacks ra, dec"):
        link_stars(atlas, "bare")
    with pytest.raises(AtlasError, match="no catalogue 'nowhere'"):
        link_stars(atlas, "nowhere")
    with pytest.raises(AtlasError, match="no lamost_lrs spectra"):
        link_stars(Atlas.create(tmp_path / "b"))


def test_a_catalogue_whose_stars_lie_elsewhere_links_nothing(atlas):
    """LAMOST's early catalogues carry ids of Gaia DR2; some name another star of DR3, degrees away."""
    given = {OBSID[1]: GAIA[5], OBSID[2]: GAIA[2], OBSID[6]: 777}
    pairs = {"obsid": list(given), "source_id": [int(star) for star in given.values()]}
    ingest_catalog_table(atlas, "lamost", pa.table(pairs))
    report = link_stars(atlas, "gaia")
    assert report.elsewhere == 1
    parts = (report.by_id, report.by_position, report.ambiguous, report.unmatched, report.without_position)
    assert sum(parts) + report.elsewhere == report.spectra == 8
    rows = dict(atlas.sql("SELECT spec_id, source_id FROM spectra").fetchall())
    # the second agrees; of the third no position is known, and its id is believed
    assert [rows[int(OBSID[n])] for n in (1, 2, 6)] == [None, int(GAIA[2]), 777]
    links = star_links(atlas, "obsid")
    assert int(OBSID[1]) not in links.spec_id.tolist()
    assert int(OBSID[2]) in links.spec_id.tolist()
    listed = atlas.sql("SELECT obsid, separation_arcsec > 3600 FROM links WHERE conflict").fetchall()
    assert listed == [(int(OBSID[1]), True)]


def dr4_stars(atlas):
    """Star 5, which moves 500 mas/yr north, as DR4 has it in 2017.5; ids are others than DR3's."""
    rows = atlas.catalog("gaia").read()
    dec = rows["dec"].to_numpy().copy()
    dec[5] += 1.5 * 0.5 * ARCSEC
    return {"source_id": GAIA + 7, "ra": rows["ra"], "dec": dec, "pmra": rows["pmra"], "pmdec": rows["pmdec"]}


@pytest.mark.parametrize(
    ("name", "more", "epoch"),
    [
        ("gaia", {}, 2016.0),
        ("gaiadr4", {}, 2017.5),
        ("positions", {"ref_epoch": np.full(8, 2017.5)}, 2017.5),
        ("positions", {"release": ["Gaia DR4"] * 8}, 2017.5),
    ],
)
def test_the_epoch_of_positions_follows_the_release(atlas, name, more, epoch):
    if name != "gaia":
        ingest_catalog_table(atlas, name, pa.table(dr4_stars(atlas) | more))
    report = link_stars(atlas, name, radius_arcsec=0.5)
    assert (report.gaia_epoch, report.by_position) == (epoch, 3)
    separation = {row["obsid"]: row["separation_arcsec"] for row in atlas.catalog("links").read().to_pylist()}
    assert separation[105] < 1e-3
    wrong = link_stars(atlas, name, radius_arcsec=0.5, gaia_epoch=4033.5 - epoch)
    assert wrong.by_position == 2


def test_a_cross_walk_gives_the_ids_of_the_atlas_own_spectra(atlas):
    """Positions of DR4, XP spectra of DR3: links name the ids that the spectra have."""
    xp = get_modality("gaia_xp")
    columns = {name: [None] * 8 for name in spectra_schema(xp.columns, 343).names}
    columns |= {"spec_id": GAIA, "source_id": GAIA, "release": ["dr3"] * 8, "simulated": [False] * 8,
                "flux": np.ones((8, 343)), "error": np.ones((8, 343))}
    table = table_from_columns(columns, spectra_schema(xp.columns, 343))
    with atlas.spectra("gaia_xp").lock():
        atlas.spectra("gaia_xp").write(0, table, schema=table.schema, inputs="x")
    ingest_catalog_table(atlas, "gaiadr4", pa.table(dr4_stars(atlas)))
    # star 3 has two neighbours in DR4, the nearer one is it
    walk = {"dr3_source_id": [*GAIA.tolist(), int(GAIA[3])], "dr4_source_id": [*(GAIA + 7).tolist(), 5],
            "angular_distance": [*[0.1] * 8, 40.0]}
    report = ingest_catalog_table(atlas, "walk", pa.table(walk))
    assert report.keys == []
    assert atlas.catalog("walk").read().schema.names == list(walk)
    linked = link_stars(atlas, "gaiadr4", radius_arcsec=0.5)
    assert (linked.by_position, linked.translated, linked.elsewhere) == (3, 3, 0)
    rows = {row["obsid"]: row["source_id"] for row in atlas.catalog("links").read().to_pylist()}
    assert (rows[103], rows[105]) == (GAIA[3], GAIA[5])
    # ids that a catalogue gives are those of DR3: they are checked against their stars' positions in DR4
    ingest_catalog_table(atlas, "lamost", pa.table({"obsid": OBSID[1:3], "source_id": GAIA[[5, 2]]}))
    assert link_stars(atlas, "gaiadr4", radius_arcsec=0.5).elsewhere == 1


def test_ids_in_text_and_lone_columns_of_a_cross_walk(atlas):
    text = {"dr2_source_id": ["17", None], "dr3_source_id": ["4295806720", "x"]}
    report = ingest_catalog_table(atlas, "older", pa.table(text))
    assert report.invalid_ids == {"dr3_source_id": 1}
    assert atlas.catalog("older").read()["dr3_source_id"].to_pylist() == [4295806720, None]
    alone = ingest_catalog_table(atlas, "alone", pa.table({"dr4_source_id": GAIA}))
    assert alone.keys == ["source_id"]
