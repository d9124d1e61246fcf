"""Pairs of one star: what is simulated says so, counts reconcile, and the same seed gives the same bytes."""

import numpy as np
import pyarrow as pa
import pytest

from specclip_search import GAIA_XP, Atlas
from specclip_search.atlas.arrays import table_from_columns
from specclip_search.atlas.schemas import spectra_schema
from specclip_search.catalogs.ingest import ingest_catalog_table
from specclip_search.errors import AtlasError
from specclip_search.keys import split_of
from specclip_search.simulation.samples.metal_poor import (
    FIRST_SIMULATED_ID,
    draw_targets,
    simulate_metal_poor,
    simulated_ids,
)
from specclip_search.simulation.samples.pairs import read_labels, simulate_pairs
from specclip_search.simulation.spectra.emulator import Emulator
from specclip_search.simulation.spectra.gaia_xp import model_xp, moved_xp, smoothing_matrix, xp_correction
from specclip_search.surveys import get_modality

IDS = np.arange(12, dtype=np.int64) * 640 + 2**60 + 1
TEFF = np.where(np.arange(12) == 3, 2500.0, 4600.0 + 150 * np.arange(12))
FEH = np.linspace(-1.6, -0.6, 12)


def labels_table() -> pa.Table:
    known = np.arange(12) != 5
    return pa.table(
        {
            "source_id": pa.array(IDS),
            "teff": pa.array(TEFF, mask=~known),
            "logg": pa.array(np.full(12, 4.4)),
            "feh": pa.array(FEH),
            "alpha_m": pa.array(np.full(12, 0.2)),
            "ak_targ": pa.array(np.full(12, 0.01)),
        }
    )


def xp_table(rows: slice) -> pa.Table:
    ids = IDS[rows]
    emulator = Emulator.load()
    flux = model_xp(emulator, np.tile([5000.0, 4.4, -1.0, 0.2, 0.0], (len(ids), 1)))
    flux = flux / flux[:, 107:108]
    columns = {name: [None] * len(ids) for name in spectra_schema(get_modality("gaia_xp").columns, 343).names}
    columns |= {
        "spec_id": ids,
        "source_id": ids,
        "release": ["dr3"] * len(ids),
        "simulated": [False] * len(ids),
        "ra": np.full(len(ids), 10.0),
        "flux": flux,
        "error": np.full_like(flux, 0.01),
    }
    return table_from_columns(columns, spectra_schema(get_modality("gaia_xp").columns, 343))


def make_atlas(path, parts=2, catalogue=True) -> Atlas:
    atlas = Atlas.create(path)
    stage = atlas.spectra("gaia_xp")
    with stage.lock():
        for number, rows in enumerate(np.array_split(np.arange(12), parts)):
            table = xp_table(slice(rows[0], rows[-1] + 1))
            stage.write(number, table, schema=table.schema, inputs=str(number))
    if catalogue:
        ingest_catalog_table(atlas, "apogee", labels_table())
    return atlas


def shard_bytes(atlas: Atlas, modality: str) -> list[bytes]:
    return [p.path.read_bytes() for p in atlas.spectra(modality).parts()]


def test_every_labelled_star_gets_a_spectrum_that_says_it_is_simulated(tmp_path):
    atlas = make_atlas(tmp_path / "a")
    report = simulate_pairs(atlas, seed=5)
    assert (report.read, report.kept) == (12, 10)
    assert dict(report.rejected) == {"no_labels": 1, "labels_outside_emulator": 1}
    table = atlas.spectra("lamost_lrs").read()
    assert table["simulated"].to_pylist() == [True] * 10
    assert table["spec_id"].to_pylist() == [int(i) for n, i in enumerate(IDS) if n not in (3, 5)]
    assert table["source_id"].to_pylist() == table["spec_id"].to_pylist()
    assert set(table["release"].to_pylist()) == {"simulated"}
    assert table["ra"].to_pylist() == [10.0] * 10
    assert min(table["snrg"].to_pylist()) > 5
    assert atlas.spectra("gaia_xp").read(["simulated"])["simulated"].to_pylist() == [False] * 12


def test_a_second_run_does_nothing_and_a_lost_shard_comes_back_the_same(tmp_path):
    atlas = make_atlas(tmp_path / "a")
    simulate_pairs(atlas, seed=5)
    before = shard_bytes(atlas, "lamost_lrs")
    again = simulate_pairs(atlas, seed=5)
    assert (again.shards_written, again.shards_current, again.read) == (0, 2, 12)
    atlas.spectra("lamost_lrs").remove(0)
    assert simulate_pairs(atlas, seed=5).shards_written == 1
    assert shard_bytes(atlas, "lamost_lrs") == before
    simulate_pairs(atlas, seed=6)
    assert shard_bytes(atlas, "lamost_lrs") != before


def test_stars_do_not_depend_on_the_sharding(tmp_path):
    fluxes = []
    for parts in (1, 3):
        atlas = make_atlas(tmp_path / str(parts), parts)
        simulate_pairs(atlas, seed=5)
        fluxes.append(atlas.spectra("lamost_lrs").read(["spec_id", "flux"]))
    assert fluxes[0].to_pydict() == fluxes[1].to_pydict()


def test_missing_labels_are_told(tmp_path):
    atlas = make_atlas(tmp_path / "a", catalogue=False)
    with pytest.raises(AtlasError, match="no catalogue 'apogee'"):
        simulate_pairs(atlas)
    ingest_catalog_table(atlas, "bare", labels_table().drop_columns(["teff", "logg"]))
    with pytest.raises(AtlasError, match="lacks teff, logg"):
        simulate_pairs(atlas, catalogue="bare")
    empty = Atlas.create(tmp_path / "b")
    ingest_catalog_table(empty, "apogee", labels_table())
    with pytest.raises(AtlasError, match="no gaia_xp spectra"):
        simulate_pairs(empty)


def test_metal_poor_stars_stand_in_both_instruments_with_their_truth(tmp_path):
    atlas = make_atlas(tmp_path / "a")
    report = simulate_metal_poor(atlas, 25, seed=1)
    assert (report.read, report.kept, dict(report.rejected)) == (25, 25, {})
    truth = atlas.catalog("truth").read().to_pandas()
    assert truth["feh"].between(-4.0, -0.9).all()
    assert set(truth["base_source_id"]) <= set(IDS.tolist())
    for modality in ("gaia_xp", "lamost_lrs"):
        made = atlas.spectra(modality).read(["spec_id", "simulated"]).to_pandas()
        made = made[made["simulated"]]
        assert sorted(made["spec_id"]) == sorted(truth["source_id"])
    assert simulate_metal_poor(atlas, 25, seed=1).shards_written == 0
    # a simulated XP star is not paired again
    assert simulate_pairs(atlas).rejected["xp_is_simulated"] == 25


def test_the_truth_of_a_survey_is_not_overwritten(tmp_path):
    atlas = make_atlas(tmp_path / "a")
    ingest_catalog_table(atlas, "truth", pa.table({"source_id": IDS, "true_feh": FEH}))
    with pytest.raises(AtlasError, match="belongs to a simulated survey"):
        simulate_metal_poor(atlas, 5)


def test_simulated_ids_cannot_be_real_and_keep_the_split_of_their_base():
    bases = np.random.default_rng(0).integers(0, 2**62, 5000)
    ids = simulated_ids(bases)
    assert ids.dtype == np.int64
    assert len(set(ids.tolist())) == 5000
    assert ids.min() >= FIRST_SIMULATED_ID
    np.testing.assert_array_equal(split_of(ids), split_of(bases))


def test_targets_are_poorer_than_their_bases_and_reproducible():
    emulator = Emulator.load()
    labels = np.array([[5200.0, 4.5, -1.0, 0.3, 0.0], [4800.0, 2.0, -1.5, 0.3, 0.0], [5772.0, 4.44, 0.0, 0.0, 0.0]])
    rows, targets = draw_targets(emulator, labels, 200, np.random.default_rng(3))
    assert set(rows) <= {0, 1}
    assert (targets[:, 2] <= labels[rows, 2] - 0.3).all()
    assert emulator.covers(targets).all()
    assert (targets[:, 4] > 0.7).any()
    again = draw_targets(emulator, labels, 200, np.random.default_rng(3))
    np.testing.assert_array_equal(targets, again[1])
    with pytest.raises(ValueError, match="no labelled star"):
        draw_targets(emulator, labels[2:], 5, np.random.default_rng(0))


def test_a_spectrum_moved_nowhere_stays_and_one_moved_down_loses_its_lines():
    emulator = Emulator.load()
    rich = np.array([[5000.0, 4.4, -0.6, 0.2, 0.0]])
    poor = rich + np.array([[0, 0, -2.0, 0.1, 0]])
    flux = model_xp(emulator, rich)
    np.testing.assert_allclose(moved_xp(emulator, flux, rich, rich), flux, rtol=1e-12)
    expected = model_xp(emulator, poor) * xp_correction(poor) / xp_correction(rich)
    np.testing.assert_allclose(moved_xp(emulator, flux, rich, poor), expected, rtol=1e-12)
    calcium = slice(25, 32)
    assert moved_xp(emulator, flux, rich, poor)[0, calcium].sum() > 1.3 * flux[0, calcium].sum()


def test_the_smoothing_keeps_a_flat_spectrum_flat():
    wavelength = Emulator.load().sed_wavelength / 10
    np.testing.assert_allclose(smoothing_matrix(wavelength).sum(axis=1), 1.0)
    assert GAIA_XP.size == len(smoothing_matrix(wavelength))


def test_labels_of_a_catalogue_are_found_by_exact_id(tmp_path):
    atlas = make_atlas(tmp_path / "a")
    labels = read_labels(atlas.catalog("apogee"))
    found = labels.lookup(np.array([IDS[2], IDS[2] + 1, IDS[11]]))
    assert found[0, 0] == TEFF[2]
    assert np.isnan(found[1]).all()
